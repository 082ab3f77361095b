"""MAE (arXiv 2111.06377), to make teachers and to compare students with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tinymim.argument_types import check_types
from tinymim.methods.mae_decoder import Decoder, decoder_errors, patchify, reconstruction_loss, statistics_of
from tinymim.methods.masking import keep_smallest
from tinymim.methods.mim import MaskedPretrainer
from tinymim.methods.optim import Optim
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.initialise import initialise


class MAEPretrainer(MaskedPretrainer):
    """Pre-train a ViT to restore masked patches; the encoder sees the kept ones alone.

    Args:
        architecture: the encoder.
        mask_ratio: share of patches dropped, in (0, 1).
        decoder_width: channels of the decoder.
        decoder_depth: its blocks.
        decoder_heads: its heads.
        norm_pix: standardise each target patch by its own mean and variance (unbiased, eps 1e-6), as MAE recommends.
        optim: the optimiser.
        options: see :class:`MaskedPretrainer`.
    """

    prefix = "encoder.vit."

    def __init__(
        self,
        architecture: Architecture,
        mask_ratio: float = 0.75,
        decoder_width: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        norm_pix: bool = True,
        optim: Optim | None = None,
        **options: Any,
    ):
        check_types(MAEPretrainer, locals())
        super().__init__(architecture, mask_ratio, optim or Optim(warmup_epochs=40), **options)
        self.decoder_sizes, self.norm_pix = (decoder_width, decoder_depth, decoder_heads), norm_pix
        self.encoder: Backbone | None = None

    def option_errors(self, encoder: Backbone) -> list[str]:
        """Sizes that no decoder can have."""
        return decoder_errors(*self.decoder_sizes)

    def build_on(self, encoder: Backbone) -> None:
        """Keep the encoder, and build the decoder."""
        self.decoder = initialise(Decoder(encoder, *self.decoder_sizes), self.init)
        self.encoder = initialise(encoder, self.init)  # after the decoder: optimiser states go by the parameters' order

    def units(self, encoder: Backbone) -> int:
        """Patches."""
        return encoder.patches

    def choose(self, noise: Tensor) -> Tensor:
        """``(B, K)`` indices of the kept patches."""
        return keep_smallest(noise, self.mask_ratio)

    def loss(self, images: Tensor, masks: Tensor) -> Tensor:
        """Mean squared error over the dropped patches.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1].
            masks: ``(B, K)`` indices of the kept patches.
        """
        return reconstruction_loss(self._predict(images, masks), masks, images, self.backbone, self.norm_pix)

    def restore(self, images: Tensor, masks: Tensor) -> Tensor:
        """Pixels of all patches; with ``norm_pix`` the true mean and variance of each patch are put back, which the
        network does not predict."""
        predicted = self._predict(images, masks).float()
        if not self.norm_pix:
            return predicted
        mean, std = statistics_of(patchify(self.backbone.normalise(images), self.backbone.patch))
        return predicted * std + mean

    def hidden(self, masks: Tensor) -> Tensor:
        """``(B, N)`` booleans, true where a patch is dropped."""
        everything = torch.ones(len(masks), self.backbone.patches, dtype=torch.bool, device=masks.device)
        return everything.scatter(1, masks, False)

    def _predict(self, images: Tensor, keep: Tensor) -> Tensor:
        encoder = self.backbone
        return self.decoder(encoder.vit.norm(encoder.vit.blocks(encoder.embed(images, keep))), keep)

    def summary(self) -> list[tuple[str, str]]:
        """Lines on what is about to be trained: title and text."""
        width, depth, heads = self.decoder_sizes
        kept = self.choose(torch.zeros(1, self.backbone.patches)).shape[1]
        return [
            ("encoder", self.backbone.describe()),
            ("first weights", self.init),
            ("decoder", f"width {width}, depth {depth}, heads {heads}"),
            ("masking", f"{self.mask_ratio:.0%}: {kept} of {self.backbone.patches} patches enter the encoder"),
        ]
