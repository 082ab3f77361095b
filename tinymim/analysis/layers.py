"""The blocks of a network over a batch of images, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tinymim.analysis.layer import Layer, distances
from tinymim.analysis.windows import Windowed
from tinymim.backbones import Backbone
from tinymim.blocks import Tap, attention_bias
from tinymim.targets.attention import log_attention

TAPS = ("q", "k", "ffn_post")


@torch.inference_mode()
def layers(network: Backbone | Windowed, images: Tensor) -> Iterator[Layer]:
    """Run a network and give its blocks one by one; nothing is kept of those before.

    The network is put into eval mode. Its attention is its own: with rope, norms of q and k, and relative position
    bias where it has these.

    Args:
        network: what to look at.
        images: ``(B, 3, H, W)`` in [0, 1].
    """
    if isinstance(network, Windowed):
        yield from network.layers(images)
        return
    network.eval()
    between = distances(network.grid, network.patch).to(images.device)
    taps = [Tap(block, name) for block in range(1, network.depth + 1) for name in TAPS]
    for number, parts, told in network.walk(images, taps):
        heads = network.heads[number - 1]
        bias = attention_bias(network.vit.blocks[number - 1], told)
        maps = _Maps(parts["q"], parts["k"], heads, bias)
        side = sum(network.patch) / 2
        yield Layer(number, heads, network.prefix, network.grid, side, parts["ffn_post"], between, maps)


class _Maps:
    """Maps of a ViT's block from its ``(B, prefix + N, D)`` queries and keys."""

    def __init__(self, q: Tensor, k: Tensor, heads: int, bias: Tensor | None):
        self.q, self.k, self.heads, self.bias = q, k, heads, bias

    @torch.inference_mode()
    def __call__(self, images: slice) -> Tensor:
        """``(b, 1, H, prefix + N, prefix + N)``."""
        return log_attention(self.q[images], self.k[images], self.heads, self.bias).unsqueeze(1)
