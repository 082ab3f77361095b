"""Power laws L = a·x^-b + c of the held-out loss along compute, parameters and data, with bootstrap intervals.

"On Data Scaling in Masked Image Modeling" publishes no such fit; these are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from pandas import DataFrame, Series

from tinymim.scaling import power_law
from tinymim.scaling.overfitting import above
from tinymim.scaling.power_law import Array, Curves

LEAST = 5
"""Places that a law needs here: three numbers are fitted, and two points are left to tell how well they do."""

RESAMPLES = 1000
ENDS = [0.025, 0.975]
"""Quantiles at the ends of an interval of 95 %."""

CHOICE = (
    "the run of the lowest validation loss at each place, without runs whose loss rose above a shorter run's; along "
    "compute only those that no run of less compute reaches"
)
"""Which runs are points."""

TOO_FEW = "too few points to fit: {count}, needs {least} at different places"
NO_FALL = "no law: the loss does not fall along this axis"
LOOSE_EXPONENT = (
    "these points do not fix the exponent: its interval reaches the end of the search ({least}, {greatest:g})"
)
WIDE_EXPONENT = "the exponent is known to a factor of {factor:.1f} alone"
NO_FLOOR = "the floor cannot be told from 0"
RISES = "the loss rises at {runs}, which no such law follows"


@dataclass
class Law:
    """A power law along an axis, or why none was fitted.

    Args:
        objective: of the runs.
        axis: ``compute``, ``parameters`` or ``data``.
        unit: of its places.
        points: the runs that were fitted, by their place, ``x``; see :data:`CHOICE`.
        curve: the fit; ``None`` where nothing was fitted.
        resampled: :data:`RESAMPLES` fits, see :func:`tinymim.scaling.power_law.resample`.
        remarks: why there is no curve, or what speaks against this one.
    """

    objective: str
    axis: str
    unit: str
    points: DataFrame
    curve: Curves | None = None
    resampled: Curves | None = None
    remarks: list[str] = field(default_factory=list)

    @property
    def places(self) -> Array:
        """``(n,)`` of the points."""
        return self.points["x"].to_numpy(dtype=float)

    @property
    def losses(self) -> Array:
        """``(n,)`` of the points."""
        return self.points["validation_loss"].to_numpy(dtype=float)

    @property
    def rmse(self) -> float | None:
        """Root of the mean squared residual."""
        if self.curve is None:
            return None
        return float(np.sqrt(np.mean((self.curve.at(self.places)[0] - self.losses) ** 2)))

    def interval(self, name: str) -> tuple[float, float, float]:
        """``a``, ``b`` or ``c`` with the ends of its 95 % interval: percentiles over the resampled curves."""
        low, high = np.quantile(getattr(self.resampled, name), ENDS)
        return float(getattr(self.curve, name)[0]), float(low), float(high)

    def band(self, x: Array) -> Array:
        """Losses at ``(n,)`` places that 95 % of the resampled curves lie between, ``(2, n)``."""
        assert self.resampled is not None, "there is no fit"
        return np.quantile(self.resampled.at(x), ENDS, axis=0)

    def record(self) -> dict[str, Any]:
        """A line of ``laws.csv``."""
        fitted: dict[str, Any] = dict.fromkeys(f"{name}{end}" for name in "abc" for end in ("", "_low", "_high"))
        if self.curve is not None:
            fitted = dict(zip(fitted, [value for name in "abc" for value in self.interval(name)], strict=True))
        return {
            "objective": self.objective,
            "axis": self.axis,
            "unit": self.unit,
            "count": len(self.points),
            **fitted,
            "rmse": self.rmse,
            "remarks": "; ".join(self.remarks),
            "points": CHOICE,
            "runs": "; ".join(row.name for row in self.points["row"]),
            "resampled": f"residuals, {RESAMPLES} times",
        }


def laws(runs: DataFrame) -> list[Law]:
    """The laws of every objective, along compute, parameters and data; ``runs`` as
    :func:`tinymim.scaling.overfitting.flagged` gives them."""
    fitted = []
    for objective, group in runs.groupby("objective", sort=False):
        candidates = group[~group["is_overfit"]]
        unit, compute = _compute(candidates)
        axes = {
            "compute": (unit, frontier(lowest(candidates, compute))),
            "parameters": ("weights", lowest(candidates, candidates["parameters"])),
            "data": ("images", lowest(candidates, candidates["images"])),
        }
        fitted += [fit(Law(str(objective), axis, unit, points)) for axis, (unit, points) in axes.items()]
    return fitted


def _compute(runs: DataFrame) -> tuple[str, Series]:
    """The unit of compute and what each run took; where that was not measured, what it is in proportion to."""
    if (runs["flops"] > 0).all():
        return "FLOPs", runs["flops"]
    weights = runs["parameters"].astype(float)  # whose products may be more than 64 bits hold
    if (runs["images_seen"] > 0).all():
        return "weights x images seen", weights * runs["images_seen"]
    return "weights x iterations", weights * runs["iterations"]


def lowest(runs: DataFrame, places: Series) -> DataFrame:
    """The run of the lowest loss at each place, by place, which becomes the column ``x``."""
    ordered = runs.assign(x=places).sort_values(["x", "validation_loss"], kind="stable")
    return ordered.drop_duplicates("x")


def frontier(points: DataFrame) -> DataFrame:
    """Points, which come by place, whose loss no point before them reaches."""
    before = points["validation_loss"].cummin().shift(fill_value=np.inf)
    return points[points["validation_loss"] < before]


def fit(law: Law) -> Law:
    """Fit a law's curve through its points, or remark why there is none."""
    places, losses = law.places, law.losses
    if len(places) < LEAST:
        law.remarks.append(TOO_FEW.format(count=len(places), least=LEAST))
    elif losses.argmin() == 0:
        law.remarks.append(NO_FALL)
    else:
        law.curve = power_law.fit_finely(places, losses)
        law.resampled = power_law.resample(law.curve, places, losses, RESAMPLES)
        law.remarks += _objections(law)
    return law


def _objections(law: Law) -> Iterator[str]:
    """Remarks on what speaks against a fit."""
    least, greatest = power_law.EXPONENTS[[0, -1]]
    _, low, high = law.interval("b")
    if low <= 1.01 * least or high >= 0.99 * greatest:
        yield LOOSE_EXPONENT.format(least=least, greatest=greatest)
    elif high > 2 * low:
        yield WIDE_EXPONENT.format(factor=high / low)
    if law.interval("c")[1] < 0.01 * law.losses.min():
        yield NO_FLOOR
    if rises := [after.name for before, after in pairwise(law.points["row"]) if above(after, before)]:
        yield RISES.format(runs=", ".join(rises))
