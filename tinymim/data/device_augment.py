"""Augmentation in two halves: workers draw a sample's random numbers, a device applies them to a batch.

Each number is drawn as torchvision draws it, from the sample's own stream, a function of (seed, epoch, index); what is
then done to a batch is a function of the batch alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinymim.data.decode import Box

# ImageNet's, for augmentations that need a typical colour; nothing is normalised with them here.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

GREY = (0.299, 0.587, 0.114)  # Pillow's and torchvision's shares of red, green and blue
BRIGHTNESS, CONTRAST, SATURATION = range(3)


def crop_box(
    rng: np.random.Generator,
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """Draw the box of ``RandomResizedCrop``: a share of the area, a log-uniform aspect ratio, a place; the centre if
    none of ten fits.

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
    """Draw ``ColorJitter``'s changes: brightness, contrast and saturation in random order, each with a factor around 1.

    Returns:
        ``(3, 2)``: which comes first, second, third, and its factor.
    """
    factors = rng.uniform(max(0.0, 1 - strength), 1 + strength, 3)
    return np.stack([rng.permutation(3), factors], 1).astype(np.float32)


def erased_box(rng: np.random.Generator, size: int, probability: float) -> NDArray[np.int64]:
    """Draw the box of ``RandomErasing`` with its defaults: 2 to 33 % of a square image's area, height over width from
    0.3 to 3.3.

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


def finished(batch: dict[str, Any]) -> dict[str, Any]:
    """Finish a batch on the device that it is on: ``image``, and ``jittered`` if it has one, become floats in [0, 1].

    Args:
        batch: ``image``, uint8 or such floats already, and perhaps ``draws``, which is taken away: ``colours``
            ``(B, 3, 2)`` makes ``jittered`` of ``image``; ``erased`` ``(B, 5)`` puts noise into both.
    """
    batch = dict(batch)
    draws = batch.pop("draws", {})
    views = {name: unit(batch[name]) for name in ("image", "jittered") if name in batch}
    if "colours" in draws:
        views["jittered"] = jittered(views["image"], draws["colours"])
    if "erased" in draws:
        # On a CPU the boxes can be read, so that no more noise is computed than is seen; on another device reading them
        # would wait for it.
        erase = erased_one_by_one if draws["erased"].device.type == "cpu" else erased_together
        views = {name: erase(view, draws["erased"]) for name, view in views.items()}
    return batch | views


def unit(images: Tensor) -> Tensor:
    """Convert bytes to floats in [0, 1], channels first in memory wherever they came from; floats are left alone."""
    if images.dtype != torch.uint8:
        return images
    return images.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def jittered(images: Tensor, colours: Tensor) -> Tensor:
    """Change the colours of images, as torchvision's ``ColorJitter`` without hue.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        colours: ``(B, 3, 2)``: three changes one after another, each with its factor (:func:`colours`).
    """
    for kind, factor in colours.to(images.dtype).permute(1, 2, 0)[..., None, None, None]:
        # Each mixes the image with a colour: black, the image's mean grey, or each pixel's own grey.
        grey = torch.einsum("bchw,c->bhw", images, images.new_tensor(GREY)).unsqueeze(1)
        colour = torch.where(kind == CONTRAST, grey.mean((2, 3), keepdim=True), grey)
        images = torch.lerp(torch.where(kind == BRIGHTNESS, 0.0, colour), images, factor).clamp_(0, 1)
    return images


def erased_together(images: Tensor, boxes: Tensor) -> Tensor:
    """Fill boxes with noise, without asking a device where they are.

    Args:
        images: ``(B, 3, S, S)`` in [0, 1].
        boxes: ``(B, 5)``: left, top, right, bottom, seed (:func:`erased_box`).
    """
    left, top, right, bottom, seed = boxes[..., None, None, None].unbind(1)
    line = torch.arange(images.shape[-1], device=boxes.device)
    rows, columns = (line >= top) & (line < bottom), (line >= left) & (line < right)
    return torch.where(rows.mT & columns, noise(seed, _value_numbers(images)), images)


def erased_one_by_one(images: Tensor, boxes: Tensor) -> Tensor:
    """Fill boxes as :func:`erased_together` does, computing no more noise than is seen."""
    images, numbers = images.clone(), _value_numbers(images)
    for image, (left, top, right, bottom, seed) in zip(images, boxes.tolist(), strict=True):
        box = (slice(None), slice(top, bottom), slice(left, right))
        image[box] = noise(boxes.new_tensor(seed), numbers[box])
    return images


def noise(seed: Tensor, numbers: Tensor) -> Tensor:
    """Colours in [0, 1] that are standard normal once normalised, as timm's ``pixel`` mode.

    A hash of seed and place, so that they are the same on any device and in any batch.

    Args:
        seed: from 0 to 2^31; broadcast with ``numbers``.
        numbers: ``(3, H, W)``, the number of each value in its image.
    """
    first = _hashed(_hashed(seed.int()) + numbers)
    radius, angle = (((bits & 0xFFFFFF) + 0.5) / 2**24 for bits in (first, _hashed(first)))
    normal = (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()  # Box and Muller's
    mean, std = (normal.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (normal * std + mean).clamp(0, 1)


def _value_numbers(images: Tensor) -> Tensor:
    """``(3, H, W)``: the number of each value in its image."""
    shape = images.shape[1:]
    return torch.arange(shape.numel(), dtype=torch.int32, device=images.device).view(shape)


def _hashed(x: Tensor) -> Tensor:
    """32 bits mixed by multiplication and shifts (Wellons' lowbias32); int32, which wraps."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - 2**32)
    return x ^ ((x >> 16) & 0xFFFF)
