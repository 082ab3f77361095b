"""AdamW, its parameter groups and its schedule, the same for every module."""

from __future__ import annotations

import math
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn
from typing_extensions import override

from tinymim.argument_types import checked
from tinymim.data.sampler import step_images
from tinymim.errors import TinymimError, counted
from tinymim.log import detail, say


@checked
@dataclass
class Optim:
    """AdamW with linear warm-up and a schedule, per step. The defaults are TinyMIM's for distillation.

    Args:
        base_lr: learning rate for a total batch of 256; the one used is ``base_lr x total batch / 256``.
        weight_decay: none on biases, norms and whatever else has one dimension.
        betas: of AdamW.
        warmup_epochs: from 0 to the full rate; may be a fraction.
        min_lr: the rate it ends at.
        layer_decay: factor of the rate from each block to the one below it; 1 is none.
        schedule: half a ``cosine`` that begins after the warm-up; or ``linear``, falling from the first step on, with
            the warm-up as a factor: mmsegmentation's ``poly`` of power 1.
        warmup_steps: in place of ``warmup_epochs``.

    Raises:
        TinymimError: arguments of other types or names.
    """

    base_lr: float = 1.5e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_epochs: float = 15
    min_lr: float = 0.0
    layer_decay: float = 1.0
    schedule: Literal["cosine", "linear"] = "cosine"
    warmup_steps: int | None = None

    def errors(self) -> list[str]:
        """Values out of range."""
        least = {"base_lr": self.base_lr, "weight_decay": self.weight_decay, "min_lr": self.min_lr}
        least |= {"warmup_epochs": self.warmup_epochs, "warmup_steps": self.warmup_steps or 0}
        errors = [f"{name}: {value} is not 0 or more" for name, value in least.items() if not 0 <= value < math.inf]
        if self.base_lr == 0:
            errors.append("base_lr: 0 trains nothing")
        if not all(0 <= beta < 1 for beta in self.betas):
            errors.append(f"betas: {list(self.betas)} are not both in [0, 1)")
        if not 0 < self.layer_decay <= 1:
            errors.append(f"layer_decay: {self.layer_decay} is not above 0 and at most 1")
        return [f"optim.{error}" for error in errors]


def nominal_batch(trainer: pl.Trainer) -> int:
    """Images in one optimiser step as the recipe has them, over all processes and accumulated batches."""
    per_process = getattr(getattr(trainer, "datamodule", None), "batch_size", None) or _loader_batch(trainer)
    if per_process is None:
        raise TinymimError(
            "data: neither the data module nor the training loader has a batch_size, and the learning rate follows the "
            "total batch"
        )
    return step_images(per_process, trainer.world_size, trainer.accumulate_grad_batches)[0]


def _loader_batch(trainer: pl.Trainer) -> int | None:
    """Images in a batch of the training loader that a Trainer was given."""
    loop = getattr(trainer, "fit_loop", None)
    if loop is None:
        return None
    loop.setup_data()
    return getattr(trainer.train_dataloader, "batch_size", None)


def total_batch(trainer: pl.Trainer) -> int:
    """Images that one optimiser step really holds, over all processes and accumulated batches: no more than there are,
    or than ``trainer.limit_train_batches`` leaves of an epoch.

    Raises:
        TinymimError: the data has no ``batch_size``, or fewer images than there are processes; or the last step of an
            epoch would hold fewer than the others.
    """
    nominal, world, accumulated = nominal_batch(trainer), trainer.world_size, trainer.accumulate_grad_batches
    data = getattr(trainer, "datamodule", None)
    images = getattr(data, "train", None)
    if not isinstance(images, Sized):
        return nominal
    if len(images) < world:
        raise TinymimError(
            f"data: {counted(len(images), 'image')} to train on, and {world} processes; take no more processes"
        )
    limit = getattr(trainer, "limit_train_batches", None)
    held, batches = step_images(data.batch_size, world, accumulated, len(images), limit)  # type: ignore[union-attr]
    if batches > accumulated and batches % accumulated:
        raise TinymimError(
            f"trainer.limit_train_batches: {batches} batches of an epoch are no multiple of accumulate_grad_batches, "
            f"{accumulated}, so that its last step would be a smaller one; take {batches - batches % accumulated}"
        )
    return held


class Schedule(torch.optim.lr_scheduler.LambdaLR):
    """A schedule that goes on at the recipe's rates, also from a checkpoint that was saved under another's."""

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        rates = self.base_lrs
        super().load_state_dict({**state_dict, "base_lrs": rates})
        groups = self.optimizer.param_groups
        for group, rate, factor in zip(groups, rates, self.lr_lambdas, strict=True):
            group["initial_lr"], group["lr"] = rate, rate * factor(self.last_epoch)
        self._last_lr = [group["lr"] for group in groups]


def warmup_steps(optim: Optim, trainer: pl.Trainer) -> int:
    """Steps in which the learning rate rises to the full one; they may be more than the run has."""
    if optim.warmup_steps is not None:
        return optim.warmup_steps
    return round(optim.warmup_epochs / max(trainer.max_epochs or 1, 1) * int(trainer.estimated_stepping_batches))


def configure(model: nn.Module, optim: Optim, trainer: pl.Trainer) -> dict[str, Any]:
    """Optimiser and schedule of ``model``, as ``configure_optimizers`` returns them."""
    batch, nominal = total_batch(trainer), nominal_batch(trainer)
    lr = optim.base_lr * batch / 256
    fewer = f", not {nominal}, as there are no more images in an epoch" if batch < nominal else ""
    detail(f"learning rate: {optim.base_lr:g} x total batch {batch} / 256 = {lr:.3g}{fewer}")
    steps = int(trainer.estimated_stepping_batches)
    if optim.warmup_steps is None and trainer.max_epochs == -1 and optim.warmup_epochs:
        raise TinymimError(
            "optim.warmup_epochs: trainer.max_epochs is -1, so the run is counted in steps; give optim.warmup_steps"
        )
    warmup = min(warmup_steps(optim, trainer), steps)
    floor = optim.min_lr / lr if lr else 0.0
    if floor > 1:
        say(f"optim.min_lr: {optim.min_lr:g} is above that, so the rate rises to it; lower it, or raise optim.base_lr")
    optimizer = torch.optim.AdamW(
        _groups(model, optim),
        lr=lr,
        betas=optim.betas,
        fused=trainer.precision != "16-mixed",  # the fp16 gradient scaler cannot clip under a fused step
    )
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # else Lightning refuses to clip in bf16
    scales = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]
    schedule = [_factors(optim.schedule, steps, warmup, floor, scale) for scale in scales]
    scheduler = Schedule(optimizer, schedule)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"}}


def _groups(model: nn.Module, optim: Optim) -> Any:
    spared: set[str] = getattr(model, "no_weight_decay", set)()
    if optim.layer_decay < 1:
        return param_groups_layer_decay(model, optim.weight_decay, spared, layer_decay=optim.layer_decay)
    return param_groups_weight_decay(model, optim.weight_decay, no_weight_decay_list=spared)


def _factors(form: str, steps: int, warmup: int, floor: float, scale: float) -> Callable[[int], float]:
    """The factor of the learning rate at each step."""

    def cosine(step: int) -> float:
        if step < warmup:
            return scale * step / warmup
        progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
        return scale * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))

    def linear(step: int) -> float:
        rising = min(step / warmup, 1.0) if warmup > 0 else 1.0
        return scale * rising * (floor + (1 - floor) * (1 - min(step / steps, 1.0)))

    return linear if form == "linear" else cosine
