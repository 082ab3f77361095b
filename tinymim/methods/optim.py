"""AdamW, its parameter groups and its schedule, the same for every module."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from tinymim.errors import TinymimError
from tinymim.log import say


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
    """

    base_lr: float = 1.5e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_epochs: float = 15
    min_lr: float = 0.0
    layer_decay: float = 1.0
    schedule: Literal["cosine", "linear"] = "cosine"
    warmup_steps: int | None = None


def total_batch(trainer: pl.Trainer) -> int:
    """Images in one optimiser step, over all processes and accumulated batches."""
    datamodule = getattr(trainer, "datamodule", None)
    per_process = getattr(datamodule, "batch_size", None)
    if per_process is None:
        raise TinymimError("data: the data module has no batch_size, and the learning rate follows the total batch")
    return per_process * trainer.world_size * trainer.accumulate_grad_batches


def configure(model: nn.Module, optim: Optim, trainer: pl.Trainer) -> dict[str, Any]:
    """Optimiser and schedule of ``model``, as ``configure_optimizers`` returns them."""
    batch = total_batch(trainer)
    lr = optim.base_lr * batch / 256
    say(f"learning rate: {optim.base_lr:g} x total batch {batch} / 256 = {lr:g}")
    steps = int(trainer.estimated_stepping_batches)
    if optim.warmup_steps is not None:
        warmup = min(optim.warmup_steps, steps)
    elif trainer.max_epochs == -1 and optim.warmup_epochs:
        raise TinymimError(
            "optim.warmup_epochs: trainer.max_epochs is -1, so the run is counted in steps; give optim.warmup_steps"
        )
    else:
        warmup = round(min(optim.warmup_epochs / max(trainer.max_epochs or 1, 1), 1.0) * steps)
    floor = optim.min_lr / lr if lr else 0.0
    optimizer = torch.optim.AdamW(
        _groups(model, optim),
        lr=lr,
        betas=optim.betas,
        fused=trainer.precision != "16-mixed",  # the fp16 gradient scaler cannot clip under a fused step
    )
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # else Lightning refuses to clip in bf16
    scales = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]
    form = _linear if optim.schedule == "linear" else _cosine
    schedule = [form(steps, warmup, floor, scale) for scale in scales]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"}}


def _groups(model: nn.Module, optim: Optim) -> Any:
    spared: set[str] = getattr(model, "no_weight_decay", set)()
    if optim.layer_decay < 1:
        return param_groups_layer_decay(model, optim.weight_decay, spared, layer_decay=optim.layer_decay)
    return param_groups_weight_decay(model, optim.weight_decay, no_weight_decay_list=spared)


def _cosine(steps: int, warmup: int, floor: float, scale: float) -> Any:
    """The factor of the learning rate at each step."""

    def factor(step: int) -> float:
        if step < warmup:
            return scale * step / warmup
        progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
        return scale * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))

    return factor


def _linear(steps: int, warmup: int, floor: float, scale: float) -> Any:
    """The factor of the learning rate at each step."""

    def factor(step: int) -> float:
        rising = min(step / warmup, 1.0) if warmup > 0 else 1.0
        return scale * rising * (floor + (1 - floor) * (1 - min(step / steps, 1.0)))

    return factor
