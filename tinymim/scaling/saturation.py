"""How far more data still lowers the held-out loss of a model, and from which amount on it does not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from tinymim.scaling.overfit import above, band, grouped
from tinymim.scaling.table import Row, done


@dataclass(frozen=True)
class Saturation:
    """Of one model, length and seed, over its sets of images.

    Args:
        rows: by images, two at least.
        flat_from: the smallest set whose loss no larger one improves by more than the band (see :mod:`.overfit`); the
            largest where the loss falls to the end.
    """

    rows: list[Row]
    flat_from: Row

    @property
    def fall(self) -> float:
        """Of the loss from the second largest set to the largest; below 0 where it rose."""
        return self.rows[-2].validation_loss - self.rows[-1].validation_loss

    @property
    def noise(self) -> float:
        """What those two may differ by for the masks alone."""
        return band(self.rows[-2], self.rows[-1])

    @property
    def falls(self) -> bool:
        """Whether the largest set lowers the loss by more than the band."""
        return above(self.rows[-2], self.rows[-1])

    def record(self) -> dict[str, Any]:
        """For ``saturation.csv``."""
        before, last = self.rows[-2:]
        return {
            "objective": last.objective,
            "model": last.model,
            "iterations": last.iterations,
            "seed": last.seed,
            "second_largest": before.data,
            "largest": last.data,
            "fall": self.fall,
            "fall_per_doubling": self.fall / math.log2(last.images / before.images),
            "noise": self.noise,
            "falls": self.falls,
            "flat_from": "" if self.flat_from is last else self.flat_from.data,
            "flat_from_images": "" if self.flat_from is last else self.flat_from.images,
        }


def saturation(rows: Iterable[Row]) -> list[Saturation]:
    """Of every model and length that ran on several sets of images; by objective, size and length."""
    ordered = sorted(done(rows), key=attrgetter("objective", "parameters", "iterations", "images"))
    found = []
    for group in grouped(ordered, lambda row: (row.objective, row.model, row.iterations, row.seed)).values():
        by_images = list({row.images: row for row in group}.values())
        if len(by_images) > 1:
            flat = next(
                row for place, row in enumerate(by_images) if not any(above(row, more) for more in by_images[place:])
            )
            found.append(Saturation(by_images, flat))
    return found
