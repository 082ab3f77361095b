"""Attention maps of a ViT or Swin Transformer as the network itself computes them: its softmax, caught by one hook.

timm's attentions, with rope, norms of q and k, position bias, cosines or window masks, all hand their softmax to
``attn_drop`` when ``fused_attn`` is off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

LEAST = torch.finfo(torch.float32).tiny
"""Share of attention below which float32 has no digits left; what is less counts as this in logarithms."""


class AttentionMaps:
    """The maps of one block over a batch of ``images``, computed anew for those asked for: nobody holds the maps of a
    batch.

    Args:
        attn: the block's attention.
        tokens: what it was called with, ``(B · W, N, D)`` for W windows (1 in a ViT).
        options: its keyword arguments.
        images: B.
    """

    def __init__(self, attn: Any, tokens: Tensor, options: dict[str, Any], images: int):
        self.attn, self.tokens, self.options, self.images = attn, tokens, options, images

    @torch.inference_mode()
    def __call__(self, images: slice) -> Tensor:
        """Shares of attention of some images, ``(b, W, H, N, N)`` in float32."""
        tokens = self.tokens.unflatten(0, (self.images, -1))[images]
        maps: list[Tensor] = []

        def catch(_: Any, inputs: tuple[Tensor]) -> None:
            maps.append(inputs[0])
            raise _CaughtError  # the values and the projection after the softmax are not needed

        fused = getattr(self.attn, "fused_attn", False)
        self.attn.fused_attn = False
        hook = self.attn.attn_drop.register_forward_pre_hook(catch)
        try:
            self.attn.forward(tokens.flatten(0, 1), **self.options)
        except _CaughtError:
            pass
        finally:
            hook.remove()
            self.attn.fused_attn = fused
        return maps[0].float().unflatten(0, tokens.shape[:2])

    @torch.inference_mode()
    def log(self, images: slice) -> Tensor:
        """Their logarithms, at least that of :data:`LEAST`."""
        return self(images).clamp_(min=LEAST).log_()


class _CaughtError(Exception):
    """Ends a forward pass whose softmax was caught."""


class LastCall:
    """The attention that ran last and what it was called with; :meth:`maps` takes it out, so that nothing is held."""

    def __init__(self) -> None:
        self.call: tuple[Any, Tensor, dict[str, Any]] | None = None

    def note(self, attn: Any, inputs: tuple[Tensor, ...], options: dict[str, Any]) -> None:
        """Hook before the forward pass of an attention."""
        self.call = attn, inputs[0], options

    def maps(self, images: int) -> AttentionMaps:
        """The maps of that attention over a batch of ``images``."""
        assert self.call, "no attention ran since the last call"
        call, self.call = self.call, None
        return AttentionMaps(*call, images)


@contextmanager
def watched(attentions: Iterable[Any]) -> Iterator[LastCall]:
    """Within it, what each of these attentions is called with is noted, one at a time."""
    last = LastCall()
    hooks = [attn.register_forward_pre_hook(last.note, with_kwargs=True) for attn in attentions]
    try:
        yield last
    finally:
        for hook in hooks:
            hook.remove()
