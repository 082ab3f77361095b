"""What becomes of a batch where it is used: bytes turn into floats, and what the workers only drew is done.

One function of the batch alone: every random number in it was drawn with the sample, from (seed, epoch, index).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tinymim.data.draws import BRIGHTNESS, CONTRAST

# ImageNet's, for augmentations that need a typical colour; nothing is normalised with them here.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

GREY = (0.299, 0.587, 0.114)  # Pillow's and torchvision's shares of red, green and blue


def finished(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch with ``image``, and ``jittered`` if it has one, as floats in [0, 1]; on the device that it is on.

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
        erase = erased_one_by_one if draws["erased"].device.type == "cpu" else erased_together
        views = {name: erase(view, draws["erased"]) for name, view in views.items()}
    return batch | views


def unit(images: Tensor) -> Tensor:
    """Bytes to floats in [0, 1], channels first in memory wherever they came from; floats are left alone."""
    if images.dtype != torch.uint8:
        return images
    return images.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def jittered(images: Tensor, colours: Tensor) -> Tensor:
    """Images in other colours, as torchvision's ``ColorJitter`` without hue.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        colours: ``(B, 3, 2)``: three changes one after another, each with its factor
            (:func:`tinymim.data.draws.colours`).
    """
    for kind, factor in colours.to(images.dtype).permute(1, 2, 0)[..., None, None, None]:
        # Each mixes the image with a colour: black, the image's mean grey, or each pixel's own grey.
        grey = torch.einsum("bchw,c->bhw", images, images.new_tensor(GREY)).unsqueeze(1)
        colour = torch.where(kind == CONTRAST, grey.mean((2, 3), keepdim=True), grey)
        images = torch.lerp(torch.where(kind == BRIGHTNESS, 0.0, colour), images, factor).clamp_(0, 1)
    return images


def erased_together(images: Tensor, boxes: Tensor) -> Tensor:
    """Images with noise in their boxes, without asking a device where those are.

    Args:
        images: ``(B, 3, S, S)`` in [0, 1].
        boxes: ``(B, 5)``: left, top, right, bottom, seed (:func:`tinymim.data.draws.erased_box`).
    """
    left, top, right, bottom, seed = boxes[..., None, None, None].unbind(1)
    place = _places(images)
    line = torch.arange(images.shape[-1], device=boxes.device)
    rows, columns = (line >= top) & (line < bottom), (line >= left) & (line < right)
    return torch.where(rows.mT & columns, noise(seed, place), images)


def erased_one_by_one(images: Tensor, boxes: Tensor) -> Tensor:
    """As :func:`erased_together`, computing no more noise than is seen: for a CPU, whose numbers can be read."""
    images, place = images.clone(), _places(images)
    for image, (left, top, right, bottom, seed) in zip(images, boxes.tolist(), strict=True):
        box = (slice(None), slice(top, bottom), slice(left, right))
        image[box] = noise(boxes.new_tensor(seed), place[box])
    return images


def noise(seed: Tensor, place: Tensor) -> Tensor:
    """Colours in [0, 1] that are standard normal once normalised, as timm's ``pixel`` mode.

    A hash of seed and place, so that they are the same on any device and in any batch.

    Args:
        seed: from 0 to 2^31; broadcast with ``place``.
        place: ``(3, H, W)``, the number of each value in its image.
    """
    first = _hashed(_hashed(seed.int()) + place)
    radius, angle = (((bits & 0xFFFFFF) + 0.5) / 2**24 for bits in (first, _hashed(first)))
    normal = (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()
    mean, std = (normal.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (normal * std + mean).clamp(0, 1)


def _places(images: Tensor) -> Tensor:
    """``(3, H, W)``: the number of each value."""
    shape = images.shape[1:]
    return torch.arange(shape.numel(), dtype=torch.int32, device=images.device).view(shape)


def _hashed(x: Tensor) -> Tensor:
    """32 bits mixed by multiplication and shifts (Wellons' lowbias32); int32, which wraps."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - 2**32)
    return x ^ ((x >> 16) & 0xFFFF)
