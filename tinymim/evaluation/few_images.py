"""Shares of few held-out images, and the one line that says how little such a figure tells."""

from __future__ import annotations

import math

FEW = 100
"""Held-out images, of fewer of which a share tells little: each is more than a point, and the 95 % interval of a
binomial share, at worst ±1.96 sqrt(0.25 / n), is wider than ±10 points."""


def few_images(count: int, classes: int | None = None) -> str:
    """The line on a share of ``count`` held-out images; empty where they are :data:`FEW` or more, and as many as there
    are ``classes``, or none at all."""
    if not 0 < count < max(FEW, classes or 0):
        return ""
    interval = 196 * math.sqrt(0.25 / count)
    return f"few held-out images: {count}, each {100 / count:.3g} points of accuracy, known to ±{interval:.2g} (95 %)"
