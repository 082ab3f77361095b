"""Overfitting flags in a table of runs: held-out loss that longer training or less data made higher."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from tinymim.scaling.table import RunRow, done

if TYPE_CHECKING:
    from pandas import DataFrame

NUMBERS = ("training_loss", "noise", "accuracy", "flops", "images_seen", "seed", "loss_increase", "excess", "gap")
"""Columns of :func:`frame` that may lack values."""

CSV_NAMES = {
    "loss_increase": "rise_over_shorter",
    "is_overfit": "rose_over_shorter",
    "training_loss_fell": "training_loss_fell",
    "excess": "excess_over_larger_data",
    "exceeds": "exceeds_larger_data",
}
"""Flags in ``flags.csv``."""


@dataclass(frozen=True)
class OverfitFlags:
    """A run beside shorter runs and beside runs on more data; two losses differ where they do by more than the band
    (see :func:`band`), 0 where no noise was measured.

    Args:
        row: the run.
        loss_increase: of its validation loss above the best of the shorter runs of the same model, objective, data and
            seed; ``None`` where there is none.
        is_overfit: whether that is more than the band: the flag of the published table.
        training_loss_fell: of an overfit run, whether its training loss is below that best run's, the classic sign;
            ``None`` for others, and where a training loss is unknown.
        excess: of its validation loss above that of the run on the next larger set of images that is alike in all else;
            ``None`` where there is none.
        exceeds: whether that is more than the band. More data helped here: without ``is_overfit``, overfitting or not.
    """

    row: RunRow
    loss_increase: float | None
    is_overfit: bool
    training_loss_fell: bool | None
    excess: float | None
    exceeds: bool

    @property
    def gap(self) -> float | None:
        """Validation loss less training loss."""
        return None if self.row.training_loss is None else self.row.validation_loss - self.row.training_loss


def signs(rows: Iterable[RunRow]) -> list[OverfitFlags]:
    """The finished runs with their flags, in their order."""
    rows = done(rows)
    by_length, by_images = (sorted(rows, key=attrgetter(name)) for name in ("iterations", "images"))
    lengths = grouped(by_length, lambda row: (row.objective, row.model, row.data, row.seed))
    slices = grouped(by_images, lambda row: (row.objective, row.model, row.iterations, row.seed))
    best_shorter: dict[int, RunRow] = {}
    for group in lengths.values():
        for place, row in enumerate(group[1:], 1):
            best_shorter[id(row)] = min(group[:place], key=lambda shorter: shorter.validation_loss)
    larger = {id(row): after for group in slices.values() for row, after in pairwise(group)}
    return [_flags(row, best_shorter.get(id(row)), larger.get(id(row))) for row in rows]


def _flags(row: RunRow, shorter: RunRow | None, larger: RunRow | None) -> OverfitFlags:
    increase = row.validation_loss - shorter.validation_loss if shorter else None
    excess = row.validation_loss - larger.validation_loss if larger else None
    overfit = shorter is not None and above(row, shorter)
    fell = None
    if overfit and shorter and row.training_loss is not None and shorter.training_loss is not None:
        fell = row.training_loss < shorter.training_loss
    return OverfitFlags(row, increase, overfit, fell, excess, larger is not None and above(row, larger))


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


def grouped(rows: Iterable[RunRow], key: Callable[[RunRow], tuple[Any, ...]]) -> dict[tuple[Any, ...], list[RunRow]]:
    """Rows by ``key``, groups and rows in their order."""
    groups: dict[tuple[Any, ...], list[RunRow]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def frame(flags: Iterable[OverfitFlags]) -> DataFrame:
    """One line a run: the fields of its :class:`RunRow`, its flags, its ``gap``, and the ``row`` itself."""
    import pandas as pd

    lines = [{**asdict(each.row), **vars(each), "gap": each.gap} for each in flags]
    runs = pd.DataFrame(lines, columns=[*RunRow.__dataclass_fields__, *OverfitFlags.__dataclass_fields__, "gap"])
    return runs.astype(dict.fromkeys(NUMBERS, float)).astype({"is_overfit": bool, "exceeds": bool})


def records(flags: Iterable[OverfitFlags]) -> list[dict[str, Any]]:
    """Lines of ``flags.csv``."""
    names = ("objective", "model", "data", "iterations", "seed", "validation_loss", "training_loss")
    return [
        {
            **{name: getattr(each.row, name) for name in names},
            "gap": each.gap,
            "noise": each.row.noise,
            **{head: getattr(each, name) for name, head in CSV_NAMES.items()},
        }
        for each in flags
    ]
