"""Overfitting flags in a table of runs: held-out loss that longer training or less data made higher."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, fields
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from tinymim.scaling.table import RunRow, done

if TYPE_CHECKING:
    from pandas import DataFrame

OPTIONAL = ("training_loss", "noise", "accuracy", "flops", "images_seen", "loss_increase", "excess", "gap")
"""Columns of numbers that some runs lack: NaN there."""

CSV_NAMES = {
    **{name: name for name in ("objective", "model", "data", "iterations", "seed", "validation_loss", "training_loss")},
    **{name: name for name in ("gap", "noise")},
    "loss_increase": "rise_over_shorter",
    "is_overfit": "rose_over_shorter",
    "training_loss_fell": "training_loss_fell",
    "excess": "excess_over_larger_data",
    "exceeds": "exceeds_larger_data",
}
"""Columns of ``flags.csv`` under their names there."""


def flagged(rows: Iterable[RunRow]) -> DataFrame:
    """The finished runs with their flags, a line each, in their order.

    Two losses differ where they do by more than the band (see :func:`band`), 0 where no noise was measured. Columns:
    the ``row`` and its fields; ``loss_increase`` of its validation loss above the best of the shorter runs of the same
    model, objective, data and seed; ``is_overfit``, whether that is more than the band: the flag of the published
    table; ``training_loss_fell``, of an overfit run whether its training loss is below that best run's, the classic
    sign (``None`` for others, and where a training loss is unknown); ``excess`` of its validation loss above that of
    the run on the next larger set of images that is alike in all else; ``exceeds``, whether that is more than the band
    (more data helped here: without ``is_overfit``, overfitting or not); ``gap``, validation loss less training loss.
    """
    import pandas as pd

    rows = done(rows)
    shorter: dict[int, RunRow] = {}
    larger: dict[int, RunRow] = {}
    for group in grouped(rows, "iterations", ("objective", "model", "data", "seed")):
        for place, row in enumerate(group[1:], 1):
            shorter[id(row)] = min(group[:place], key=attrgetter("validation_loss"))
    for group in grouped(rows, "images", ("objective", "model", "iterations", "seed")):
        larger |= {id(row): after for row, after in pairwise(group)}
    lines = [{**asdict(row), "row": row, **_flags(row, shorter.get(id(row)), larger.get(id(row)))} for row in rows]
    flags = ("loss_increase", "is_overfit", "training_loss_fell", "excess", "exceeds", "gap")
    runs = pd.DataFrame(lines, columns=[*(field.name for field in fields(RunRow)), "row", *flags])
    seeds = pd.Series([row.seed for row in rows], dtype=object)  # whole numbers, though some runs have none
    return runs.astype({**dict.fromkeys(OPTIONAL, float), "is_overfit": bool, "exceeds": bool}).assign(seed=seeds)


def _flags(row: RunRow, shorter: RunRow | None, larger: RunRow | None) -> dict[str, Any]:
    overfit, fell = shorter is not None and above(row, shorter), None
    if overfit and shorter and row.training_loss is not None and shorter.training_loss is not None:
        fell = row.training_loss < shorter.training_loss
    return {
        "loss_increase": row.validation_loss - shorter.validation_loss if shorter else None,
        "is_overfit": overfit,
        "training_loss_fell": fell,
        "excess": row.validation_loss - larger.validation_loss if larger else None,
        "exceeds": larger is not None and above(row, larger),
        "gap": None if row.training_loss is None else row.validation_loss - row.training_loss,
    }


def above(row: RunRow, other: RunRow) -> bool:
    """Whether a run's validation loss is higher than another's by more than the band."""
    return row.validation_loss - other.validation_loss > band(row, other)


def band(row: RunRow, other: RunRow) -> float:
    """Noise of the difference of two validation losses, for the masks alone: its standard deviation over the seeds of
    the masks, which both runs were measured under; where those losses are not known one by one, the larger of the
    runs' own standard deviations, which is wider."""
    first, second = row.mask_losses or (), other.mask_losses or ()
    if len(first) == len(second) > 1:
        return statistics.stdev(a - b for a, b in zip(first, second, strict=True))
    return max(row.noise or 0.0, other.noise or 0.0)


def grouped(rows: Iterable[RunRow], order: str, alike: tuple[str, ...]) -> list[list[RunRow]]:
    """Rows that are alike in some fields, each group in the order of another."""
    groups: dict[Any, list[RunRow]] = {}
    for row in sorted(rows, key=attrgetter(order)):
        groups.setdefault(attrgetter(*alike)(row), []).append(row)
    return list(groups.values())
