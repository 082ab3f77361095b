"""From an image and its mask to what a segmentation network sees; ADE20K's pipeline as mmsegmentation has it.

Images are 8-bit RGB arrays ``(H, W, 3)``, masks ``(H, W)`` classes with :data:`UNLABELLED` where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tinymim.data.device_augment import MEAN

UNLABELLED = 255
"""In a mask, a pixel without class: no loss, no figure."""

Pixels = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Pair = tuple[Image.Image, Mask]

CROPS = 10  # tried for one that no class fills
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32, 0.5, 0.5, 18 / 180  # of 255, shares, and of the circle


@dataclass
class CropView:
    """A training sample: resized at random, cropped, perhaps mirrored and in other colours; ``image`` and ``mask``.
    A crop larger than the image is filled up with a typical colour, unlabelled.

    Args:
        image_size: side of the crop, in pixels; this and the others as
            :class:`tinymim.data.segmentation_folder.SegmentationFolderData`'s.
    """

    image_size: int
    scale: tuple[int, int] = (2048, 512)
    ratio: tuple[float, float] = (0.5, 2.0)
    most: float = 0.75
    flip: bool = True
    distort: bool = True

    def __call__(self, shown: Pair, rng: np.random.Generator) -> dict[str, Tensor]:
        """``image`` ``(3, S, S)`` and ``mask`` ``(S, S)``; everything random comes from ``rng``."""
        image, mask = shown
        factor = rng.uniform(*self.ratio)
        image = image.resize(fitted(image.size, self.scale, factor), Image.Resampling.BILINEAR)
        labels = np.asarray(Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST))
        left, top = self._corner(labels, rng)
        box = (slice(top, top + self.image_size), slice(left, left + self.image_size))
        pixels, labels = np.asarray(image)[box], labels[box]
        if self.flip and rng.random() < 0.5:
            pixels, labels = pixels[:, ::-1], labels[:, ::-1]
        if self.distort:
            pixels = distorted(pixels, rng)
        # What the image lacks of the crop, at its right and bottom.
        size = self.image_size
        whole = np.full((size, size, 3), np.round(255 * np.array(MEAN)), np.uint8)
        whole[: pixels.shape[0], : pixels.shape[1]] = pixels
        classes = np.full((size, size), UNLABELLED, np.uint8)
        classes[: labels.shape[0], : labels.shape[1]] = labels
        return {"image": as_tensor(whole), "mask": torch.from_numpy(classes.astype(np.int64))}

    def _corner(self, labels: Mask, rng: np.random.Generator) -> tuple[int, int]:
        """Left and top of a crop that no class fills, if ten tries find one."""
        height, width = labels.shape
        for _ in range(CROPS):
            top = int(rng.integers(max(height - self.image_size, 0) + 1))
            left = int(rng.integers(max(width - self.image_size, 0) + 1))
            crop = labels[top : top + self.image_size, left : left + self.image_size]
            counts = np.bincount(crop[crop != UNLABELLED])
            if np.count_nonzero(counts) > 1 and counts.max() < self.most * counts.sum():
                break
        return left, top


@dataclass
class WholeView:
    """A held-out sample: the whole image, resized to fit into ``scale`` pixels, long and short side; the mask in its
    own size, in which figures are taken."""

    scale: tuple[int, int] = (2048, 512)

    def __call__(self, shown: Pair, rng: np.random.Generator) -> dict[str, Tensor]:
        """``image`` ``(3, h, w)`` and ``mask`` ``(H, W)``, uint8; nothing is random."""
        image, mask = shown
        image = image.resize(fitted(image.size, self.scale), Image.Resampling.BILINEAR)
        return {"image": as_tensor(np.asarray(image)), "mask": torch.from_numpy(mask)}


def fitted(size: tuple[int, int], scale: tuple[int, int], factor: float = 1.0) -> tuple[int, int]:
    """``size``, width and height, made to fit into ``scale`` times ``factor`` either way round, in its own shape."""
    share = factor * min(max(scale) / max(size), min(scale) / min(size))
    return max(round(size[0] * share), 1), max(round(size[1] * share), 1)


def distorted(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """In other colours: SSD's photometric distortion, as mmsegmentation has it.

    Brightness, then contrast either before or after saturation and hue; each with probability one half.
    """
    # All numbers are drawn before any is used, so that none depends on which changes are applied.
    brightness, contrast, saturation, hue = rng.uniform(-1, 1, 4)
    applied = rng.random(4) < 0.5
    first = rng.random() < 0.5

    def contrasted(pixels: Pixels) -> Pixels:
        return _clipped(pixels * (1 + CONTRAST * contrast)) if applied[1] else pixels

    if applied[0]:
        pixels = _clipped(pixels + BRIGHTNESS * brightness)
    if first:
        pixels = contrasted(pixels)
    if applied[2] or applied[3]:
        hsv = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("HSV")).astype(np.float32)
        if applied[2]:
            hsv[..., 1] *= 1 + SATURATION * saturation
        if applied[3]:
            hsv[..., 0] = (hsv[..., 0] + 256 * HUE * hue) % 256
        pixels = np.asarray(Image.fromarray(_clipped(hsv), "HSV").convert("RGB"))
    return pixels if first else contrasted(pixels)


def as_tensor(pixels: Pixels) -> Tensor:
    """``(H, W, 3)`` to ``(3, H, W)``, bytes still: they become floats with the batch."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _clipped(values: NDArray[np.floating]) -> Pixels:
    return values.clip(0, 255).astype(np.uint8)
