"""How the losses of pre-training go together with the accuracy after fine-tuning, over all runs and over parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinymim.scaling.correlations import pearson, spearman
from tinymim.scaling.overfit import Sign

LEAST = 3
"""Runs that a correlation needs; of two it is always 1 or -1."""

RESAMPLES = 2000


@dataclass(frozen=True)
class Correlation:
    """Of a loss with accuracy over some runs of one objective.

    Args:
        objective: of the runs.
        runs: which.
        loss: ``validation`` or ``training``.
        count: runs that have both.
        pearson: ``None`` below :data:`LEAST` runs, and where all of one side are equal.
        pearson_low: lower end of the 95 % interval: percentiles over resampled runs.
        pearson_high: its upper end.
        spearman: as for Pearson's.
        spearman_low: as for Pearson's.
        spearman_high: as for Pearson's.
        slope: least squares: points of accuracy (per cent) for 0.01 more loss.
    """

    objective: str
    runs: str
    loss: str
    count: int
    pearson: float | None = None
    pearson_low: float | None = None
    pearson_high: float | None = None
    spearman: float | None = None
    spearman_low: float | None = None
    spearman_high: float | None = None
    slope: float | None = None


def parts(found: list[Sign]) -> dict[str, list[Sign]]:
    """The runs of one objective, and which of them are looked at apart: each model by size, the longest, those whose
    loss rose above a shorter run's and those whose did not, and models and data of which no run did."""
    models = {sign.row.model: sign.row.parameters for sign in found}
    longest = max((sign.row.iterations for sign in found), default=0)
    pairs = {_pair(sign) for sign in found if sign.rose}
    by_size = sorted(models, key=lambda model: models[model])
    return {
        "all": found,
        **{f"model {model}": [sign for sign in found if sign.row.model == model] for model in by_size},
        f"{longest:,} iterations": [sign for sign in found if sign.row.iterations == longest],
        "not overfit": [sign for sign in found if not sign.rose],
        "overfit": [sign for sign in found if sign.rose],
        "models and data that never overfit": [sign for sign in found if _pair(sign) not in pairs],
    }


def _pair(sign: Sign) -> tuple[Any, ...]:
    return sign.row.model, sign.row.data, sign.row.seed


def correlations(found: Iterable[Sign]) -> list[Correlation]:
    """Of every objective, part and loss; training losses where any are known."""
    found = list(found)
    table = []
    for objective in dict.fromkeys(sign.row.objective for sign in found):
        for name, some in parts([sign for sign in found if sign.row.objective == objective]).items():
            table.append(correlate(objective, name, "validation", some))
            if any(sign.row.training_loss is not None for sign in found if sign.row.objective == objective):
                table.append(correlate(objective, name, "training", some))
    return table


def correlate(objective: str, name: str, loss: str, some: Iterable[Sign]) -> Correlation:
    """Of one loss with accuracy over some runs."""
    values = [(getattr(sign.row, f"{loss}_loss"), sign.row.accuracy) for sign in some]
    known = [(x, y) for x, y in values if x is not None and y is not None]
    x, y = np.array(known).reshape(-1, 2).T
    if len(known) < LEAST or not np.ptp(x) or not np.ptp(y):
        return Correlation(objective, name, loss, len(known))
    slope = float(np.polyfit(x, y, 1)[0])  # a share over 1 is per cent over 0.01
    return Correlation(
        objective, name, loss, len(known), *_measured(pearson, x, y), *_measured(spearman, x, y), slope=slope
    )


def _measured(
    measure: Callable[..., Any], x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[float, float, float]:
    """A correlation and the ends of its interval."""
    from scipy.stats import bootstrap

    def along(x: Any, y: Any, axis: int) -> Any:
        return measure(x, y)

    drawn = bootstrap((x, y), along, paired=True, n_resamples=RESAMPLES, method="percentile", random_state=0)
    low, high = drawn.confidence_interval
    return float(measure(x, y)), float(low), float(high)
