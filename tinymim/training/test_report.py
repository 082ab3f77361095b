"""Report of `tinymim test` and `validate`: tables on the screen, and of a test two files in the run folder.

test.json    the checkpoint, its figures, and on test sets with names those of each set and what they come to
test.md      the tables
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
from rich.table import Table

from tinymim import files
from tinymim.data.named_sets import Figures, NamedSets, Report
from tinymim.errors import TinymimError
from tinymim.evaluation.few_images import few_images
from tinymim.safety import escaping
from tinymim.safety.console import PlainConsole
from tinymim.training.run_folder import TESTED

SHARES = ("top1", "top5", "knn_top1")
"""Figures that are shares of the held-out images."""


def folder(checkpoint: Path, run_dir: Path, named: bool) -> Path:
    """The folder that the figures of a test are written into: of the run that the checkpoint is of, unless the command
    has ``named`` one.

    Raises:
        TinymimError: it takes no file, as is told before the test.
    """
    place = run_dir if named or checkpoint.parent.name != "checkpoints" else checkpoint.parent.parent
    files.check_writable("run_dir", place, inside=True)
    return place


def finish(
    trainer: pl.Trainer, module: Any, data: Any, checkpoint: str | None, folder: Path | None, shown: bool
) -> None:
    """Print the figures of an evaluation; of a test, write them too.

    Args:
        trainer: after the evaluation.
        module: the evaluated module.
        data: the data it was evaluated on.
        checkpoint: the evaluated checkpoint, ``None`` for the weights that the recipe names.
        folder: of the run; ``None`` writes nothing.
        shown: print them.
    """
    if not trainer.is_global_zero:
        return
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    content: dict[str, Any] = {"checkpoint": checkpoint, "data": type(data).__name__, "metrics": metrics}
    content["ema"] = ema = getattr(module, "taken_ema", None)
    if isinstance(data, NamedSets):
        figures, baseline = module.test_sets.figures if hasattr(module, "test_sets") else ({}, None)
        if not figures:
            raise TinymimError("no image was tested: the sets are limited to none, or no file of them can be read")
        report = data.report(figures, baseline)
        report.notes += _limited(data, figures)
        content |= {"sets": {name: asdict(each) for name, each in figures.items()}, "report": report.numbers}
        content |= {"definitions": report.notes}
    else:
        report = Report([("figures", ["figure", "value"], [[name, f"{value:.6f}"] for name, value in metrics.items()])])
        report.notes += _few(metrics, module, data)
    if folder:
        files.write_json(folder / TESTED[0], content)
        files.write_text(folder / TESTED[1], markdown(report, checkpoint))
    if not shown:
        return
    console = PlainConsole(soft_wrap=True)
    if ema is not None:
        console.print(f"evaluated: the running average of the weights (ema {ema:g})")
    for title, heads, rows in report.tables:
        _print(console, title, heads, rows)
    for note in report.notes:
        console.print(f"- {note}")
    if folder:
        console.print(f"written to {folder / TESTED[0]}")


def _few(metrics: dict[str, float], module: Any, data: Any) -> list[str]:
    """The line on shares of few images, where there are shares."""
    held_out = getattr(data, "held_out", None)
    count = getattr(getattr(module, "knn", None), "queries", 0)
    count = count or (len(held_out) if isinstance(held_out, Sized) else 0)
    shares = any(name.rpartition("/")[2] in SHARES for name in metrics)
    line = few_images(count, getattr(data, "num_classes", None)) if shares else ""
    return [line] if line else []


def _limited(data: NamedSets, figures: dict[str, Figures]) -> list[str]:
    """A line where not all images were tested."""
    images = sum(len(cast(Sized, test_set.images)) for test_set in data.sets)
    seen = sum(each.images + each.unreadable for each in figures.values())
    return [f"limited: {seen:,} of {images:,} images were tested"] if seen < images else []


def markdown(report: Report, checkpoint: str | None) -> str:
    """The tables and definitions of a report; names of sets, classes and files may be of any signs."""
    shown = escaping.markdown
    parts = [shown(checkpoint) if checkpoint else "the weights of the recipe"]
    for title, heads, rows in report.tables:
        lines = [
            f"**{shown(title)}**",
            "",
            f"| {' | '.join(map(shown, heads))} |",
            "|---|" + "---:|" * (len(heads) - 1),
        ]
        parts.append("\n".join([*lines, *(f"| {' | '.join(map(shown, row))} |" for row in rows)]))
    parts.append("\n".join(f"- {shown(note)}" for note in report.notes))
    return "\n\n".join(parts) + "\n"


def _print(console: PlainConsole, title: str, heads: list[str], rows: list[list[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
