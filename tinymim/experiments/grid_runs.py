"""The table of a study's runs: what lies in the folders of its cells, as rows."""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from tinymim.errors import TinymimError
from tinymim.experiments import plan_check
from tinymim.experiments.fit_files import RESULTS
from tinymim.experiments.grid import TUNED, Cell, Grid
from tinymim.experiments.plan import seeded
from tinymim.experiments.state import Entry, State
from tinymim.safety.text import json_or_empty
from tinymim.scaling.overfitting import flagged
from tinymim.scaling.reconstruction_figure import choose
from tinymim.scaling.table import RunRow
from tinymim.training import preflight
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import skeleton

NAME = "runs.csv"
LOSS, TRAIN_LOSS, ACCURACY = "val/loss", "val/train_loss", "val/top1"
EACH = re.compile(rf"{LOSS}_mask\d+")
"""The held-out loss under each seed of the masks."""


def rows(study: Grid, state: State) -> list[RunRow]:
    """The cells that are done or have failed, by objective, then as they are run. A cell whose fine-tuning failed is
    done, without an accuracy."""
    table = []
    for key, entry in state.entries.items():
        cell = study.cells.get(state.plan.stage(key).name)
        if cell and entry.state == "done":
            table.append(_done(study, state, key, cell))
        elif cell and entry.state == "failed" and (row := _failed(state, key, cell, entry)):
            table.append(row)
    return sorted(table, key=lambda row: study.objectives.index(row.objective))


def _done(study: Grid, state: State, key: str, cell: Cell) -> RunRow:
    results = json_or_empty(state.place / key / RESULTS)
    metrics = results["metrics"]
    each = [metrics[name] for name in sorted(filter(EACH.fullmatch, metrics), key=len)]
    loss = metrics.get(LOSS, math.nan)
    tuned = state.entries.get(key + TUNED)
    accuracy = None
    if tuned and tuned.state == "done":
        accuracy = json_or_empty(state.place / (key + TUNED) / RESULTS)["metrics"].get(ACCURACY)
    failed = f"{LOSS} is not in {state.place / key / RESULTS}: nothing was held out" if math.isnan(loss) else None
    return RunRow(
        objective=cell.objective,
        model=cell.size,
        parameters=results["parameters"],
        data=cell.data,
        images=results["images"],
        iterations=results["steps"],
        validation_loss=loss,
        training_loss=metrics.get(TRAIN_LOSS),
        noise=statistics.stdev(each) if len(each) > 1 else None,
        accuracy=accuracy,
        flops=results["flops"],
        images_seen=results["images_seen"],
        seed=state.plan.fits[key].seed,
        status="failed" if failed else "done",
        error=failed,
        mask_losses=tuple(each) if len(each) > 1 else None,
    )


def keys(study: Grid, state: State) -> dict[tuple[object, ...], str]:
    """The key of each cell's stage by what tells its row from others, see :func:`identity`."""
    return {
        (cell.objective, cell.size, cell.data, cell.length, fit.seed): key
        for key, fit in state.plan.fits.items()
        if (cell := study.cells.get(fit.stage))
    }


def identity(row: RunRow) -> tuple[object, ...]:
    """The key that tells a row from others."""
    return row.objective, row.model, row.data, row.iterations, row.seed


def chosen(study: Grid, state: State, rows: list[RunRow]) -> dict[str, Path]:
    """Run folders by title: the most overfitted run and the best one, of the first objective that restores images and
    has both; empty where none has."""
    places, runs = keys(study, state), flagged(rows)
    for objective in dict.fromkeys(row.objective for row in rows):
        kinds = {study.plan.stages[name].kind for name, cell in study.cells.items() if cell.objective == objective}
        pair = choose(runs[runs["objective"] == objective]) if kinds == {"pretrain"} else None
        if pair:
            return {row.name: state.place / places[identity(row)] for row in pair}
    return {}


def _failed(state: State, key: str, cell: Cell, entry: Entry) -> RunRow | None:
    """A row that says why; none where not even its size and its images can be told."""
    try:
        config = seeded(state.plan.stage(key).config)
        options: dict[str, Any] = config["model"]["init_args"]
        network = skeleton(Architecture(**(options.get("student") or options["architecture"])))
        parameters = sum(parameter.numel() for parameter in network.parameters())
        images = plan_check.count(preflight.build(pl.LightningDataModule, config["data"], []))
    except (TinymimError, OSError):
        return None
    return RunRow(
        cell.objective, cell.size, parameters, cell.data, images, cell.length,
        seed=state.plan.fits[key].seed, status="failed", error=entry.error,
    )  # fmt: skip


def describe(row: RunRow) -> str:
    """A run's figures, for people."""
    if row.status == "failed":
        return f"failed: {row.error}"
    noise = "" if row.noise is None else f" ± {row.noise:.4f}"
    texts = [f"held-out loss {row.validation_loss:.4f}{noise}"]
    texts += [] if row.training_loss is None else [f"on training images {row.training_loss:.4f}"]
    texts += [] if row.accuracy is None else [f"fine-tuned {row.accuracy:.1%}"]
    return ", ".join(texts)
