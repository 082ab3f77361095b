"""The random numbers of a sample's augmentation: each drawn as torchvision draws it, from the sample's own stream."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tinymim.data.decode import Box

BRIGHTNESS, CONTRAST, SATURATION = range(3)


def crop_box(
    rng: np.random.Generator,
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """As ``RandomResizedCrop``: a share of the area, a log-uniform aspect ratio, a place; the centre if none of ten
    fits.

    Args:
        rng: the sample's.
        size: width and height of the image.
        scale: least and greatest share of its area.
        ratio: least and greatest width over height.
    """
    width, height = size
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def colours(rng: np.random.Generator, strength: float) -> NDArray[np.float32]:
    """As ``ColorJitter``: brightness, contrast and saturation in random order, each with a factor around 1.

    Returns:
        ``(3, 2)``: which comes first, second, third, and its factor.
    """
    factors = rng.uniform(max(0.0, 1 - strength), 1 + strength, 3)
    return np.stack([rng.permutation(3), factors], 1).astype(np.float32)


def erased_box(rng: np.random.Generator, size: int, probability: float) -> NDArray[np.int64]:
    """As ``RandomErasing`` with its defaults: 2 to 33 % of a square image's area, height over width from 0.3 to 3.3.

    Returns:
        ``(5,)``: left, top, right, bottom, and the seed of the noise in it; an empty box where nothing is erased.
    """
    if rng.random() < probability:
        for _ in range(10):
            area = size * size * rng.uniform(0.02, 0.33)
            aspect = math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < size and w < size:
                top, left = int(rng.integers(size - h + 1)), int(rng.integers(size - w + 1))
                return np.array([left, top, left + w, top + h, rng.integers(2**31)])
    return np.zeros(5, dtype=np.int64)
