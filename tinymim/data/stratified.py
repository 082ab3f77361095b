"""Stratified split into two, by the very draws with which scikit-learn's ``train_test_split`` splits.

The digits were split by it when the first runs were made, and runs, teachers and figures of then go on with the same
images held out. New data sets are divided by :func:`tinymim.data.image_data.divided`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


def stratified(labels: Numbers, fraction: float, seed: int) -> tuple[Numbers, Numbers]:
    """Positions to train on, and to hold out, in random order, each class in proportion.

    Args:
        labels: ``(M,)``; all positions are on either side.
        fraction: to hold out; either side gets at least one of each class.
        seed: of the choice.
    """
    random = np.random.RandomState(seed)
    classes, counts = np.unique(labels, return_counts=True)
    held_out = math.ceil(fraction * len(labels))
    kept = _shares(counts, len(labels) - held_out, random)
    _shares(counts - kept, held_out, random)  # all that is left, and yet it may draw: floating point breaks ties here
    sides: tuple[list[Numbers], list[Numbers]] = ([], [])
    for label, count in zip(classes, kept, strict=True):
        positions = np.flatnonzero(labels == label)
        positions = positions[random.permutation(len(positions))]
        sides[0].append(positions[:count])
        sides[1].append(positions[count:])
    train, other = (random.permutation(np.concatenate(side)) for side in sides)
    return train, other


def _shares(counts: Numbers, total: int, random: np.random.RandomState) -> Numbers:
    """Parts of ``total`` in proportion to ``counts``: rounded down, and one more for the largest remainders, of equal
    ones for random classes."""
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    remainders = exact - shares
    left = int(total - shares.sum())
    for remainder in np.unique(remainders)[::-1]:
        if left <= 0:
            break
        alike = np.flatnonzero(remainders == remainder)
        chosen = random.choice(alike, size=min(len(alike), left), replace=False)
        shares[chosen] += 1
        left -= len(chosen)
    return shares.astype(np.int64)
