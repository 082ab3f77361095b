"""Run folders as a report needs them: recipe, curves, figures."""

from __future__ import annotations

import csv
import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinymim.config import references
from tinymim.errors import TinymimError, counted
from tinymim.log import say
from tinymim.safety import text
from tinymim.teachers import record_schemas
from tinymim.teachers.provenance import DEPTH, PLANS
from tinymim.training import inspection, lock, metrics_log, run_schemas
from tinymim.training.metrics_log import Curves
from tinymim.training.progress import clock
from tinymim.training.run_folder import PROGRESS, RECIPE, check_run

PAGE = "report.html"
"""Name of a run's page in its folder."""


@dataclass
class Run:
    """The contents of a run folder.

    Args:
        place: the folder.
        name: the folder's, made longer where two runs share it.
        recipe: its resolved recipe.
        curves: what it logged, by the count of steps that had been taken; as the log has it, from 0, when it is made.
        results: ``results.json``; empty until the run is done.
        progress: ``progress.json``.
        environment: ``environment.json``.
    """

    place: Path
    name: str
    recipe: dict[str, Any]
    curves: Curves
    results: dict[str, Any]
    progress: dict[str, Any]
    environment: dict[str, Any]

    def __post_init__(self) -> None:
        model, data = (self.recipe.get(part) or {} for part in ("model", "data"))
        self.kind, data_class = (str(part.get("class_path", "")).rpartition(".")[2] for part in (model, data))
        """The class of its module."""
        self.arguments: dict[str, Any] = model.get("init_args") or {}
        self.data_options: dict[str, Any] = data.get("init_args") or {}
        self.taught = bool(self.arguments.get("teacher"))
        """Whether it learnt from a teacher."""
        self.source: str | None = self.arguments.get("teacher") or self.arguments.get("weights")
        """The teacher, or the weights it started from, as the recipe names them."""
        self.start = f"{'taught by' if self.taught else 'from'} {self.source}" if self.source else "from scratch"
        root = self.data_options.get("root")
        self.data = data_class + (f" of {root}" if root else "")
        """The class of its data module, and its folder if it has one."""
        self.metrics: dict[str, float] = self.results.get("metrics") or self.progress.get("metrics") or {}
        """The final figures, or the newest of a run that goes on."""
        self.steps, self.epochs = (self._whole(name) for name in ("steps", "epochs"))
        """Steps and epochs of the whole run; 0 where they are not known."""
        # loggers count steps from 0, and a validation after the last one as if it were another
        most = self.steps or metrics_log.LAST_STEP
        self.curves = {
            name: ([min(step + 1, most) for step in steps], values) for name, (steps, values) in self.curves.items()
        }

    def _whole(self, name: str) -> int:
        number = self.progress.get(name) or self.results.get(name)
        return number if isinstance(number, int) and number > 0 else 0

    @property
    def state(self) -> str:
        """Progress of the run, in words."""
        state = self.progress.get("state") or ("done" if self.results else "not begun")
        if state == "running" and not lock.owner(self.place):
            state = f"cut off; `tinymim resume {self.place}` goes on"
        parts = [state]
        if {"epoch", "epochs"} <= self.progress.keys():
            parts.append(f"{self.progress['epoch']} of {counted(self.progress['epochs'], 'epoch')}")
        seconds = self.results.get("seconds") or self.progress.get("seconds")
        return ", ".join(parts if seconds is None else [*parts, clock(seconds)])


def read(place: Path) -> Run:
    """Read a run folder.

    Raises:
        TinymimError: no run there, see :func:`tinymim.training.run_folder.check_run`, or one that cannot be read.
    """
    check_run(place)
    try:
        recipe = inspection.read(place / RECIPE, f"run: {place / RECIPE}")
        curves = metrics_log.read(place)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise TinymimError(f"run: {place} cannot be read: {error}") from None
    kept = list(references.places(recipe))
    names = ("results.json", PROGRESS, "environment.json")
    files = [references.without_values(text.json_or_empty(place / name), kept) for name in names]
    for name, content in zip(names[:2], files, strict=False):
        record_schemas.fit(content, run_schemas.Results, f"run: {place / name}")
    record_schemas.fit(files[2], run_schemas.Environment, f"run: {place / 'environment.json'}")
    return Run(place, place.resolve().name, recipe, curves, *files)


def beside(run: Run, most: int = 60) -> list[Run]:
    """The finished runs in the folder that ``run``'s own lies in, and those of its stage in the same study, comparison
    or chain; newest first."""
    own = run.place.resolve()
    results = {path for path in own.parent.glob("*/results.json") if path.parent != own}
    for whole in own.parents[1:DEPTH]:
        if any((whole / name).is_file() for name in PLANS):
            between = own.relative_to(whole).parts
            stage = "/".join(["*"] * (len(between) - 1) + [glob.escape(between[-1]), "results.json"])
            results |= {path for path in whole.glob(stage) if path.parent != own}
            break
    newest = sorted(results, key=lambda path: path.stat().st_mtime, reverse=True)
    others = []
    for place in (path.parent for path in newest[:most] if (path.parent / RECIPE).is_file()):
        try:
            others.append(read(place))
        except TinymimError as error:
            say(f"left out of the comparison: {error}")
    return others


def distinguish(runs: list[Run]) -> None:
    """Name runs whose folders share a name by as many of their parents' too as tell them apart."""
    for length in range(2, DEPTH + 1):
        names = [run.name for run in runs]
        for run in runs:
            if names.count(run.name) > 1:
                run.name = "/".join(run.place.resolve().parts[-length:])
