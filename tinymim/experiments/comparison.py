"""What ``tinymim distill`` compares: a recipe's student with the same student from scratch, as a study of two rows.

compare (of a recipe)
  stages     NAME: ``{recipe, set}``: what the student and the network from scratch are used for
  figures    as a study's: the columns
  set        overrides of the recipe itself
  teacher    a recipe of 10-NN, for a row of the teacher; without it there is none
  settings   as a study's; rows are called ``scratch``, and by the recipe's name
  search     as a study's

``{probe: RECIPE, finetune: RECIPE}`` is short for two stages and a study's own figures, also where a recipe that is
extended has a longer one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tinymim.config import recipe as recipes
from tinymim.config import references
from tinymim.config.spec import unknown
from tinymim.errors import TinymimError
from tinymim.experiments import study_grid
from tinymim.experiments.cells import Stage
from tinymim.experiments.study_grid import Study
from tinymim.safety import names
from tinymim.safety.text import brief

SCRATCH, STUDENT, TEACHER = "scratch", "student", "teacher"
KEYS = {"stages", "figures", "set", "teacher", "settings", "search"}


@dataclass
class Comparison:
    """A recipe beside the same student from scratch.

    Args:
        study: of the two rows.
        teacher: tests the teacher, if the recipe has one and ``compare`` asks for it.
        name: of the recipe.
    """

    study: Study
    teacher: Stage | None
    name: str


def read(recipe: str, overrides: list[str], searching: bool = False) -> Comparison | None:
    """What a recipe's ``compare`` says; ``None`` where it has none.

    Args:
        recipe: name or path.
        overrides: of the recipe; those of :data:`cells.SHARED` reach everything.
        searching: as for :func:`grid.parse`.

    Raises:
        TinymimError: mistakes in it, or in the settings that it names.
    """
    config, _ = recipes.resolve(["--config", recipe, *overrides])
    compare = config.get("compare")
    if not compare:
        return None
    if not isinstance(compare, dict):
        raise TinymimError(f"compare: {compare!r} is not a mapping of {', '.join(sorted(KEYS))}")
    if short := {key: value for key, value in compare.items() if isinstance(value, str) and key not in KEYS}:
        compare = {"stages": {stage: {"recipe": used} for stage, used in short.items()}}  # also over a longer one
    for key in ("teacher", "settings"):
        if not isinstance(compare.get(key), str | None):
            raise TinymimError(f"compare.{key}: {brief(compare[key])} is not the name of a recipe or of settings")
    if wrong := unknown(compare, "compare", KEYS):
        raise TinymimError(wrong[0])
    model = config["model"]["init_args"]
    network = model.get("student") or model.get("architecture")
    name = references.filled(config["name"], ("name",))
    names.check(name, "name")
    content: dict[str, Any] = {
        "seeds": [int(references.filled(config.get("seed_everything", 0), ("seed_everything",)))],
        "budget": compare.get("set") or {},
        "rows": {
            SCRATCH: {"title": "from scratch", "recipe": None, **_later(network)},
            STUDENT: {"title": f"student of {name}", "recipe": recipe, "known": name},
        },
        "questions": {"compared": {"title": name, "rows": [SCRATCH, STUDENT]}},
        **{key: compare[key] for key in ("stages", "figures", "settings", "search") if key in compare},
    }
    study = study_grid.parse(content, name, f"compare of {recipe}", overrides, searching)
    study.asked = f"tinymim search {recipe}"
    return Comparison(study, _teacher(compare, model, study.shared), name)


def _later(network: Any) -> dict[str, Any]:
    return {"later": {"model.init_args.architecture": network}} if network else {}


def _teacher(compare: dict[str, Any], model: dict[str, Any], shared: list[str]) -> Stage | None:
    """The test of the teacher."""
    if not compare.get("teacher") or not isinstance(model.get("teacher"), str):
        return None
    start = f"--model.init_args.weights={json.dumps(model['teacher'])}"
    return Stage("", compare["teacher"], (*shared, start), "test")
