"""Which patches a masked network keeps."""

from __future__ import annotations

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


def fixed_keep(index: Tensor, patches: int, mask_ratio: float, device: torch.device) -> Tensor:
    """Masks that are a function of each image's ``(B,)`` index, so that held-out losses can be compared."""
    noise = np.stack([stream(0, number).random(patches) for number in index.tolist()])
    return keep_smallest(torch.from_numpy(noise), mask_ratio).to(device)
