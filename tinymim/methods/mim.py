"""Masked image modelling: what MAE (``mae.py``) and SimMIM (``simmim.py``) have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from tinymim.argument_types import check_types
from tinymim.methods.base import Errors, Method
from tinymim.methods.masking import fixed_noise
from tinymim.methods.optim import Optim
from tinymim.seeds import shared_rand
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.initialise import Init


class MaskedPretrainer(Method):
    """Base: pre-train a ViT to restore what is masked of images. Subclasses choose masks, build what restores, and
    give the loss.

    Args:
        architecture: the encoder.
        mask_ratio: share masked, in (0, 1).
        optim: the optimiser.
        mask_seeds: fixed masks of each image in an evaluation, whose losses are averaged.
        train_loss: evaluate images of the bank too, see :class:`Method`.
        init: first weights of all that is trained: the ``published`` ones or ``timm``'s, see
            ``tinymim/vit/initialise.py``.
    """

    def __init__(
        self,
        architecture: Architecture,
        mask_ratio: float,
        optim: Optim,
        mask_seeds: int = 1,
        train_loss: bool = False,
        init: Init = "published",
    ):
        check_types(MaskedPretrainer, locals())
        super().__init__()
        self.architecture, self.mask_ratio, self.optim = architecture, mask_ratio, optim
        self.mask_seeds, self.train_loss, self.init = mask_seeds, train_loss, init

    @abstractmethod
    def build_on(self, encoder: Backbone) -> None:
        """Keep the encoder, build what restores images with it, and give both their first weights."""

    @abstractmethod
    def units(self, encoder: Backbone) -> int:
        """Parts of an image of which each is masked or not."""

    @abstractmethod
    def choose(self, noise: Tensor) -> Tensor:
        """Masks of images, as :meth:`loss` takes them, from ``(B, units)`` random numbers."""

    def random_masks(self, images: Tensor) -> Tensor:
        """Fresh masks for a training batch."""
        return self.choose(shared_rand(len(images), self.units(self.backbone), device=images.device))

    def fixed_masks(self, index: Tensor, seed: int = 0) -> Tensor:
        """Masks on this module's device that are a function of ``seed`` and each image's ``(B,)`` index."""
        return self.choose(fixed_noise(index, self.units(self.backbone), seed)).to(self.device)

    @abstractmethod
    def loss(self, images: Tensor, masks: Tensor) -> Tensor:
        """A scalar, of ``(B, 3, H, W)`` images in [0, 1]."""

    @abstractmethod
    def restore(self, images: Tensor, masks: Tensor) -> Tensor:
        """Images restored from masked ones: ``(B, N, patch² x 3)`` pixels of all patches of the normalised
        images, as :func:`tinymim.methods.mae_decoder.patchify` has them."""

    @abstractmethod
    def hidden(self, masks: Tensor) -> Tensor:
        """``(B, N)`` booleans, true where the network does not see a patch."""

    def option_errors(self, encoder: Backbone) -> list[str]:
        """Options that do not fit ``encoder``, of which sizes are enough."""
        return []

    def build(self, image_size: int | None, data: Any, errors: Errors) -> None:
        """Build the encoder and what trains with it."""
        errors.unless(0 < self.mask_ratio < 1, f"mask_ratio: {self.mask_ratio} is not between 0 and 1")
        errors.unless(self.mask_seeds >= 1, f"mask_seeds: {self.mask_seeds} is not 1 or more")
        encoder = None
        with errors.of("architecture: "):
            encoder = Backbone(self.architecture)
        if encoder is None:
            return
        wrong = self.option_errors(encoder)
        if not encoder.plain:
            wrong.append(
                f"architecture.arch: {self.architecture.arch} can teach or be taught, but is not pre-trained here; use "
                "one of timm's plain vit_* or deit_* models"
            )
        errors += wrong
        size = encoder.image_size[0]
        if image_size not in (None, size):
            errors.append(
                f"architecture.options.img_size: {size}, but data.image_size is {image_size}; make them equal"
            )
        if not wrong:  # a network of such sizes can be built, whatever else is wrong
            self.build_on(encoder)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One step's loss, under fresh random masks."""
        images = batch["image"]
        return self.log_training({"loss": self.loss(images, self.random_masks(images))}, len(images))

    def evaluate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The loss under masks that are a function of the image's index, so that runs can be compared: the mean over
        the seeds of masks, and where there are several each one's, ``loss_mask0`` and on."""
        images, index = batch["image"], batch["index"]
        losses = [self.loss(images, self.fixed_masks(index, seed)) for seed in range(self.mask_seeds)]
        each = {f"loss_mask{seed}": loss for seed, loss in enumerate(losses)} if len(losses) > 1 else {}
        return {"loss": torch.stack(losses).mean(), **each}
