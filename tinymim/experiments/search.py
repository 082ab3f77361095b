"""A search of settings for the rows of a comparison, each its own, on a part of the training images.

search
  share   of the training images that every fit of the search leaves out, its pre-training too, and that settings are
          judged on; 0.2 by default. No held-out image is read
  seeds   list; each combination is fitted once for each; [0] by default
  grid    STAGE: ``{dotted.key: [values]}``: all combinations of the values, the same ones for every row; or a list of
          such mappings, where not every combination makes sense
  by      STAGE: title of the figure that decides; by default the stage's last. Of equals, the lower loss

RUN/cells/ROW/pretrain, RUN/cells/ROW/STAGE/COMBINATION/seedN     the fits; finished ones are kept by the same command
RUN/search.json                                                  what each combination came to
"""

from __future__ import annotations

import itertools
import re
import statistics
from pathlib import Path
from typing import Any

from tinymim.config.spec import texts
from tinymim.errors import TinymimError, counted
from tinymim.experiments import schema, settings, study
from tinymim.experiments.plan import Fit, Plan, Stage
from tinymim.experiments.questions import PRETRAIN, Figure
from tinymim.experiments.settings import Settings, shown
from tinymim.experiments.state import State
from tinymim.experiments.study import Study, Written
from tinymim.log import say
from tinymim.near_names import strangers
from tinymim.safety.text import json_or_empty

BRIEF = {
    "trainer.enable_checkpointing": False,
    "trainer.num_sanity_val_steps": 0,
    "trainer.check_val_every_n_epoch": 100_000,  # at the end alone
    "trainer.logger": False,
}
"""Overrides of every fit that is tried: nobody reads anything but its last figure."""

Point = dict[str, Any]
"""A combination: values by dotted key."""

Grid = dict[str, list[Any]]
"""Values to combine, by dotted key."""

DEFAULT_SHARE = 0.2


def points(tried: Grid | list[Grid]) -> list[Point]:
    """All combinations of the values of each mapping, each once."""
    found = [
        dict(zip(grid, each, strict=True))
        for grid in schema.mappings(tried)
        for each in itertools.product(*grid.values())
    ]
    return [point for number, point in enumerate(found) if point not in found[:number]]


