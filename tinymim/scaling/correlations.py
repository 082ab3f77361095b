"""Correlations of the losses of pre-training with the accuracy after fine-tuning, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from pandas import DataFrame

LEAST = 3
"""Runs that a correlation needs; of two it is always 1 or -1."""

RESAMPLES = 2000


def pearson(first: ArrayLike, second: ArrayLike) -> Any:
    """Pearson's correlation along the last axis, ``(..., n)`` each; 0 where all of one side are equal.

    SciPy's is not defined there, and its spearmanr takes one pair of lists at a time: a bootstrap draws thousands, some
    of them constant.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    constant = (np.ptp(a, axis=-1) == 0) | (np.ptp(b, axis=-1) == 0)
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return np.where(constant, 0.0, (a * b).sum(-1) / np.where(constant, 1.0, scale))[()]


def spearman(first: ArrayLike, second: ArrayLike) -> Any:
    """Spearman's rank correlation along the last axis, ties sharing their mean rank; 0 where all of one side are
    equal."""
    return pearson(_ranks(np.asarray(first)), _ranks(np.asarray(second)))


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks along the last axis; of a single list without SciPy, which a study's tables do without."""
    if values.ndim == 1:
        _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (counts.cumsum() - (counts - 1) / 2)[places]
    from scipy.stats import rankdata

    ranks: NDArray[np.float64] = rankdata(values, axis=-1)
    return ranks


def spearman_text(first: ArrayLike, second: ArrayLike) -> str:
    """Spearman's correlation of two lists for a sentence: two decimals, or why there is none."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return "none, as all of one side are equal"
    return f"{spearman(first, second):+.2f}"


FIGURES = tuple(f"{name}{end}" for name in ("pearson", "spearman") for end in ("", "_low", "_high"))
"""Columns of a correlation and the ends of its 95 % interval: percentiles over resampled runs."""


def parts(runs: DataFrame) -> dict[str, DataFrame]:
    """The runs of one objective, and which of them are looked at apart: each model by size, the longest, overfit runs
    and the others, and models and data of which no run is overfit; ``runs`` as
    :func:`tinymim.scaling.overfitting.flagged` gives them."""
    models = runs.sort_values("parameters", kind="stable")["model"].unique()
    longest = int(runs["iterations"].max()) if len(runs) else 0
    ever = runs.groupby(["model", "data", "seed"], dropna=False)["is_overfit"].transform("any")
    return {
        "all": runs,
        **{f"model {model}": runs[runs["model"] == model] for model in models},
        f"{longest:,} iterations": runs[runs["iterations"] == longest],
        "not overfit": runs[~runs["is_overfit"]],
        "overfit": runs[runs["is_overfit"]],
        "models and data that never overfit": runs[~ever],
    }


def correlations(runs: DataFrame) -> list[dict[str, Any]]:
    """Correlations of every objective, part and loss; of training losses where any are known."""
    table = []
    for objective, group in runs.groupby("objective", sort=False):
        losses = ["validation", *(["training"] if group["training_loss"].notna().any() else [])]
        table += [
            {"objective": objective, **correlate(name, loss, part)}
            for name, part in parts(group).items()
            for loss in losses
        ]
    return table


def correlate(name: str, loss: str, runs: DataFrame) -> dict[str, Any]:
    """The correlation of a loss, ``validation`` or ``training``, with accuracy over some runs of one objective.

    Keys: ``runs``, their name; ``loss``; the ``count`` of runs that have both; :data:`FIGURES`, ``None`` below
    :data:`LEAST` runs and where all of one side are equal; the ``slope`` of least squares: points of accuracy (per
    cent) for 0.01 more loss.
    """
    known = runs[[f"{loss}_loss", "accuracy"]].dropna()
    x, y = known.to_numpy(dtype=float).T
    line = {"runs": name, "loss": loss, "count": len(known), **dict.fromkeys((*FIGURES, "slope"))}
    if len(known) < LEAST or not np.ptp(x) or not np.ptp(y):
        return line
    line |= zip(FIGURES, (*_measured(pearson, x, y), *_measured(spearman, x, y)), strict=True)
    return {**line, "slope": float(np.polyfit(x, y, 1)[0])}  # a share over 1 is per cent over 0.01


def _measured(
    measure: Callable[..., Any], x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[float, float, float]:
    """A correlation and the ends of its interval."""
    from scipy.stats import bootstrap

    options: Any = {"paired": True, "n_resamples": RESAMPLES, "method": "percentile", "random_state": 0}
    low, high = bootstrap((x, y), lambda x, y, axis: measure(x, y), **options).confidence_interval
    return float(measure(x, y)), float(low), float(high)
