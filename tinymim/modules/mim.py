"""Masked image modelling: MAE (arXiv 2111.06377), to make teachers and to compare students with."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from tinymim.architecture import Architecture
from tinymim.backbones import Backbone, choose_attention, skeleton
from tinymim.errors import TinymimError, several
from tinymim.modules.evaluation import Evaluated
from tinymim.modules.optim import Optim, configure
from tinymim.seeds import stream


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
        self.norm = nn.LayerNorm(width)
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


class MAEPretrainer(Evaluated):
    """Pre-train a ViT to restore masked patches; the encoder sees the kept ones alone.

    Args:
        architecture: the encoder.
        mask_ratio: share of patches dropped, in (0, 1).
        decoder_width: channels of the decoder.
        decoder_depth: its blocks.
        decoder_heads: its heads.
        norm_pix: standardise each target patch by its own mean and variance (unbiased, eps 1e-6), as MAE recommends.
        optim: the optimiser.
    """

    def __init__(
        self,
        architecture: Architecture,
        mask_ratio: float = 0.75,
        decoder_width: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        norm_pix: bool = True,
        optim: Optim | None = None,
    ):
        super().__init__()
        self.architecture = architecture
        self.mask_ratio, self.norm_pix = mask_ratio, norm_pix
        self.decoder_sizes = (decoder_width, decoder_depth, decoder_heads)
        self.optim = optim or Optim(warmup_epochs=40)
        self.encoder: Backbone | None = None

    prefix = "encoder.vit."

    @property
    def backbone(self) -> Backbone:
        """The encoder."""
        assert self.encoder is not None, "configure_model comes first"
        return self.encoder

    def problems(self, image_size: int) -> list[str]:
        """Everything that keeps the recipe from running."""
        found = []
        if not 0 < self.mask_ratio < 1:
            found.append(f"mask_ratio: {self.mask_ratio} is not between 0 and 1")
        width, _, heads = self.decoder_sizes
        if width % 4 or width % heads:
            found.append(f"decoder_width: {width} must be divisible by 4 and by decoder_heads, {heads}")
        try:
            size = skeleton(self.architecture).image_size
            if size != (image_size, image_size):
                found.append(
                    f"architecture.options.img_size: {size[0]}, but data.image_size is {image_size}; make them equal"
                )
        except TinymimError as error:
            found.append(f"architecture: {error}")
        return found

    def configure_model(self) -> None:
        """Build the encoder and the decoder."""
        if self.encoder is not None:
            return
        size = getattr(getattr(self.trainer, "datamodule", None), "image_size", None)
        if found := self.problems(size or skeleton(self.architecture).image_size[0]):
            raise several("this recipe cannot run", found)
        encoder = Backbone(self.architecture)
        self.decoder = Decoder(encoder, *self.decoder_sizes)
        self.encoder = encoder

    def loss(self, images: Tensor, keep: Tensor) -> Tensor:
        """Mean squared error over the dropped patches.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1].
            keep: ``(B, K)`` indices of the kept patches.
        """
        encoder = self.backbone
        tokens = encoder.vit.norm(encoder.vit.blocks(encoder.embed(images, keep)))
        predicted = self.decoder(tokens, keep).float()
        target = patchify(encoder.normalise(images), encoder.patch)
        if self.norm_pix:
            target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        error = (predicted - target).square().mean(-1)
        dropped = torch.ones_like(error).scatter(1, keep, 0.0)
        return (error * dropped).sum() / dropped.sum()

    def keep(self, noise: Tensor) -> Tensor:
        """``(B, K)`` patches with the smallest of ``(B, N)`` random numbers; K is the unmasked share, at least one."""
        kept = max(int(noise.shape[1] * (1 - self.mask_ratio)), 1)
        return noise.argsort(dim=1)[:, :kept]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One step's loss, under fresh random masks."""
        images = batch["image"]
        loss = self.loss(images, self.keep(torch.rand(len(images), self._patches, device=images.device)))
        self.log("train/loss", loss.detach(), batch_size=len(images))
        return loss

    def evaluate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The loss under masks that are a function of the image's index, so that runs can be compared."""
        images = batch["image"]
        noise = np.stack([stream(0, int(index)).random(self._patches) for index in batch["index"]])
        return {"loss": self.loss(images, self.keep(torch.from_numpy(noise).to(images.device)))}

    @property
    def _patches(self) -> int:
        return self.backbone.grid[0] * self.backbone.grid[1]

    def configure_optimizers(self) -> Any:
        """AdamW over encoder and decoder."""
        return configure(self, self.optim, self.trainer)

    def summary(self) -> list[tuple[str, str]]:
        """What is about to be trained, for people."""
        width, depth, heads = self.decoder_sizes
        kept = self.keep(torch.zeros(1, self._patches)).shape[1]
        return [
            ("encoder", self.backbone.describe()),
            ("decoder", f"width {width}, depth {depth}, heads {heads}"),
            ("masking", f"{self.mask_ratio:.0%}: {kept} of {self._patches} patches enter the encoder"),
        ]


def patchify(images: Tensor, patch: tuple[int, int]) -> Tensor:
    """``(B, 3, H, W)`` to ``(B, N, patch² x 3)``, patches by rows, pixels of a patch by rows, channels last."""
    height, width = patch
    x = images.unflatten(3, (-1, width)).unflatten(2, (-1, height))  # B, C, rows, height, columns, width
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
