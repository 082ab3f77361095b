"""Power laws L = a·x^-b + c of the held-out loss along compute, parameters and data, with bootstrap intervals.

"On Data Scaling in Masked Image Modeling" publishes no such fit; these are ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tinymim.scaling import power
from tinymim.scaling.overfit import Sign, above
from tinymim.scaling.power import Array, Curves
from tinymim.scaling.table import Row

LEAST = 5
"""Places that a law needs here: three numbers are fitted, and two points are left to tell how well they do."""

RESAMPLES = 1000

CHOICE = (
    "the run of the lowest validation loss at each place, without runs whose loss rose above a shorter run's; along "
    "compute only those that no run of less compute reaches"
)
"""Which runs are points."""


@dataclass(frozen=True)
class Point:
    """A run and its place along an axis."""

    x: float
    row: Row

    @property
    def loss(self) -> float:
        """Its validation loss."""
        return self.row.validation_loss


@dataclass(frozen=True)
class Law:
    """What was fitted along an axis, or why nothing was.

    Args:
        objective: of the runs.
        axis: ``compute``, ``parameters`` or ``data``.
        unit: of its places.
        points: what was fitted, by place; see :data:`CHOICE`.
        curve: one; ``None`` where nothing was fitted.
        resampled: :data:`RESAMPLES` of them, see :func:`tinymim.scaling.power.resampled`.
        remarks: why there is no curve, or what speaks against this one.
    """

    objective: str
    axis: str
    unit: str
    points: list[Point]
    curve: Curves | None
    resampled: Curves | None
    remarks: list[str]

    @property
    def places(self) -> Array:
        """``(n,)``, of the points."""
        return np.array([point.x for point in self.points])

    @property
    def losses(self) -> Array:
        """``(n,)``, of the points."""
        return np.array([point.loss for point in self.points])

    @property
    def rmse(self) -> float | None:
        """Root of the mean squared residual."""
        if self.curve is None:
            return None
        return float(np.sqrt(np.mean((self.curve.at(self.places)[0] - self.losses) ** 2)))

    def interval(self, name: str) -> tuple[float, float, float] | None:
        """``a``, ``b`` or ``c`` with the ends of its 95 % interval: percentiles over the resampled curves."""
        if self.curve is None or self.resampled is None:
            return None
        low, high = np.quantile(getattr(self.resampled, name), [0.025, 0.975])
        return float(getattr(self.curve, name)[0]), float(low), float(high)

    def band(self, x: Array) -> Array:
        """Losses at ``(n,)`` places that 95 % of the resampled curves lie between, ``(2, n)``."""
        assert self.resampled is not None, "there is no fit"
        return np.quantile(self.resampled.at(x), [0.025, 0.975], axis=0)

    def record(self) -> dict[str, Any]:
        """For ``laws.csv``."""
        fitted: dict[str, Any] = {}
        for name in ("a", "b", "c"):
            ends = self.interval(name) or (None, None, None)
            fitted |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
        return {
            "objective": self.objective,
            "axis": self.axis,
            "unit": self.unit,
            "count": len(self.points),
            **fitted,
            "rmse": self.rmse,
            "remarks": "; ".join(self.remarks),
            "points": CHOICE,
            "runs": "; ".join(point.row.name for point in self.points),
            "resampled": f"residuals, {RESAMPLES} times",
        }


def laws(found: Iterable[Sign]) -> list[Law]:
    """Of every objective, along compute, parameters and data."""
    rows: dict[str, list[Row]] = {}
    for sign in found:
        rows.setdefault(sign.row.objective, []).extend([] if sign.rose else [sign.row])
    return [law(objective, *axis) for objective, some in rows.items() for axis in _axes(some)]


def _axes(rows: list[Row]) -> list[tuple[str, str, list[Point]]]:
    """Name, unit and points of each axis."""
    unit, compute = _compute(rows)
    spent = lowest([Point(x, row) for x, row in zip(compute, rows, strict=True)])
    return [
        ("compute", unit, frontier(spent)),
        ("parameters", "weights", lowest([Point(row.parameters, row) for row in rows])),
        ("data", "images", lowest([Point(row.images, row) for row in rows])),
    ]


def _compute(rows: list[Row]) -> tuple[str, list[float]]:
    """The unit of compute and what each run took; where that was not measured, what it is in proportion to."""
    if all(row.flops for row in rows):
        return "FLOPs", [row.flops or 0 for row in rows]
    if all(row.images_seen for row in rows):
        return "weights x images seen", [row.parameters * (row.images_seen or 0) for row in rows]
    return "weights x iterations", [row.parameters * row.iterations for row in rows]


def lowest(points: Iterable[Point]) -> list[Point]:
    """The one of the lowest loss at each place, by place."""
    by_loss = sorted(points, key=lambda point: point.loss, reverse=True)
    return sorted({point.x: point for point in by_loss}.values(), key=lambda point: point.x)


def frontier(points: Iterable[Point]) -> list[Point]:
    """Those, of points by place, whose loss no point before them reaches."""
    kept: list[Point] = []
    for point in points:
        if not kept or point.loss < kept[-1].loss:
            kept.append(point)
    return kept


def law(objective: str, axis: str, unit: str, points: list[Point]) -> Law:
    """Fit a law through points at different places, in their order."""
    if len(points) < LEAST:
        why = f"too few points to fit: {len(points)}, needs {LEAST} at different places"
        return Law(objective, axis, unit, points, None, None, [why])
    if min(points, key=lambda point: point.loss) is points[0]:
        return Law(objective, axis, unit, points, None, None, ["no law: the loss does not fall along this axis"])
    bare = Law(objective, axis, unit, points, None, None, [])
    curve = power.finest(bare.places, bare.losses)
    resampled = power.resampled(curve, bare.places, bare.losses, RESAMPLES)
    fitted = Law(objective, axis, unit, points, curve, resampled, [])
    return Law(objective, axis, unit, points, curve, resampled, _against(fitted))


def _against(law: Law) -> list[str]:
    """What speaks against a fit."""
    found = []
    least, greatest = power.EXPONENTS[[0, -1]]
    _, low, high = law.interval("b") or (0, 0, 0)
    if low <= 1.01 * least or high >= 0.99 * greatest:
        found.append(
            f"these points do not fix the exponent: its interval reaches the end of the search ({least}, {greatest:g})"
        )
    elif high > 2 * low:
        found.append(f"the exponent is known to a factor of {high / low:.1f} alone")
    if (law.interval("c") or (0, 0, 0))[1] < 0.01 * law.losses.min():
        found.append("the floor cannot be told from 0")
    rises = [after.row for before, after in pairwise(law.points) if above(after.row, before.row)]
    if rises:
        found.append(f"the loss rises at {', '.join(row.name for row in rises)}, which no such law follows")
    return found
