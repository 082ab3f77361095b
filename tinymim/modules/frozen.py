"""A teacher at work: frozen, in inference mode, outside DDP, checkpoints and train mode."""

from __future__ import annotations

from typing import Literal

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from tinymim.architecture import set_drop_path
from tinymim.backbones import Backbone
from tinymim.blocks import Readings, Tap, kept_tokens

View = Literal["visible", "whole"]


class FrozenTeacher:
    """Reads a teacher's taps for a training step. It is no module on purpose: its owner neither trains, moves nor saves
    it.

    Args:
        backbone: in eval mode, without gradients.
        taps: what is read; blocks beyond the deepest are dropped.
        drop_path: stochastic depth in training steps; the paper's best is none (Table 13).
        ramp: see :func:`tinymim.architecture.set_drop_path`.
        half: hold the weights of matrix products in bfloat16, for steps under bfloat16 autocast: the same numbers as
            autocast's own casts, done once instead of in every step.
        view: what a masked step shows it: the ``visible`` patches, or the ``whole`` image, of which the kept tokens are
            then taken.
        compiled: run its blocks through ``torch.compile``.
    """

    def __init__(
        self,
        backbone: Backbone,
        taps: list[Tap],
        drop_path: float = 0.0,
        ramp: Literal["linear", "constant"] = "constant",
        half: bool = False,
        view: View = "visible",
        compiled: bool = False,
    ):
        self.backbone, self.taps, self.view = backbone, taps, view
        if drop_path:
            set_drop_path(backbone.vit, drop_path, ramp)
        backbone.vit.blocks = backbone.vit.blocks[: max(tap.block for tap in taps)]
        if half:
            for module in backbone.modules():
                if isinstance(module, (nn.Linear, nn.Conv2d)):
                    module.to(torch.bfloat16)
        if compiled:
            backbone.compile_blocks()
        self._drop_paths = [module for module in backbone.modules() if isinstance(module, DropPath)]
        self._device = torch.device("cpu")

    def read(self, images: Tensor, keep: Tensor | None = None, training: bool = False) -> Readings:
        """Its taps.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1].
            keep: ``(B, K)`` indices of the patches that a masked student sees.
            training: let its drop path, if any, act.

        Returns:
            ``(B, prefix + N, D)`` for each tap, or K patches instead of N.
        """
        if images.device != self._device:
            self.backbone.to(images.device)
            self._device = images.device
        for module in self._drop_paths:
            module.train(training)
        with torch.inference_mode():
            readings = self.backbone.read(images, self.taps, keep if self.view == "visible" else None)
        given = {tap: tokens.clone() for tap, tokens in readings.items()}  # inference tensors cannot enter autograd
        if keep is None or self.view == "visible":
            return given
        return {
            tap: kept_tokens(tokens, keep, self.backbone.prefix) if tokens.dim() == 3 else tokens
            for tap, tokens in given.items()
        }
