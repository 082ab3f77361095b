"""A cell of a table: a student pre-trained in one way from one seed, then used in every later stage; each is a fit.

CELL/pretrain, CELL/STAGE     run folders; a stage whose results.json (or test.json) is there is not run again
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tinymim.errors import TinymimError
from tinymim.experiments.question import FIGURES, Figure
from tinymim.log import say
from tinymim.training import fit

PRETRAIN = "pretrain"
"""The stage that comes before the later ones."""


SHARED = ("data", "vars", "trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.precision")
"""Overrides that every stage of a cell takes, whichever recipe they were given for."""


@dataclass(frozen=True)
class Stage:
    """One fit: the folder it has in its cell, its recipe, and overrides of that recipe; or a test of weights that the
    recipe names, where ``command`` says so. An empty ``name`` is the cell's own folder."""

    name: str
    recipe: str
    overrides: tuple[str, ...] = ()
    command: Literal["fit", "test"] = "fit"

    @property
    def results(self) -> str:
        """The file that it leaves in its folder when it is done."""
        return "results.json" if self.command == "fit" else "test.json"


@dataclass
class Cell:
    """What a cell measured: figures by title, parameters of the student, seconds of training."""

    figures: dict[str, float]
    parameters: int
    seconds: float


def chain(
    recipe: str | None, overrides: list[str], later: list[Stage], place: Path, weights: str | None = None
) -> list[Stage]:
    """The stages of a cell: pre-training, if there is one, then the later ones, which start from its last weights.

    Args:
        recipe: pre-trains the student.
        overrides: of that recipe.
        later: the stages after it.
        place: the cell's folder.
        weights: what the later stages start from without a ``recipe``; ``None`` leaves them random.
    """
    first = []
    if recipe is not None:
        first = [Stage(PRETRAIN, recipe, tuple(overrides))]
        weights = str(place / PRETRAIN / "checkpoints" / "last.ckpt")
    if weights is None:
        return later
    start = (f"--model.init_args.weights={weights}", "--model.init_args.architecture=null")
    return [*first, *(replace(stage, overrides=(*stage.overrides, *start)) for stage in later)]


def run(stages: list[Stage], seed: int, place: Path, figures: dict[str, Figure] = FIGURES) -> Cell:
    """Run what is not yet done of a cell; a stage that was cut off goes on from its last checkpoint.

    Raises:
        TinymimError: a stage cannot run, or did not measure one of the ``figures``.
    """
    for stage in stages:
        _run(stage, seed, place / stage.name)
    found = results(stages, place)
    seconds = round(sum(result.get("seconds", 0) for result in found.values()), 1)
    return Cell(measured(found, figures), found[stages[-1].name].get("parameters", 0), seconds)


def results(stages: list[Stage], place: Path) -> dict[str, dict[str, Any]]:
    """The ``results.json`` of each stage of the finished cell in ``place``.

    Raises:
        TinymimError: one is gone.
    """
    files = {stage.name: place / stage.name / stage.results for stage in stages}
    if gone := [str(path) for path in files.values() if not path.is_file()]:
        raise TinymimError(f"{place} is a finished cell without {', '.join(gone)}; remove it to run it again")
    return {name: json.loads(path.read_text()) for name, path in files.items()}


def measured(found: dict[str, dict[str, Any]], figures: dict[str, Figure] = FIGURES) -> dict[str, float]:
    """The figures that stages have measured.

    Args:
        found: their ``results.json``, by stage.
        figures: those of other stages are passed over.

    Raises:
        TinymimError: a stage is there without the metric of a figure.
    """
    shown = {}
    for title, figure in figures.items():
        if figure.stage in found:
            metrics = found[figure.stage]["metrics"]
            if figure.metric not in metrics:
                known = ", ".join(sorted(metrics)) or "nothing"
                raise TinymimError(f"figures.{title}.metric: {figure.stage} has no {figure.metric}; it has {known}")
            shown[title] = metrics[figure.metric]
    return shown


def _run(stage: Stage, seed: int, place: Path) -> None:
    if (place / stage.results).is_file():
        return
    say(f"-- {stage.recipe}, seed {seed}: {place}")
    begun = ["--ckpt_path", "last"] if place.exists() and stage.command == "fit" else []
    own = [f"--seed_everything={seed}", f"--run_dir={place}", *begun]
    fit.run(stage.command, ["--config", stage.recipe, *stage.overrides, *own])
