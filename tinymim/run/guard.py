"""Stop at the first loss that is not finite, before a checkpoint can take it up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from tinymim.errors import TinymimError
from tinymim.run.folder import last_checkpoint


class NonFiniteGuard(pl.Callback):
    """Watch the loss without waiting for the device.

    The first bad step is kept on the device and looked at every ``every`` steps (every step on a CPU), and always
    before a checkpoint is written; so the last checkpoint is from before that step.

    Args:
        every: steps between looks on an accelerator.
    """

    def __init__(self, every: int = 50):
        self.every = every
        self._bad: Tensor | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *args: Any) -> None:
        """Note the step if its loss is the first that is not finite."""
        loss = outputs["loss"].detach()
        if self._bad is None:
            self._bad = torch.full((), -1, dtype=torch.long, device=loss.device)
        step = trainer.global_step
        self._bad = torch.where(~loss.isfinite() & (self._bad < 0), step, self._bad)
        if loss.device.type == "cpu" or step % self.every == 0:
            self.check(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Look before checkpoints of the epoch."""
        self.check(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look before any other checkpoint."""
        self.check(trainer)

    def check(self, trainer: pl.Trainer) -> None:
        """Raise if a step went wrong.

        Raises:
            TinymimError: with the step, the last good checkpoint, and what to try.
        """
        if self._bad is None or (step := int(self._bad)) < 0:
            return
        good = last_checkpoint(Path(trainer.default_root_dir))
        kept = f"the last good checkpoint is {good}" if good else "no checkpoint had been written yet"
        raise TinymimError(
            f"the loss is not finite at step {step} (epoch {trainer.current_epoch}); {kept}. "
            "Try a lower base_lr, a longer warm-up, --trainer.gradient_clip_val 1, or --trainer.precision 32-true"
        )
