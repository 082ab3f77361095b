"""Feature pyramids: a ViT's tokens as maps of several scales, from four blocks (BEiT's) or from the last (ViTDet's)."""

from __future__ import annotations

from collections.abc import Callable

from timm.layers import LayerNorm2d
from torch import Tensor, nn

FACTORS = (4.0, 2.0, 1.0, 0.5)
"""Scales of the maps, relative to the grid of patches."""


class Pyramid(nn.Module):
    """Maps of four scales from the tokens of four blocks, as BEiT's segmentation and TinyMIM's make them.

    Args:
        width: channels of the tokens, which the maps keep.
    """

    def __init__(self, width: int):
        super().__init__()
        self.levels = nn.ModuleList(scaled(width, factor, nn.BatchNorm2d) for factor in FACTORS)

    def forward(self, tokens: list[Tensor], grid: tuple[int, int]) -> list[Tensor]:
        """Four maps ``(B, D, 4h, 4w)`` to ``(B, D, h/2, w/2)``, of four times ``(B, h * w, D)`` patch tokens."""
        return [level(map_of(each, grid)) for level, each in zip(self.levels, tokens, strict=True)]


class SimplePyramid(nn.Module):
    """Maps of several scales from the last one alone: ViTDet's.

    Args:
        width: channels of the tokens.
        out_channels: of the maps; the name is torchvision's.
        scales: of the maps.
    """

    def __init__(self, width: int, out_channels: int, scales: list[float]):
        super().__init__()
        self.out_channels = out_channels
        self.levels = nn.ModuleList(
            nn.Sequential(
                scaled(width, scale, LayerNorm2d),
                nn.Conv2d(width, out_channels, 1, bias=False),
                LayerNorm2d(out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                LayerNorm2d(out_channels),
            )
            for scale in scales
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, out_channels, scale * h, scale * w)`` for each scale, of ``(B, D, h, w)``."""
        return [level(x) for level in self.levels]


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
