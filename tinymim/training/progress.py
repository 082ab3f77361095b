"""Progress of a run: Lightning's rich bar in a terminal, a line now and then elsewhere; and the run's clock."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from typing_extensions import override

from tinymim.methods.optim import total_batch
from tinymim.safety.console import PlainConsole

METRICS = {
    "train/loss": "loss",
    "val/knn_top1": "10-NN",
    "val/top1": "top-1",
    "val/miou": "mIoU",
    "val/map": "mAP",
}
"""Metrics that are shown, and their short names."""

LINES = 10
"""Lines that a whole fit or test prints where there is no terminal, at most."""

APART = 20.0
"""Seconds between two lines of a test, at least: a short one says nothing before its figures."""


class Elapsed(pl.Callback):
    """Seconds of training over all pieces of a resumed run, and the step of the newest validation.

    The last epoch is always validated, so that a run ends with the figures of its final weights.
    """

    def __init__(self) -> None:
        self.validated = self.first = -1
        self._before, self._start = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far, earlier pieces included."""
        return self._before + time.monotonic() - self._start

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        seconds = state_dict.get("seconds")
        self._before = float(seconds) if isinstance(seconds, int | float) else 0.0

    @override
    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # this piece may begin in the middle of the last epoch
        self.first, self._start = trainer.global_step, time.monotonic()
        self.on_train_epoch_start(trainer, module)

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs and trainer.check_val_every_n_epoch:
            trainer.check_val_every_n_epoch = 1

    @override
    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated = trainer.global_step


def progress_bar(command: str) -> ProgressBar:
    """The progress callback of ``fit``, ``validate``, ``test`` or ``predict`` for where standard error leads."""
    if PlainConsole(stderr=True).is_terminal:
        return TerminalProgress()
    return FitLines() if command == "fit" else EvaluationLines()


class TerminalProgress(RichProgressBar):
    """Lightning's rich bars, with the figures of :class:`Pace` beside them.

    Figures are read at most four times a second, as reading the loss waits for the device.
    """

    def __init__(self) -> None:
        super().__init__(
            refresh_rate=4,
            theme=RichProgressBarTheme(metrics_text_delimiter=", "),
            console_kwargs={"stderr": True},
        )
        self._figures: dict[str, str] = {}
        self._read = 0.0
        self._pace: Pace | None = None

    @override
    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._pace = Pace(trainer)
        super().on_train_start(trainer, module)

    @override
    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._pace:
            self._pace.validated(trainer)
        super().on_validation_end(trainer, module)

    @override
    def get_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        now = time.monotonic()
        if now - self._read > 0.25 and not trainer.sanity_checking:
            assert self._pace
            self._read, self._figures = now, self._pace.figures(trainer)
        return dict(self._figures)

    @override
    def _get_train_description(self, current_epoch: int) -> str:
        # from 1, as in lines and messages; a run of steps has no last epoch
        epochs = self.trainer.max_epochs or -1
        position = f"Epoch {current_epoch + 1}" + (f"/{epochs}" if epochs > 0 else "")
        return position.ljust(len(self.validation_description))


class ProgressLines(ProgressBar):
    """Lines on standard error, :data:`LINES` for the whole, from the first process alone."""

    _enabled = True

    @override
    def disable(self) -> None:
        self._enabled = False

    def is_due(self, done: int, whole: int) -> bool:
        """Whether another of :data:`LINES` equal parts of ``whole`` was just done."""
        return self._enabled and done * LINES // whole > (done - 1) * LINES // whole


class FitLines(ProgressLines):
    """A line with the figures of :class:`Pace` whenever another tenth of a fit is done."""

    _pace: Pace | None = None

    @override
    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._pace, self._printed = Pace(trainer), trainer.global_step

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        # a run of steps has no number of epochs to go by
        done, steps = trainer.global_step, int(trainer.estimated_stepping_batches)
        if trainer.max_epochs == -1 and done != self._printed and self.is_due(done, steps):
            self._printed = done
            self._print(f"step {done}/{steps}", trainer)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        done, epochs = trainer.current_epoch + 1, trainer.max_epochs or 1
        if epochs > 0 and self.is_due(done, epochs):
            self._print(f"epoch {done}/{epochs}", trainer)

    @override
    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._pace:
            self._pace.validated(trainer)

    def _print(self, position: str, trainer: pl.Trainer) -> None:
        assert self._pace
        figures = self._pace.figures(trainer)
        speed = [f"{figures.pop(name)} {name}" for name in ("images/s", "left") if name in figures]
        text = ", ".join([f"{name} {value}" for name, value in figures.items()] + speed)
        print(f"{position}: {text}", file=sys.stderr, flush=True)


class EvaluationLines(ProgressLines):
    """A line with batches done and time left where another tenth of a test or validation, all loaders, is done, and
    :data:`APART` seconds have gone by."""

    @override
    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._begin("test", trainer.num_test_batches)

    @override
    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._begin("validate", trainer.num_val_batches)

    def _begin(self, command: str, batches: list[int | float]) -> None:
        self._command, self._done, self._batches = command, 0, int(sum(batches))
        self._start = self._said = time.monotonic()

    @override
    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._done += 1
        now = time.monotonic()
        if self.is_due(self._done, self._batches) and now - self._said >= APART:
            self._said, left = now, (now - self._start) / self._done * (self._batches - self._done)
            line = f"{self._command}: batch {self._done} of {self._batches}, {clock(left)} left"
            print(line, file=sys.stderr, flush=True)

    on_validation_batch_end = on_test_batch_end


class Pace:
    """Newest figures of a fit for people, from here on: metrics, images/s, and time left for the whole run."""

    def __init__(self, trainer: pl.Trainer):
        self.start, self.first_step = time.monotonic(), trainer.global_step
        self._validated = -1

    def validated(self, trainer: pl.Trainer) -> None:
        """Note that figures of held-out images are of this epoch, from here on."""
        self._validated = trainer.current_epoch

    def figures(self, trainer: pl.Trainer) -> dict[str, str]:
        """Figures by short name, those of held-out images with the epoch they were measured in where that is over;
        reading the loss waits for the device."""
        figures = {}
        old = 0 <= self._validated < trainer.current_epoch
        for name, label in METRICS.items():
            if name in trainer.callback_metrics:
                value = float(trainer.callback_metrics[name])
                figures[label] = f"{value:.4f}" if label == "loss" else f"{value:.1%}"
                if old and name.startswith("val/"):
                    figures[label] += f" (epoch {self._validated + 1})"
        seconds, steps = time.monotonic() - self.start, trainer.global_step - self.first_step
        if steps:
            left = seconds / steps * max(int(trainer.estimated_stepping_batches) - trainer.global_step, 0)
            figures["images/s"] = f"{images_per_second(trainer, steps, seconds):.0f}"
            figures["left"] = clock(left)
        return figures


def images_per_second(trainer: pl.Trainer, steps: int, seconds: float) -> float:
    """Images of all processes in ``steps`` optimiser steps; 0 where the data is not ours, and says nothing of them."""
    known = hasattr(getattr(trainer, "datamodule", None), "batch_size")
    return total_batch(trainer) * steps / max(seconds, 1e-9) if known else 0.0


def clock(seconds: float) -> str:
    """``1:02:03``, or ``2:03`` below an hour."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
