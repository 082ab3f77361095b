"""A recipe's ``compare``, for ``tinymim distill``: its student and the same student from scratch, a study of two rows.

compare (of a recipe)
  stages     NAME: ``{recipe, set}``: what the student and the network from scratch are used for
  figures    as a study's: the columns
  set        overrides of the recipe itself
  teacher    a recipe of 10-NN, for a row of the teacher; without it there is none
  settings   as a study's; rows are called ``scratch``, and by the recipe's name
  search     as a study's

``{probe: RECIPE, finetune: RECIPE}`` is short for two stages and a study's own figures, also where a recipe that is
extended has a longer one.

RUN/ROW/STAGE/              what the fit leaves, of the first seed
RUN/ROW/seedN/STAGE/        the same of another seed
RUN/table.md, table.json    written at the end
RUN/index.html, curves/     the page with the curves, likewise
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinymim.config import recipe as recipes
from tinymim.config import references
from tinymim.config.spec import unknown
from tinymim.errors import TinymimError
from tinymim.experiments import study
from tinymim.experiments.plan import Fit
from tinymim.experiments.study import Study, Written
from tinymim.safety import names, text
from tinymim.safety.text import brief

SCRATCH, STUDENT, TEACHER = "scratch", "student", "teacher"
KEYS = {"stages", "figures", "set", "teacher", "settings", "search"}


def read(
    recipe: str, overrides: list[str], choose: Callable[[int], list[int]] = lambda seed: [seed], searching: bool = False
) -> Study | None:
    """Read a recipe's ``compare`` as a study of two rows; ``None`` where it has none.

    Args:
        recipe: name or path.
        overrides: of the recipe; those of :data:`study.SHARED` reach everything.
        choose: the seeds, from the recipe's own.
        searching: as for :func:`study.parse`.

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
    seeds = choose(int(references.filled(config.get("seed_everything", 0), ("seed_everything",))))
    content: dict[str, Any] = {
        "seeds": seeds,
        "budget": compare.get("set") or {},
        "rows": {  # the student first: its pre-training is the longest fit, and others run beside it
            STUDENT: {"title": f"student of {name}", "recipe": recipe, "known": name},
            SCRATCH: {
                "title": "from scratch",
                "recipe": None,
                "later": {"model.init_args.architecture": network} if network else None,
            },
        },
        "questions": {"compared": {"title": name, "rows": [SCRATCH, STUDENT]}},
        **{key: compare[key] for key in ("stages", "figures", "settings", "search") if key in compare},
    }

    def folder(row: str, seed: int) -> str:  # of their own from the second on
        return row if seed == seeds[0] else f"{row}/seed{seed}"

    compared = study.parse(content, name, f"compare of {recipe}", overrides, searching=searching, folder=folder)
    compared.plan.kind = "comparison"
    compared.compared.search = f"tinymim search {recipe}"
    if not searching and compare.get("teacher") and isinstance(model.get("teacher"), str):
        _add_teacher(compared, compare["teacher"], model["teacher"], overrides, seeds[0])
    return compared


def uncompared(recipe: str) -> TinymimError:
    """The error on a recipe without ``compare``: trained unasked it could take days, beside nothing."""
    data = Path(recipe).stem.rpartition("_")[2]
    alike = [name for name in recipes.names() if name.rpartition("_")[2] == data]
    known = [name for name in alike if _compares(recipes.find(name))]
    others = f"; recipes of {data} that have one: {', '.join(known)}" if known else ""
    return TinymimError(
        f"recipe: {recipe} has no `compare`, so there is nothing to lay beside it; `tinymim fit {recipe}` trains it"
        f"{others}"
    )


def _compares(path: Path) -> bool:
    """Whether a recipe, or what it extends, has ``compare``, by their texts alone: composing opens classes."""
    waiting, seen = [path], set[Path]()
    while waiting:
        if (place := waiting.pop()) in seen or not place.is_file():
            continue
        seen.add(place)
        try:
            content = text.read_yaml(place, str(place))
        except TinymimError:
            continue
        if not isinstance(content, dict):
            continue
        if content.get("compare"):
            return True
        fragments = content.get("extends")
        for fragment in fragments if isinstance(fragments, list) else []:
            places = [folder / f"{fragment}.yaml" for folder in (place.parent, *recipes.folders())]
            waiting += list(filter(Path.is_file, places))[:1]
    return False


def _add_teacher(compared: Study, recipe: str, teacher: str, overrides: list[str], seed: int) -> None:
    """Add a test of the teacher, a row for reference that has the figures of nearest neighbours."""
    shared = [text for text in overrides if text.removeprefix("--").startswith(study.SHARED)]
    fit = Written(recipe, (*shared, f"--model.init_args.weights={json.dumps(teacher)}"))
    stage = fit.stage(TEACHER, TEACHER)
    stage.kind = "test"
    compared.plan.stages[TEACHER] = stage
    compared.plan.fits[TEACHER] = Fit(TEACHER, seed)
    tables = compared.compared
    of_neighbours = {figure.stage for figure in tables.figures.values() if "knn" in figure.metric}
    tables.rows[TEACHER] = dict.fromkeys(of_neighbours, TEACHER)
    tables.questions["compared"].rows[TEACHER] = "its teacher, for reference"
    compared.cells[TEACHER, seed] = [TEACHER]
