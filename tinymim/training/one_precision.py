"""All processes of a run compute in the precision of the first."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl


class OnePrecision(pl.Callback):
    """Give every process the first one's precision, before a network is built.

    Each process settles ``auto`` before it can talk to the others, by a measurement on a machine that may be another
    one or a busy one, and whichever started it: torchrun, SLURM or Lightning.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """The first hook in which processes can talk."""
        if trainer.world_size == 1:
            return
        agreed = trainer.strategy.broadcast(str(trainer.precision))
        if agreed != trainer.precision:
            connector: Any = trainer._accelerator_connector
            connector._precision_flag = agreed
            connector.precision_plugin = trainer.strategy.precision_plugin = connector._check_and_init_precision()
