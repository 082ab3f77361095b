"""The blocks of a network over a batch of images, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tinymim.analysis.layer import Layer, distances
from tinymim.analysis.swin import Windowed
from tinymim.targets.attention import log_attention
from tinymim.vit.backbone import Backbone
from tinymim.vit.blocks import Tap, attention_bias, place, project, projects_by_module
from tinymim.vit.positions import Positions


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
    blocks: list[Any] = list(network.vit.blocks)
    heard: list[Tensor] = []
    hooks = [_listen(block.attn, heard) for block in blocks]
    try:
        for number, parts, told in network.walk(
            images, [Tap(block, "ffn_post") for block in range(1, len(blocks) + 1)]
        ):
            maps = _Maps(blocks[number - 1], heard.pop(), told)
            side = sum(network.patch) / 2
            heads = network.heads[number - 1]
            yield Layer(number, heads, network.prefix, network.grid, side, parts["ffn_post"], between, maps)
    finally:
        for hook in hooks:
            hook.remove()


def _listen(attn: Any, heard: list[Tensor]) -> RemovableHandle:
    """Note q, k and v as they are made, which a second projection would cost a fifth of the network's time; of a
    network that makes them without a module, what they are made from."""
    if projects_by_module(attn):
        return cast(nn.Module, attn.qkv).register_forward_hook(lambda _, given, made: heard.append(made))
    return cast(nn.Module, attn).register_forward_pre_hook(lambda _, given: heard.append(given[0]))


class _Maps:
    """Maps of a ViT's block from what was heard of it."""

    def __init__(self, block: Any, heard: Tensor, told: Positions):
        self.attn, self.heard, self.told = block.attn, heard, told
        self.bias = attention_bias(block, told)

    @torch.inference_mode()
    def __call__(self, images: slice) -> Tensor:
        """``(b, 1, H, prefix + N, prefix + N)``."""
        heard = self.heard[images]
        q, k, _ = heard.chunk(3, dim=-1) if projects_by_module(self.attn) else project(self.attn, heard)
        q, k = place(self.attn, q, k, self.told)
        return log_attention(q, k, self.attn.num_heads, self.bias).unsqueeze(1)
