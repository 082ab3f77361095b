"""Crops of many small images at once: the pixels that one at a time would give, in a fraction of the time."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_WEIGHTS = 18_000_000
"""Weights of all crops of a side that may be kept: 72 MB; 64 pixels made 64, or 32 made 512."""

MOST_BITS = 15  # of a weight, so that products with bytes and their sums are whole numbers that float32 holds exactly


def resized_crops(images: NDArray[np.uint8], boxes: NDArray[np.int64], size: int) -> Tensor:
    """Crop and resize, antialiased and bicubic, as :func:`tinymim.data.decode.resized_crop` does one image.

    Two products with matrices of weights, across and then down, each rounded to bytes. Weights are multiples of 2^-14
    or 2^-15, as torchvision's are, so that no order of summing, and so no number of threads or images, changes a bit.

    Args:
        images: ``(B, H, W)``, grey, or ``(B, H, W, 3)``.
        boxes: ``(B, 4)``: left, top, right, bottom.
        size: side of the views.

    Returns:
        ``(B, C, size, size)``, uint8; C is 1 or 3.
    """
    count, height, width = images.shape[:3]
    left, top, right, bottom = torch.from_numpy(boxes).unbind(1)
    across, down = crop_weights(width, size)[left, right], crop_weights(height, size)[top, bottom]
    # Channels between rows and columns: then both products are one of two matrices an image, and nothing is copied.
    rows = torch.from_numpy(images).view(count, height, width, -1).transpose(2, 3)
    wide = rows.to(torch.float32, memory_format=torch.contiguous_format).view(count, -1, width) @ across.mT
    wide = wide.add_(0.5).floor_().clamp_(0, 255)  # half up, as fixed point does
    pixels = (down @ wide.view(count, height, -1)).add_(0.5).clamp_(0, 255).to(torch.uint8)  # which cuts
    return pixels.view(count, size, -1, size).transpose(1, 2).contiguous()


def few_weights(length: int, size: int) -> bool:
    """Whether a side of ``length`` pixels made ``size`` has weights few enough to keep."""
    return (length + 1) ** 2 * size * length <= MOST_WEIGHTS


@functools.cache
def crop_weights(length: int, size: int) -> Tensor:
    """``(length + 1, length + 1, size, length)``: the weights that make ``size`` pixels of those from a start to an
    end; zeros where the end is not after the start.

    Pillow's bicubic, a = -0.5, whose support grows where pixels become fewer.
    """
    weights = torch.zeros(length + 1, length + 1, size, length)
    for start in range(length):
        for end in range(start + 1, length + 1):
            weights[start, end, :, start:end] = _resize_weights(end - start, size)
    return weights


@functools.cache
def _resize_weights(length: int, size: int) -> Tensor:
    """``(size, length)``: the weights that make ``size`` pixels of ``length``."""
    scale = length / size
    support, stretch = 2 * max(scale, 1.0), max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(int), 0)[:, None]
    last = np.minimum((centres + support + 0.5).astype(int), length)[:, None]
    pixels = np.arange(length)[None]
    x = np.abs((pixels + 0.5 - centres[:, None]) / stretch)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    values = np.where(x < 1, near, np.where(x < 2, far, 0.0)) * ((pixels >= first) & (pixels < last))
    values /= values.sum(1, keepdims=True)
    bits = min(MOST_BITS, math.ceil(math.log2((2**15 - 0.5) / values.max())) - 1)  # as many as fit into 16
    return torch.from_numpy(np.rint(values * 2**bits) / 2**bits).float()
