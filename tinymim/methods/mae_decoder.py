"""MAE's decoder and loss (arXiv 2111.06377), for pre-training and as an auxiliary loss beside distillation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from tinymim.argument_types import checked
from tinymim.vit.backbone import Backbone
from tinymim.vit.norms import LastNorm
from tinymim.vit.taps import choose_attention

MOST_DEEP, MOST_WIDE = 1000, 65536  # beyond any decoder: a slip of the keys is said before it is built


class Decoder(nn.Module):
    """MAE's decoder: mask tokens take the dropped patches' places, a few blocks, and pixels come out.

    Args:
        encoder: whose tokens it takes.
        width: channels, divisible by 4 for the sine-cosine positions.
        depth: blocks.
        heads: attention heads.
    """

    def __init__(self, encoder: Backbone, width: int, depth: int, heads: int):
        super().__init__()
        self.prefix = encoder.prefix
        self.embed = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        positions = build_sincos2d_pos_embed(list(encoder.grid), dim=width, interleave_sin_cos=False)
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.Sequential(*[Block(width, heads, qkv_bias=True) for _ in range(depth)])
        self.norm = LastNorm(width)
        self.pixels = nn.Linear(width, encoder.patch[0] * encoder.patch[1] * 3)

    def forward(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """Predicted pixels of all patches, ``(B, N, patch² x 3)``, from the ``(B, prefix + K, D)`` kept tokens."""
        tokens = self.embed(tokens)
        prefix, kept = tokens[:, : self.prefix], tokens[:, self.prefix :]
        positions = cast(Tensor, self.positions).to(kept.dtype)
        x = self.mask_token.to(kept.dtype).expand(len(kept), len(positions), -1)
        x = x.scatter(1, keep.unsqueeze(-1).expand_as(kept), kept) + positions
        choose_attention(self.blocks, x)
        x = self.norm(self.blocks(torch.cat([prefix, x], dim=1)))
        return self.pixels(x[:, self.prefix :])


@checked
@dataclass
class Reconstruction:
    """An auxiliary reconstruction loss (TinyMIM section 4.2, Table 12), which the paper takes from MAE without giving
    its weight or decoder; the defaults are MAE's.

    Args:
        weight: factor of the loss in the sum, above 0.
        decoder_width: channels of the decoder.
        decoder_depth: its blocks.
        decoder_heads: its heads.
        norm_pix: standardise each target patch by its own mean and variance.
    """

    weight: float = 1.0
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    norm_pix: bool = True

    def describe(self) -> tuple[str, str]:
        """Title and text for people."""
        return f"reconstruction x{self.weight:g}", "of the dropped patches, beside the targets"

    def errors(self, mask_ratio: float) -> list[str]:
        """Sizes that no decoder can have, and a mask ratio that leaves nothing to restore."""
        sizes = (self.decoder_width, self.decoder_depth, self.decoder_heads)
        errors = [f"reconstruction.{error}" for error in decoder_errors(*sizes)]
        if not 0 < self.weight < math.inf:
            errors.append(f"reconstruction.weight: {self.weight} is not a number above 0; or leave it out")
        if not mask_ratio:
            errors.append("reconstruction: nothing is dropped to restore; set mask_ratio (the paper's is 0.75)")
        return errors


class Reconstructor(nn.Module):
    """A norm and a decoder over a student's kept tokens, and their loss. It is no part of the student."""

    def __init__(self, encoder: Backbone, options: Reconstruction):
        super().__init__()
        self.norm = LastNorm(encoder.width)
        self.decoder = Decoder(encoder, options.decoder_width, options.decoder_depth, options.decoder_heads)
        self.norm_pix = options.norm_pix

    def forward(self, tokens: Tensor, keep: Tensor, images: Tensor, encoder: Backbone) -> Tensor:
        """The loss; arguments as in :func:`reconstruction_loss`, ``(B, prefix + K, D)`` tokens before the norm."""
        return reconstruction_loss(self.decoder(self.norm(tokens), keep), keep, images, encoder, self.norm_pix)


def reconstruction_loss(
    predicted: Tensor, keep: Tensor, images: Tensor, encoder: Backbone, norm_pix: bool = True
) -> Tensor:
    """Mean squared error over the dropped patches.

    Args:
        predicted: ``(B, N, patch² x 3)``.
        keep: ``(B, K)`` indices of the kept patches.
        images: ``(B, 3, H, W)`` in [0, 1].
        encoder: whose input normalisation and patches are meant.
        norm_pix: standardise each target patch by its own mean and variance (unbiased, eps 1e-6), as MAE recommends.
    """
    target = patchify(encoder.normalise(images), encoder.patch)
    if norm_pix:
        mean, std = statistics_of(target)
        target = (target - mean) / std
    error = (predicted.float() - target).square().mean(-1)
    dropped = torch.ones_like(error).scatter(1, keep, 0.0)
    return (error * dropped).sum() / dropped.sum()


def statistics_of(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (unbiased, eps 1e-6 in the variance) of ``(B, N, P)`` patches, ``(B, N, 1)`` each."""
    return patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + 1e-6).sqrt()


def decoder_errors(width: int, depth: int, heads: int) -> list[str]:
    """Why no decoder can be that wide and deep with that many heads."""
    errors = [f"decoder_depth: {depth} is not from 1 to {MOST_DEEP}"] if not 1 <= depth <= MOST_DEEP else []
    if heads < 1 or width < 1 or width % 4 or width % heads:
        errors.append(f"decoder_width: {width} must be divisible by 4 and by decoder_heads, {heads}")
    elif width > MOST_WIDE:
        errors.append(f"decoder_width: {width} is more than {MOST_WIDE}")
    return errors


def patchify(images: Tensor, patch: tuple[int, int]) -> Tensor:
    """``(B, 3, H, W)`` to ``(B, N, patch² x 3)``, patches by rows, pixels of a patch by rows, channels last."""
    height, width = patch
    x = images.unflatten(3, (-1, width)).unflatten(2, (-1, height))  # B, C, rows, height, columns, width
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, grid: tuple[int, int], patch: tuple[int, int]) -> Tensor:
    """Undo :func:`patchify`: ``(B, N, patch² x 3)`` in a ``grid`` of rows and columns to ``(B, 3, H, W)``."""
    x = patches.unflatten(2, (*patch, 3)).unflatten(1, grid)  # B, rows, columns, height, width, C
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
