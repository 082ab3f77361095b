"""Parts of the training images, evenly from all classes: few-shot, and those that settings are chosen on."""

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


def divided(
    length: int, labels: NDArray[np.int64] | None, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted positions to train on and to hold out, at least one of each, every class in proportion.

    Args:
        length: images there are, two at least.
        labels: ``(length,)``; ``None`` takes any.
        fraction: to hold out, between 0 and 1.
        seed: of the choice.
    """
    order = stream(seed).permutation(length)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    held = np.sort(order[spread(length, min(max(1, round(length * fraction)), length - 1))])
    return np.setdiff1d(order, held), held


def spread(length: int, count: int) -> NDArray[np.int64]:
    """``count`` of ``length`` positions, evenly."""
    return (np.arange(count) * length + length // 2) // count


def choice_problems(share: float) -> list[str]:
    """What is wrong with a ``choice_split``."""
    if 0 <= share < 1:
        return []
    return [f"data.choice_split: {share} is not a share of the training images, from 0 (none) to less than 1"]


def fraction_problems(fraction: float) -> list[str]:
    """What is wrong with it."""
    if 0 < fraction <= 1:
        return []
    return [f"data.fraction: {fraction} is not a share of the training images, more than 0 and up to 1"]
