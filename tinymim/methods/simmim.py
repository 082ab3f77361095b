"""SimMIM (arXiv 2111.09886) for plain ViTs: the encoder sees all patches, the masked ones as a learned token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tinymim.argument_types import check_types
from tinymim.methods.mae_decoder import patchify
from tinymim.methods.masking import mask_smallest, masked_count
from tinymim.methods.mim import MaskedPretrainer
from tinymim.methods.optim import Optim
from tinymim.vit.architecture import Architecture, set_drop_path
from tinymim.vit.backbone import Backbone
from tinymim.vit.initialise import cut_normal, initialise, truncated


class MaskedEncoder(nn.Module):
    """An encoder of all patches, the token that stands for a masked one, and the linear layer from tokens to pixels."""

    def __init__(self, encoder: Backbone):
        super().__init__()
        self.encoder = encoder
        self.mask_token = nn.Parameter(torch.empty(encoder.width).normal_(std=0.02))
        self.pixels = nn.Linear(encoder.width, encoder.patch[0] * encoder.patch[1] * 3)

    def forward(self, images: Tensor, masked: Tensor) -> Tensor:
        """Pixels of all patches, ``(B, N, patch² x 3)``, from images whose patches in ``(B, N)`` booleans are masked.

        They are predicted from the last block's output through the final norm, as in the published code.
        """
        encoder = self.encoder
        tokens = encoder.embed(images, replace=lambda x: torch.where(masked.unsqueeze(-1), self.mask_token.to(x), x))
        return self.pixels(encoder.vit.norm(encoder.vit.blocks(tokens))[:, encoder.prefix :])


class SimMIMPretrainer(MaskedPretrainer):
    """Pre-train a ViT to restore the pixels of masked squares by a linear layer.

    As published but for the schedule, here a cosine, and for what the architecture says: positions (the source gives
    its ViT-B a relative bias that all blocks share, and none else) and layer scale, which its ViT-B has and which is
    ``options: {init_values: 0.1}`` here. The source's k has no bias. Here it has one, which adds the same number to all
    that a query attends to, so the softmax takes it away again: it changes nothing.

    Args:
        architecture: the encoder.
        mask_ratio: share of the squares masked, in (0, 1); their number is rounded up, as in the source.
        mask_unit: side of a masked square in pixels, a multiple of the patch.
        drop_path: stochastic depth, rising linearly with depth.
        optim: the optimiser; with the source's learning rate, betas and warm-up. It also clips gradients at 5, which is
            ``trainer.gradient_clip_val``.
        options: see :class:`MaskedPretrainer`. The layer of pixels has PyTorch's first weights whatever ``init`` is, as
            in the source.
    """

    prefix = "model.encoder.vit."

    def __init__(
        self,
        architecture: Architecture,
        mask_ratio: float = 0.6,
        mask_unit: int = 32,
        drop_path: float = 0.1,
        optim: Optim | None = None,
        **options: Any,
    ):
        check_types(SimMIMPretrainer, locals())
        optim = optim or Optim(base_lr=5e-5, betas=(0.9, 0.999), warmup_epochs=10)
        super().__init__(architecture, mask_ratio, optim, **options)
        self.mask_unit, self.drop_path = mask_unit, drop_path
        self.model: MaskedEncoder | None = None

    @property
    def restorer(self) -> MaskedEncoder:
        """The network."""
        assert self.model is not None, "configure_model comes first"
        return self.model

    def option_errors(self, encoder: Backbone) -> list[str]:
        """Squares that do not tile the image or hide all of it."""
        errors, unit = [], self.mask_unit
        (height, width), (rows, columns) = encoder.image_size, encoder.patch
        if unit < 1 or unit % rows or unit % columns or height % unit or width % unit:
            errors.append(
                f"mask_unit: {unit} px must be a multiple of the {rows}x{columns} px patch, and divide the "
                f"{height}x{width} px image"
            )
        elif 0 < self.mask_ratio < 1 and masked_count(self.units(encoder), self.mask_ratio) == self.units(encoder):
            errors.append(
                f"mask_unit: {self.mask_ratio:.0%} of {self.units(encoder)} squares of {unit} px, rounded up, is all "
                "of them; take smaller squares or a smaller mask_ratio"
            )
        return errors

    def build_on(self, encoder: Backbone) -> None:
        """Keep the encoder, with a mask token and a layer of pixels."""
        set_drop_path(encoder.vit, self.drop_path)
        self.model = MaskedEncoder(initialise(encoder, self.init, truncated))
        if self.init == "published":
            cut_normal(self.model.mask_token)

    def choose(self, noise: Tensor) -> Tensor:
        """``(B, units)`` booleans, true where a square is masked."""
        return mask_smallest(noise, self.mask_ratio)

    def loss(self, images: Tensor, masks: Tensor) -> Tensor:
        """Mean absolute error over the masked pixels and their three channels, of normalised images.

        That is the published code's sum over masked pixels, divided by their number and by 3; without its 1e-5 in the
        number.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1].
            masks: ``(B, units)`` booleans, true where a square is masked, squares by rows.
        """
        masked = self.hidden(masks)
        target = patchify(self.backbone.normalise(images), self.backbone.patch)
        error = (self.restore(images, masks) - target).abs().mean(-1)
        return (error * masked).sum() / masked.sum()

    def restore(self, images: Tensor, masks: Tensor) -> Tensor:
        """Pixels of all patches."""
        return self.restorer(images, self.hidden(masks)).float()

    def hidden(self, masks: Tensor) -> Tensor:
        """``(B, N)`` booleans, true for the patches in the squares of ``(B, units)``."""
        (height, width), (_, columns) = self.backbone.patch, self.backbone.image_size
        squares = masks.unflatten(1, (-1, columns // self.mask_unit))
        rows = squares.repeat_interleave(self.mask_unit // height, dim=1)
        return rows.repeat_interleave(self.mask_unit // width, dim=2).flatten(1)

    def units(self, encoder: Backbone) -> int:
        """Squares."""
        height, width = encoder.image_size
        return (height // self.mask_unit) * (width // self.mask_unit)

    def summary(self) -> list[tuple[str, str]]:
        """Lines on what is about to be trained: title and text."""
        encoder, units = self.backbone, self.units(self.backbone)
        squares = f"{masked_count(units, self.mask_ratio)} of {units} squares of {self.mask_unit} px"
        return [
            ("encoder", encoder.describe()),
            ("first weights", self.init),
            ("decoder", f"linear, {encoder.width} -> {self.restorer.pixels.out_features}"),
            ("masking", f"{self.mask_ratio:.0%}: {squares} are a mask token to the encoder"),
        ]
