"""Metrics that a recipe's callbacks watch, compared before the first step with those that are logged."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torchmetrics import Metric
from typing_extensions import override

from tinymim.errors import TinymimError
from tinymim.evaluation.knn import KNNEvaluator
from tinymim.log import say
from tinymim.near_names import near
from tinymim.training.checkpoints import BestCheckpoint
from tinymim.training.flops import sample_batch, unchanged

KNOWN = ("lightning.", "tinymim.")


class MonitoredMetrics(pl.Callback):
    """Refuse a callback that monitors what nobody logs: Lightning would say so after a whole epoch, or never.

    What a module logs is found by a training step and a validation step of two images, of which nothing stays.
    """

    @override
    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]
        watching = [c for c in callbacks if getattr(c, "monitor", None) and getattr(c, "strict", True)]
        watching = [callback for callback in watching if not isinstance(callback, BestCheckpoint)]
        if not watching:
            return
        names = _logged(trainer, module)
        if any(isinstance(callback, KNNEvaluator) for callback in callbacks):
            names.add("val/knn_top1")
        for callback in callbacks:
            if isinstance(callback, pl.callbacks.LearningRateMonitor):
                names.update(_rates(callback, trainer))
        others = [callback for callback in callbacks if not type(callback).__module__.startswith(KNOWN)]
        for callback in watching:
            metric = str(callback.monitor)
            if metric in names:
                continue
            what = f"{type(callback).__name__} monitors {metric}, which the module does not log{near(metric, names)}"
            if not others:
                raise TinymimError(f"trainer.callbacks: {what}")
            say(f"trainer.callbacks: {what}; {type(others[0]).__name__} may")


def _rates(callback: pl.callbacks.LearningRateMonitor, trainer: pl.Trainer) -> set[str]:
    """Names that it logs."""
    found, *_ = callback._find_names_from_schedulers(trainer.lr_scheduler_configs)
    names = {name for group in found for name in group}
    momenta = {f"{name}-momentum" for name in names} if callback.log_momentum else set()
    return names | momenta | ({f"{name}-weight_decay" for name in names} if callback.log_weight_decay else set())


def _logged(trainer: pl.Trainer, module: pl.LightningModule) -> set[str]:
    """Names that a training step and a validation step log."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    modes = {part: part.training for part in module.modules()}
    with unchanged(module) as names, trainer.precision_plugin.train_step_context(), torch.no_grad():
        module.training_step(sample_batch(trainer, data.train), 0)
        module.eval()
        held_out = data.held_out if data.held_out is not None else data.train
        module.validation_step(sample_batch(trainer, held_out), 0)
    for part, training in modes.items():
        part.training = training
        if isinstance(part, Metric):
            part.reset()
    return set(names)
