"""Exact resume: a resumed run takes the very steps it would have taken, with the same images and random numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.optim import Adam, Optimizer
from typing_extensions import override

from tinymim.errors import TinymimError
from tinymim.log import say
from tinymim.methods.optim import nominal_batch, total_batch
from tinymim.seeds import begin_step, end_steps
from tinymim.teachers import safe_pickle

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""State of Adam and AdamW for each parameter, all but ``step`` in its shape."""

POSITION = "tinymim_position"
"""Key of a checkpoint: seed, epoch from 0, optimiser steps taken in it, and the total batch they count in."""


class ExactResume(pl.Callback):
    """Seed each step by its number, and go on at a checkpoint's very step, mid-epoch and before a validation included.

    A step is the same however many processes and accumulated batches share its images, so a run may be resumed with
    another number of them as long as the total batch stays.

    Args:
        seed: seed of the run; ``None`` takes the checkpoint's, or 0.
    """

    def __init__(self, seed: int | None):
        self.seed = seed

    @override
    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Refuse a checkpoint's optimiser state of other shapes, which PyTorch takes, and whose fused kernels then
        write where nothing of theirs is.

        Raises:
            TinymimError: it has such.
        """
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for optimizer in trainer.optimizers:
            for parameter, state in optimizer.state.items():
                if problem := _misshapen(optimizer, parameter, state):
                    where = names.get(id(parameter), "a parameter")
                    raise TinymimError(
                        f"ckpt_path: {trainer.ckpt_path}: the optimiser state of {where} {problem}; it is damaged, or "
                        "another module's. Name another checkpoint, or the weights alone, as model.weights takes them"
                    )

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        world, accumulated = trainer.world_size, trainer.accumulate_grad_batches
        part = batch_idx % accumulated * world + trainer.global_rank
        begin_step(self.seed or 0, trainer.global_step, part, accumulated * world, module.device)

    @override
    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        end_steps()

    @override
    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        end_steps()

    @override
    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        progress = _loops(checkpoint, "epoch_progress")["current"]
        ended = progress["processed"] == progress["started"]  # the epoch; else ``processed`` epochs came before it
        batches = 0 if ended else _loops(checkpoint, "epoch_loop.batch_progress")["current"]["ready"]
        checkpoint[POSITION] = {
            "seed": self.seed or 0,
            "epoch": progress["processed"],
            "steps": batches // trainer.accumulate_grad_batches,
            "total_batch": total_batch(trainer),
        }
        validation = _loops(checkpoint, "epoch_loop.val_loop.batch_progress")
        if trainer.validating and not validation["current"]["completed"]:
            # Lightning takes a checkpoint from before a validation for one from after it, unless a batch had begun.
            validation["total"] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}

    @override
    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if (position := checkpoint.get(POSITION)) is None:  # another program's
            return
        batch = total_batch(trainer)
        if position["total_batch"] not in (batch, nominal_batch(trainer)):  # as older checkpoints have it
            # steps and rates would not mean the same
            raise TinymimError(
                f"ckpt_path: the run had a total batch of {position['total_batch']}, and this one has {batch}; keep "
                "data.batch_size x processes x trainer.accumulate_grad_batches as it was"
            )
        if self.seed not in (None, position["seed"]):
            say(f"seed_everything: the run began with {position['seed']}, and goes on with {self.seed}")
        elif self.seed is None:
            self.seed = position["seed"]
        done = position["steps"] * trainer.accumulate_grad_batches
        progress = _loops(checkpoint, "epoch_loop.batch_progress")["current"]
        if position["steps"] and progress["ready"] != done:  # accumulated otherwise before
            between = progress["ready"] - progress["completed"]
            progress |= {"ready": done, "started": done, "processed": done, "completed": done - between}
        trainer.datamodule.begin(position["epoch"], done)  # type: ignore[attr-defined]


def check_ahead(path: Path | None, trainer: Any) -> None:
    """Check that a run is to end no earlier than a checkpoint of it, which has passed
    :func:`tinymim.training.checkpoint_files.problem_of`.

    Args:
        path: of the checkpoint; ``None`` is a run that begins.
        trainer: the recipe's options, of which ``max_epochs`` and ``max_steps`` are read.

    Raises:
        TinymimError: it is past its end.
    """
    if path is None:
        return
    checkpoint = safe_pickle.load(Path(os.path.realpath(path)), "meta")
    counts, position = _loops(checkpoint, "epoch_progress")["current"], checkpoint.get(POSITION) or {}
    epoch = position.get("epoch", counts["processed"]) + (position.get("steps", 0) > 0)
    places = {"max_epochs": ("epoch", epoch), "max_steps": ("step", checkpoint["global_step"])}
    for option, (what, reached) in places.items():
        end = trainer.get(option)
        if end is not None and 0 <= end < reached:
            raise TinymimError(f"trainer.{option}: {end}, and the run is at {what} {reached} already; give more")


def _misshapen(optimizer: Optimizer, parameter: Tensor, state: Any) -> str | None:
    """Fault in AdamW's state of a parameter, or ``None``."""
    if not state or not isinstance(optimizer, Adam):
        return None
    for key in (*MOMENTS, *({"max_exp_avg_sq"} & state.keys())):
        value = state.get(key)
        if not isinstance(value, Tensor):
            return f"has no {key}"
        wanted = () if key == "step" else tuple(parameter.shape)
        if tuple(value.shape) != wanted:
            return f"has a {key} of shape {list(value.shape)}, where {list(wanted)} belongs"
    return None


def _loops(checkpoint: dict[str, Any], name: str) -> dict[str, Any]:
    """Lightning's progress record of a loop of the fit."""
    progress: dict[str, Any] = checkpoint["loops"]["fit_loop"][name]
    return progress
