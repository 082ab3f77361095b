"""Folders of studies, comparisons and searches as earlier versions wrote them: a ``cell.json`` for each cell or fit.

It has the recipes of the cell's fits, which show whether a finished fit is the one that the plan has.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from tinymim import precision
from tinymim.experiments import fit_files
from tinymim.experiments.plan import CHECKPOINT, Plan, Stage, seeded
from tinymim.experiments.plan_changes import decisive
from tinymim.experiments.state import Entry, State, begin
from tinymim.experiments.study import CELL
from tinymim.safety.text import json_or_empty
from tinymim.training.run_folder import RECIPE

RECORD = "cell.json"


def read(place: Path, plan: Plan, tried: dict[str, tuple[Stage, dict[str, Any]]] | None = None) -> State | None:
    """The state of a folder that has records of cells; ``None`` where it has none.

    Args:
        place: the folder.
        plan: what is to be run there.
        tried: of a search: by stage, the stage that its combination is laid over, and the combination.
    """
    if next(place.glob(f"*/**/{RECORD}"), None) is None:
        return None
    state = begin(place, dataclasses.replace(plan, stages=dict(plan.stages)))
    for key, fit in plan.fits.items():
        stage, point = (tried or {}).get(fit.stage, (plan.stages[fit.stage], None))
        record = next(
            filter(None, (json_or_empty(folder / RECORD) for folder in (place / key, (place / key).parent))), None
        )
        if record is None:
            continue
        definition = record.get("definition") or {}
        role = "test" if stage.kind == "test" else stage.name.rpartition("/")[2]
        before = _before(definition.get(role) or {}, stage)
        if same(stage, before) and definition.get("tried") == point:
            if precision.is_auto(plan.stages[fit.stage].config) and (settled := precision.of(before)):
                planned = plan.stages[fit.stage]
                state.plan.stages[fit.stage] = dataclasses.replace(
                    planned, config=precision.with_precision(planned.config, settled)
                )
            outputs = fit_files.outputs(state, key)
            if outputs.keys() - {CHECKPOINT}:  # those of finished ones may have been removed
                state.entries[key] = Entry("done", outputs=outputs)
            elif (place / key / RECIPE).is_file():
                state.entries[key].state = "interrupted"
        else:
            state.plan.stages[fit.stage] = dataclasses.replace(plan.stages[fit.stage], config=before)
            state.entries[key].state = "interrupted"
    return state


def same(stage: Stage, before: dict[str, Any]) -> bool:
    """Whether a recipe is that of a stage, but for the precision that ``auto`` came to."""
    config = seeded(stage.config)
    if precision.is_auto(config) and (settled := precision.of(before)):
        config = precision.with_precision(config, settled)
    return decisive(dataclasses.replace(stage, config=config)) == decisive(dataclasses.replace(stage, config=before))


def _before(config: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """The recipe of a fit as it was recorded; comparisons had the path of the weights in it."""
    config = json.loads(json.dumps(config))
    options = (config.get("model") or {}).get("init_args") or {}
    weights = options.get("weights")
    if CELL in stage.sources and isinstance(weights, str) and weights.endswith(CELL.removeprefix("cell")):
        options["weights"] = CELL
    return {"seed_everything": 0, **config}
