"""The progress of a test or validation over all its loaders: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning.pytorch as pl
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tinymim.training.progress import Bar, clock


class EvaluationProgress(Bar):
    """Batches done of those of all loaders, and time left."""

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begin."""
        self._begin("test", trainer.num_test_batches)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begin."""
        self._begin("validate", trainer.num_val_batches)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """One more batch."""
        self._advance()

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """One more batch."""
        self._advance()

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Leave the bar."""
        self.close()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Leave the bar."""
        self.close()

    def _begin(self, name: str, batches: list[int | float]) -> None:
        self._name, self._done, self._all, self._start = name, 0, int(sum(batches)), time.monotonic()
        if self._enabled and self.console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self.console)
            self._task = self._bar.add_task(name, total=self._all)
            self._bar.start()

    def _advance(self) -> None:
        """Move the bar; without a terminal, print a line when another tenth is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)
        elif self.due(self._done, self._all):
            left = (time.monotonic() - self._start) / self._done * (self._all - self._done)
            words = f"{self._name}: batch {self._done} of {self._all}, {clock(left)} left"
            print(words, file=sys.stderr, flush=True)
