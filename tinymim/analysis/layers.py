"""The blocks of a network over a batch of images, one by one: what each gives out, and where its heads look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tinymim.vit.attention_maps import watched
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Tap


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
    """Distances between the centres of the patches of a grid, ``(N, N)`` in pixels; both ``grid``, in patches, and
    ``patch``, in pixels, are height and width."""
    sides = [torch.arange(count) * float(side) for count, side in zip(grid, patch, strict=True)]
    centres = torch.cartesian_prod(*sides)
    return torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")


@torch.inference_mode()
def layers(network: Backbone | Any, images: Tensor) -> Iterator[Layer]:
    """Run a network, in eval mode, over ``(B, 3, H, W)`` images in [0, 1], and give its blocks one by one; nothing is
    kept of those before. A network that is no :class:`Backbone` knows its own, see :mod:`tinymim.analysis.swin`."""
    network.eval()
    if not isinstance(network, Backbone):
        yield from network.layers(images)
        return
    between = distances(network.grid, network.patch).to(images.device)
    outputs = [Tap(block, "ffn_post") for block in range(1, network.depth + 1)]
    with watched(block.attn for block in network.vit.blocks) as last:
        for number, parts, _ in network.walk(images, outputs):
            yield Layer(
                number,
                network.heads[number - 1],
                network.prefix,
                network.grid,
                sum(network.patch) / 2,
                parts["ffn_post"],
                between,
                last.maps(len(images)).log,
            )
