"""A cell of a table: a student pre-trained in one way from one seed, then used in every later stage; each is a fit.

CELL/pretrain, CELL/STAGE     run folders; a stage whose results.json (or test.json) is there is not run again
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tinymim.errors import TinymimError
from tinymim.log import say
from tinymim.training import fit

PRETRAIN = "pretrain"
"""The stage that comes before the later ones."""


@dataclass(frozen=True)
class Figure:
    """A column of a table.

    Args:
        stage: that it comes from.
        metric: in the stage's ``results.json``, such as ``val/top1``.
        unit: one that begins with ``%``, such as ``% of the side``, shows a share in per cent; any other is the
            metric's own, and empty is none.
        better: ``higher`` or ``lower``.
    """

    stage: str
    metric: str
    unit: str = "%"
    better: Literal["higher", "lower"] = "higher"

    @property
    def scale(self) -> int:
        """What a value is multiplied by to be shown."""
        return 100 if self.unit.startswith("%") else 1

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self.better == "higher" else -1

    def head(self, title: str) -> str:
        """``title`` over a column: with the unit unless it is plain per cent, and an arrow where lower is better."""
        return title + (f" ({self.unit})" if self.unit not in ("%", "") else "") + (" ↓" if self.sign < 0 else "")

    def number(self, value: float, digits: int = 4) -> str:
        """A value in the figure's unit: per cent to one decimal, others to so many digits."""
        return f"{100 * value:.1f}" if self.scale == 100 else f"{value:.{digits}g}"

    def shown(self, values: list[float]) -> str:
        """Mean, and the spread (standard deviation over seeds) where there are several; ``-`` where there are none."""
        if not values:
            return "-"
        mean = self.number(statistics.mean(values))
        if len(values) > 1:
            return f"{mean} ± {self.number(statistics.stdev(values), 2)}"
        return f"{mean} %" if self.scale == 100 else mean


FIGURES = {
    "10-NN": Figure("probe", "val/knn_top1"),
    "linear probe": Figure("probe", "val/top1"),
    "fine-tuned": Figure("finetune", "val/top1"),
}
"""The figures of a study that names none, of chains and of ``tinymim distill``: shares of the held-out images."""

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
