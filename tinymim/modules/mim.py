"""Masked image modelling: MAE (arXiv 2111.06377), to make teachers and to compare students with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tinymim.architecture import Architecture
from tinymim.backbones import Backbone, skeleton
from tinymim.errors import TinymimError, several
from tinymim.modules.evaluation import Evaluated
from tinymim.modules.masking import fixed_keep, keep_smallest, random_keep
from tinymim.modules.optim import Optim, configure
from tinymim.modules.reconstruction import Decoder, decoder_problems, reconstruction_loss


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
        found += decoder_problems(width, heads)
        try:
            size = skeleton(self.architecture).image_size
            if size != (image_size, image_size):
                found.append(
                    f"architecture.options.img_size: {size[0]}, but data.image_size is {image_size}; make them equal"
                )
        except TinymimError as error:
            found.append(f"architecture: {error}")
        return found

    def leaves(self) -> dict[str, Any]:
        """A checkpoint's record: an encoder trained whole."""
        return {"backbone": skeleton(self.architecture).record(), "prefix": self.prefix}

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
        return reconstruction_loss(self.decoder(tokens, keep), keep, images, encoder, self.norm_pix)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One step's loss, under fresh random masks."""
        images = batch["image"]
        loss = self.loss(images, random_keep(images, self._patches, self.mask_ratio))
        self.log("train/loss", loss.detach(), batch_size=len(images))
        return loss

    def evaluate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The loss under masks that are a function of the image's index, so that runs can be compared."""
        images = batch["image"]
        keep = fixed_keep(batch["index"], self._patches, self.mask_ratio, images.device)
        return {"loss": self.loss(images, keep)}

    @property
    def _patches(self) -> int:
        return self.backbone.grid[0] * self.backbone.grid[1]

    def configure_optimizers(self) -> Any:
        """AdamW over encoder and decoder."""
        return configure(self, self.optim, self.trainer)

    def summary(self) -> list[tuple[str, str]]:
        """What is about to be trained, for people."""
        width, depth, heads = self.decoder_sizes
        kept = keep_smallest(torch.zeros(1, self._patches), self.mask_ratio).shape[1]
        return [
            ("encoder", self.backbone.describe()),
            ("decoder", f"width {width}, depth {depth}, heads {heads}"),
            ("masking", f"{self.mask_ratio:.0%}: {kept} of {self._patches} patches enter the encoder"),
        ]
