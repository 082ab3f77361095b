"""Signs of overfitting in a table of runs: held-out loss that longer training or less data made higher."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from typing import Any

from tinymim.scaling.table import Row, done

Groups = dict[tuple[Any, ...], list[Row]]


@dataclass(frozen=True)
class Sign:
    """What a run's losses say; two losses differ where they do by more than the band (see :func:`band`), 0 where no
    noise was measured.

    Args:
        row: the run.
        rise: of its validation loss above the best of the shorter runs of the same model, objective, data and seed;
            ``None`` where there is none.
        rose: whether that is more than the band: the flag of the published table.
        training_fell: where it rose, whether its training loss is below that best run's: with ``rose`` the classic
            sign; ``None`` where it did not rise or a training loss is unknown.
        excess: of its validation loss above that of the run on the next larger set of images that is alike in all else;
            ``None`` where there is none.
        exceeds: whether that is more than the band. More data helped here: without ``rose``, overfitting or not.
    """

    row: Row
    rise: float | None
    rose: bool
    training_fell: bool | None
    excess: float | None
    exceeds: bool

    @property
    def gap(self) -> float | None:
        """Validation loss less training loss."""
        return None if self.row.training_loss is None else self.row.validation_loss - self.row.training_loss


def signs(rows: Iterable[Row]) -> list[Sign]:
    """The finished runs with their signs, in their order."""
    rows = done(rows)
    by_length, by_images = (sorted(rows, key=attrgetter(name)) for name in ("iterations", "images"))
    lengths = grouped(by_length, lambda row: (row.objective, row.model, row.data, row.seed))
    slices = grouped(by_images, lambda row: (row.objective, row.model, row.iterations, row.seed))
    shorter: dict[int, Row] = {}
    for group in lengths.values():
        for place, row in enumerate(group[1:], 1):
            shorter[id(row)] = min(group[:place], key=lambda one: one.validation_loss)
    larger = {id(row): after for group in slices.values() for row, after in pairwise(group)}
    return [_sign(row, shorter.get(id(row)), larger.get(id(row))) for row in rows]


def _sign(row: Row, shorter: Row | None, larger: Row | None) -> Sign:
    rise = row.validation_loss - shorter.validation_loss if shorter else None
    excess = row.validation_loss - larger.validation_loss if larger else None
    rose = shorter is not None and above(row, shorter)
    fell = None
    if rose and shorter and row.training_loss is not None and shorter.training_loss is not None:
        fell = row.training_loss < shorter.training_loss
    return Sign(row, rise, rose, fell, excess, larger is not None and above(row, larger))


def above(row: Row, other: Row) -> bool:
    """Whether a run's validation loss is higher than another's by more than the band."""
    return row.validation_loss - other.validation_loss > band(row, other)


def band(row: Row, other: Row) -> float:
    """What two validation losses may differ by for the masks alone: the standard deviation of their difference over the
    seeds of the masks, which both runs were measured under; where those losses are not known one by one, the larger
    of the runs' own standard deviations, which is wider."""
    first, second = row.mask_losses or (), other.mask_losses or ()
    if len(first) == len(second) > 1:
        return statistics.stdev(a - b for a, b in zip(first, second, strict=True))
    return max(row.noise or 0.0, other.noise or 0.0)


def grouped(rows: Iterable[Row], key: Callable[[Row], tuple[Any, ...]]) -> Groups:
    """Rows by ``key``, groups and rows in their order."""
    found: Groups = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def records(found: Iterable[Sign]) -> list[dict[str, Any]]:
    """For ``flags.csv``."""
    return [
        {
            "objective": sign.row.objective,
            "model": sign.row.model,
            "data": sign.row.data,
            "iterations": sign.row.iterations,
            "seed": sign.row.seed,
            "validation_loss": sign.row.validation_loss,
            "training_loss": sign.row.training_loss,
            "gap": sign.gap,
            "noise": sign.row.noise,
            "rise_over_shorter": sign.rise,
            "rose_over_shorter": sign.rose,
            "training_loss_fell": sign.training_fell,
            "excess_over_larger_data": sign.excess,
            "exceeds_larger_data": sign.exceeds,
        }
        for sign in found
    ]
