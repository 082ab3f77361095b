"""A ViT's tokens as maps of several scales, for decoders that expect a pyramid."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

FACTORS = (4.0, 2.0, 1.0, 0.5)
"""What :func:`scaled` can make of a map's sides."""


def scaled(width: int, factor: float, norm: Callable[[int], nn.Module]) -> nn.Module:
    """A map ``factor`` times as large in each direction, as BEiT's segmentation and ViTDet (arXiv 2203.16527) make it.

    Args:
        width: channels, which are kept; ViTDet halves them with each enlargement.
        factor: one of :data:`FACTORS`.
        norm: between two enlargements: BEiT has BatchNorm there, ViTDet LayerNorm.
    """
    if factor == 4:
        return nn.Sequential(_twice(width), norm(width), nn.GELU(), _twice(width))
    if factor == 2:
        return _twice(width)
    return nn.MaxPool2d(2) if factor == 0.5 else nn.Identity()


def map_of(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """``(B, D, h, w)`` of ``(B, h * w, D)`` patch tokens."""
    return tokens.transpose(1, 2).unflatten(2, grid).contiguous()


def _twice(width: int) -> nn.Module:
    return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
