"""Steps between two logged training values, of a recipe that leaves them open: a short run has its curve too."""

from __future__ import annotations

import lightning.pytorch as pl
from typing_extensions import override

MOST, VALUES = 50, 100
"""Lightning's own interval, and the values of a run that is too short for it."""


def fitted(steps: int) -> int:
    """The interval for a run of so many ``steps``: up to :data:`MOST`, so that there are :data:`VALUES` at least, or
    one a step."""
    return min(MOST, max(1, steps // VALUES))


class LogInterval(pl.Callback):
    """Log the training values of a fit as often as its length wants, where its recipe names no interval.

    Args:
        named: ``trainer.log_every_n_steps`` of the recipe, which is kept.
    """

    def __init__(self, named: int | None):
        self.named = named

    @override
    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.named is None:
            trainer.log_every_n_steps = fitted(int(trainer.estimated_stepping_batches))  # type: ignore[attr-defined]
