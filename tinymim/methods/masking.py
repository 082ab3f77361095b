"""Masks: patches that a masked network keeps, and squares of an image that are masked."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from tinymim.seeds import shared_rand, stream


def keep_smallest(noise: Tensor, mask_ratio: float) -> Tensor:
    """``(B, K)`` patches with the smallest of ``(B, N)`` random numbers; K is the unmasked share, at least one."""
    kept = max(int(noise.shape[1] * (1 - mask_ratio)), 1)
    return noise.argsort(dim=1)[:, :kept]


def random_keep(images: Tensor, patches: int, mask_ratio: float) -> Tensor:
    """Fresh random masks for a training batch: ``(B, K)`` indices on the images' device."""
    return keep_smallest(shared_rand(len(images), patches, device=images.device), mask_ratio)


def fixed_keep(index: Tensor, patches: int, mask_ratio: float, device: torch.device, seed: int = 0) -> Tensor:
    """Masks that are a function of ``seed`` and an image's ``(B,)`` index, so that held-out losses can be compared."""
    return keep_smallest(fixed_noise(index, patches, seed), mask_ratio).to(device)


def mask_smallest(noise: Tensor, mask_ratio: float) -> Tensor:
    """``(B, N)`` booleans, true at the smallest of ``(B, N)`` random numbers; their share is rounded up."""
    return noise.argsort(dim=1).argsort(dim=1) < masked_count(noise.shape[1], mask_ratio)


def masked_count(units: int, mask_ratio: float) -> int:
    """Number of ``units`` that are masked, rounded up."""
    return math.ceil(round(units * mask_ratio, 6))  # 0.55 x 20 is a little over 11


def fixed_noise(index: Tensor, length: int, seed: int) -> Tensor:
    """``(B, length)`` random numbers that are a function of ``seed`` and each image's ``(B,)`` index."""
    return torch.from_numpy(np.stack([stream(seed, number).random(length) for number in index.tolist()]))
