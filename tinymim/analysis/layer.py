"""One block of a network as the analyses see it: what it gives out, and where its heads look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Layer:
    """A block and a batch.

    Args:
        block: from 1.
        heads: attention heads, H.
        prefix: tokens before the patches.
        grid: patches along height and width; N is their product.
        patch: side of a token in pixels of the network's own input; of an oblong one the mean of its two sides.
        tokens: the block's output, ``(B, prefix + N, D)``.
        distances: between the centres of patches that are in a window together, ``(Q, K)`` in pixels; in a ViT, whose
            one window is the image, of all patches, so Q = K = N.
        maps: the logarithm of the attention of a slice of the images, ``(b, W, H, prefix + Q, prefix + K)`` in float32
            for W windows (1 in a ViT); computed anew at each call, so that nobody has to hold the maps of a batch.
        allowed: which patches of a window may attend to which, ``(W, Q, K)``; ``None`` is all to all. The distances of
            the others mean nothing.
    """

    block: int
    heads: int
    prefix: int
    grid: tuple[int, int]
    patch: float
    tokens: Tensor
    distances: Tensor
    maps: Callable[[slice], Tensor]
    allowed: Tensor | None = None


def distances(grid: tuple[int, int], patch: tuple[float, float]) -> Tensor:
    """Between the centres of the patches of a grid, ``(N, N)`` in pixels.

    Args:
        grid: patches along height and width.
        patch: height and width of a patch in pixels.
    """
    centres = torch.cartesian_prod(
        *(torch.arange(count) * float(side) for count, side in zip(grid, patch, strict=True))
    )
    return torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")