class Search:
    """A search of the settings of some rows, or of all, of what is ``compared``, read for a search.

    Raises:
        TinymimError: an unknown row.
    """

    def __init__(self, compared: Study, rows: list[str]):
        name = compared.plan.name
        if wrong := [row for row in rows if row not in compared.compared.rows]:
            raise TinymimError(f"rows: {name} has no {strangers(wrong, compared.compared.rows)}")
        self.compared, self.rows = compared, rows or list(compared.compared.rows)
        self.grid: dict[str, Grid | list[Grid]] = compared.search["grid"]
        self.seeds: list[int] = compared.search.get("seeds", [0])
        self.tried: dict[str, tuple[Stage, Point]] = {}
        self.plan = self._plan()

    def _plan(self) -> Plan:
        """Plan what these rows need, their pre-trainings, and each combination in each stage from each seed."""
        old = self.compared.plan
        stages: dict[str, Stage] = {}
        fits: dict[str, Fit] = {}
        later: dict[str, Fit] = {}
        for row in self.rows:
            if before := old.stages.get(f"{row}/{PRETRAIN}"):
                stages[before.name] = before
                fits[f"cells/{before.name}"] = Fit(before.name, 0)
            spec = self.compared.rows[row]
            written = study.written(spec, self.compared.later, Settings(), self.compared.shared)
            for role, tried in self.grid.items():
                for point in points(tried):
                    name = f"{row}/{role}/{folder(point)}"
                    overrides = (*written[role].overrides, *texts({**BRIEF, **point}))
                    stages[name] = Written(written[role].recipe, overrides).stage(name, row)
                    self.tried[name] = old.stages[f"{row}/{role}"], point
                    later |= {f"cells/{name}/seed{seed}": Fit(name, seed) for seed in self.seeds}
        for name in reversed([name for name in old.stages if name.startswith("prepare/")]):
            if any(name in stage.sources.values() for stage in stages.values()):
                stages, fits = {name: old.stages[name], **stages}, {name: Fit(name, 0), **fits}
        return Plan(old.name, stages, "", self.seeds, kind="search", fits=fits | later)

    def figure(self, role: str) -> tuple[str, Figure]:
        """Title of the figure that decides in a stage, and the figure."""
        figures = self.compared.compared.figures
        by = (self.compared.search.get("by") or {}).get(role)
        title = by or [title for title, figure in figures.items() if figure.stage == role][-1]
        return title, figures[title]

    def describe(self, state: State, key: str) -> str:
        """The figure of a fit that is done."""
        role = key.split("/")[2]
        if role not in self.grid:
            return "done"
        title, figure = self.figure(role)
        return f"{title} {figure.shown([_metrics(state, key)[figure.metric]])}"

    def scores(self, state: State) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Scores of the combinations, by row and stage, best first; equals by their loss."""
        return {row: {role: self._scores(state, row, role) for role in self.grid} for row in self.rows}

    def _scores(self, state: State, row: str, role: str) -> list[dict[str, Any]]:
        title, figure = self.figure(role)
        scores = []
        for point in points(self.grid[role]):
            keys = [f"cells/{row}/{role}/{folder(point)}/seed{seed}" for seed in self.seeds]
            if all(state.entries[key].state == "done" for key in keys):
                metrics = [_metrics(state, key) for key in keys]
                loss = statistics.mean(values.get("val/loss", 0.0) for values in metrics)
                score = statistics.mean(values[figure.metric] for values in metrics)
                scores.append({"set": point, title: score, "val/loss": loss})
        return sorted(scores, key=lambda score: (-figure.sign * score[title], score["val/loss"]))

    def write(self, name: str, command: str, scores: dict[str, dict[str, list[dict[str, Any]]]]) -> Path:
        """Lay the best of each row over the file of settings, where that is of the same search."""
        path, how, rows = settings.place(name), self._how(), self.compared.rows
        before = settings.load(str(path)) if path.is_file() else Settings()
        # Older files leave the ending of "seed" open.
        said, now = (re.sub(r"seed\S* each", "seed each", text) for text in (before.how, how))
        kept = before.rows if said == now else {}
        if gone := [row for row in before.rows if row not in kept and row not in {rows[r].known for r in scores}]:
            others = f"{', '.join(gone)} had settings of another search"
            say(f"{path}: {others}, which is no fair comparison: they are left out")
        for row, stages in scores.items():
            kept[rows[row].known] = {role: tried[0]["set"] for role, tried in stages.items()}
            for role, tried in stages.items():
                title, figure = self.figure(role)
                figures = ", ".join(f"{shown(score['set'])}: {figure.shown([score[title]])}" for score in tried)
                say(f"{rows[row].title}, {role}: {figures}")
        chosen = Settings(str(path), command, how, {role: _values(tried) for role, tried in self.grid.items()}, kept)
        settings.write(path, chosen)
        for line in chosen.at_ends({rows[row].known: rows[row].title for row in scores}, list(self.grid)):
            say(line.replace("*", ""))
        return path

    def _how(self) -> str:
        """The budget, in words."""
        parts = []
        for role, tried in self.grid.items():
            values = " or ".join(
                "; ".join(f"{key.rpartition('.')[2]} {', '.join(map(str, each))}" for key, each in grid.items())
                for grid in schema.mappings(tried)
            )
            parts.append(f"{role} {len(points(tried))} ({values})")
        share = self.compared.search.get("share", DEFAULT_SHARE)
        seeds = counted(len(self.seeds), "seed")
        return (
            f"the best of the same combinations for every row, {', '.join(parts)}, {seeds} each and as many epochs for "
            f"every row, fitted on {1 - share:.0%} of the training images and judged on the other {share:.0%}."
        )


def _values(tried: Grid | list[Grid]) -> Grid:
    """Every value of each key, whatever it was combined with."""
    values: Grid = {}
    for grid in schema.mappings(tried):
        for key, each in grid.items():
            values.setdefault(key, []).extend(value for value in each if value not in values.get(key, []))
    return values


def _metrics(state: State, key: str) -> dict[str, float]:
    metrics: dict[str, float] = json_or_empty(state.place / key / "results.json").get("metrics") or {}
    return metrics


def folder(point: Point) -> str:
    """The folder of a combination."""
    return re.sub(r"[^\w.+-]+", "_", "_".join(f"{key.rpartition('.')[2]}{value}" for key, value in point.items()))
