"""How two lists of numbers go together: one formula each, for one pair of lists or for many at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def pearson(first: ArrayLike, second: ArrayLike) -> Any:
    """Pearson's correlation along the last axis, ``(..., n)`` each; 0 where all of one side are equal."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    constant = (np.ptp(a, axis=-1) == 0) | (np.ptp(b, axis=-1) == 0)
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return np.where(constant, 0.0, (a * b).sum(-1) / np.where(constant, 1.0, scale))[()]


def spearman(first: ArrayLike, second: ArrayLike) -> Any:
    """Spearman's rank correlation along the last axis, ties sharing their mean rank; 0 where all of one side are
    equal."""
    from scipy.stats import rankdata

    return pearson(rankdata(first, axis=-1), rankdata(second, axis=-1))
