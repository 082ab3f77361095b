"""A cell of a table: a student pre-trained in one way from one seed, then probed and fine-tuned; each stage is a fit.

CELL/pretrain, CELL/probe, CELL/finetune     run folders; a stage whose results.json is there is not run again
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinymim.run import fit
from tinymim.say import say

FIGURES = {
    "10-NN": ("probe", "val/knn_top1"),
    "linear probe": ("probe", "val/top1"),
    "fine-tuned": ("finetune", "val/top1"),
}
"""Columns of a table: the stage each figure comes from, and its metric (a share of the held-out images)."""

SHARED = ("data", "trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.precision")
"""Overrides that every stage of a cell takes, whichever recipe they were given for."""


@dataclass(frozen=True)
class Stage:
    """One fit: the folder it has in its cell, its recipe, and overrides of that recipe."""

    name: str
    recipe: str
    overrides: tuple[str, ...] = ()


@dataclass
class Cell:
    """What a cell measured: figures by title, parameters of the student, seconds of training."""

    figures: dict[str, float]
    parameters: int
    seconds: float


def chain(recipe: str | None, overrides: list[str], later: list[Stage], place: Path) -> list[Stage]:
    """The stages of a cell: pre-training, then the later ones, which start from its last weights.

    Args:
        recipe: pre-trains the student; ``None`` leaves it random.
        overrides: of that recipe.
        later: probe and fine-tuning.
        place: the cell's folder.
    """
    if recipe is None:
        return later
    weights = place / "pretrain" / "checkpoints" / "last.ckpt"
    start = (f"--model.init_args.weights={weights}", "--model.init_args.architecture=null")
    first = Stage("pretrain", recipe, tuple(overrides))
    return [first, *(Stage(stage.name, stage.recipe, (*stage.overrides, *start)) for stage in later)]


def run(stages: list[Stage], seed: int, place: Path) -> Cell:
    """Run what is not yet done of a cell; a stage that was cut off goes on from its last checkpoint.

    Raises:
        TinymimError: a stage cannot run.
    """
    results = {stage.name: _stage(stage, seed, place / stage.name) for stage in stages}
    parameters = results[stages[-1].name]["parameters"]
    return Cell(figures(results), parameters, round(sum(result["seconds"] for result in results.values()), 1))


def figures(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The figures of a table in the ``results.json`` of a probe and a fine-tuning, or of one of them."""
    return {title: results[stage]["metrics"][metric] for title, (stage, metric) in FIGURES.items() if stage in results}


def _stage(stage: Stage, seed: int, place: Path) -> dict[str, Any]:
    if not (place / "results.json").is_file():
        say(f"-- {stage.recipe}, seed {seed}: {place}")
        begun = ["--ckpt_path", "last"] if place.exists() else []
        own = [f"--seed_everything={seed}", f"--run_dir={place}", *begun]
        fit.run("fit", ["--config", stage.recipe, *stage.overrides, *own])
    return json.loads((place / "results.json").read_text())


def percent(values: list[float]) -> str:
    """Mean, and the spread (standard deviation over seeds) where there are several; ``-`` where there are none."""
    if not values:
        return "-"
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean} %"
