"""Few-shot: a part of the training images, evenly from all classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinymim.seeds import stream


def few(labels: NDArray[np.int64] | None, length: int, fraction: float, seed: int) -> NDArray[np.int64]:
    """Sorted positions of ``fraction`` of the images: of each class its share, and one at least.

    A larger fraction with the same seed has all images of a smaller one.

    Args:
        labels: ``(length,)``; ``None`` takes any.
        length: images there are.
        fraction: more than 0 and up to 1.
        seed: of the choice.
    """
    if fraction == 1:
        return np.arange(length)
    order = stream(seed).permutation(length)
    groups = [order] if labels is None else [order[labels[order] == one] for one in np.unique(labels)]
    return np.sort(np.concatenate([group[: max(1, round(len(group) * fraction))] for group in groups]))


def fraction_problems(fraction: float) -> list[str]:
    """What is wrong with it."""
    if 0 < fraction <= 1:
        return []
    return [f"data.fraction: {fraction} is not a share of the training images, more than 0 and up to 1"]
