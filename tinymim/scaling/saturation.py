"""Saturation with data: how far more data still lowers a model's held-out loss, and from which amount it does not."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pandas import DataFrame

from tinymim.scaling.overfitting import above, band, grouped
from tinymim.scaling.table import RunRow, done


def saturation(rows: Iterable[RunRow]) -> DataFrame:
    """A line for every model, length and seed that ran on several sets of images; by objective, size and length.

    Columns, those of ``saturation.csv``: ``objective, model, iterations, seed``; ``second_largest`` and ``largest`` set
    of images; the ``fall`` of the loss between them (below 0 where it rose), and ``fall_per_doubling`` of the images;
    the ``noise`` of their difference for the masks alone; whether the loss ``falls`` by more than that; ``flat_from``,
    the smallest set whose loss no larger one improves by more than the noise (empty where the loss falls to the end),
    and its number of images, ``flat_from_images``.
    """
    groups = grouped(done(rows), "images", ("objective", "model", "iterations", "seed"))
    lines = []
    for group in sorted(groups, key=lambda group: (group[0].objective, group[0].parameters, group[0].iterations)):
        by_images = list({row.images: row for row in group}.values())
        if len(by_images) < 2:
            continue
        *_, before, last = by_images
        fall = before.validation_loss - last.validation_loss
        flat = next(
            row for place, row in enumerate(by_images) if not any(above(row, more) for more in by_images[place:])
        )
        lines.append(
            {
                **{name: getattr(last, name) for name in ("objective", "model", "iterations", "seed")},
                "second_largest": before.data,
                "largest": last.data,
                "fall": fall,
                "fall_per_doubling": fall / (math.log2(last.images / before.images) or math.nan),
                "noise": band(before, last),
                "falls": above(before, last),
                "flat_from": "" if flat is last else flat.data,
                "flat_from_images": "" if flat is last else flat.images,
            }
        )
    return DataFrame(lines, dtype=object)
