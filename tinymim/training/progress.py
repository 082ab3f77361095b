"""The progress of a fit: a rich bar in a terminal, a line now and then elsewhere; and the time it took."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, Progress, TextColumn

from tinymim.safety.console import PlainConsole


class Elapsed(pl.Callback):
    """Seconds of training over all pieces of a resumed run, and the step of the newest validation.

    The last epoch is always validated, so that a run ends with the figures of its final weights.
    """

    def __init__(self) -> None:
        self.validated = self.first = -1
        self._before, self._start = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """So far, earlier pieces included."""
        return self._before + time.monotonic() - self._start

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self._before = state_dict["seconds"]

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock of this piece, which may begin in the middle of the last epoch."""
        self.first, self._start = trainer.global_step, time.monotonic()
        self.on_train_epoch_start(trainer, module)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Have the last epoch validated."""
        if trainer.current_epoch + 1 == trainer.max_epochs and trainer.check_val_every_n_epoch:
            trainer.check_val_every_n_epoch = 1

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Note the step."""
        if not trainer.sanity_checking:
            self.validated = trainer.global_step


class Bar(ProgressBar):
    """Base of the progress bars: a rich one in a terminal, lines elsewhere.

    Args:
        lines: how many lines the whole prints where there is no terminal.
    """

    def __init__(self, lines: int = 10):
        super().__init__()
        self.lines = lines
        self.console = PlainConsole(stderr=True)
        self._enabled = True
        self._bar: Progress | None = None

    def disable(self) -> None:
        """Lightning silences all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Undo :meth:`disable`."""
        self._enabled = True

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self.close()

    def due(self, done: int, whole: int) -> bool:
        """Whether a line is to be printed now that ``done`` of ``whole`` are done, without a terminal."""
        reached = done * self.lines // whole > (done - 1) * self.lines // whole
        return self._enabled and self._bar is None and reached

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class FitProgress(Bar):
    """Epoch, loss, newest metric, images/s and time left for the whole run."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock and the bar."""
        self._start, self._first = time.monotonic(), trainer.global_step
        self._told = trainer.global_step
        self._reported = self._start
        if self._enabled and self.console.is_terminal:
            columns = (TextColumn("epoch {task.fields[epoch]}"), BarColumn(10), TextColumn("{task.percentage:>3.0f}%"))
            self._bar = Progress(*columns, TextColumn("{task.fields[text]}", markup=False), console=self.console)
            self._task = self._bar.add_task("fit", total=self._steps(trainer), epoch="", text="")
            self._bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        """Move the bar, at most four times a second: reading the loss waits for the device."""
        now = time.monotonic()
        if self._bar is not None and now - self._reported > 0.25:
            self._reported = now
            epoch = f"{trainer.current_epoch + 1}/{self._epochs(trainer)}"
            self._bar.update(self._task, completed=trainer.global_step, epoch=epoch, text=self._text(trainer))
        done, whole = trainer.global_step, self._steps(trainer)
        if trainer.max_epochs == -1 and done != self._told and self.due(done, whole):
            self._told = done
            print(f"step {done}/{whole}: {self._text(trainer)}", file=sys.stderr, flush=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Without a terminal, print a line when a tenth of the run is done."""
        done, epochs = trainer.current_epoch + 1, trainer.max_epochs or 1
        if epochs > 0 and self.due(done, epochs):
            print(f"epoch {done}/{epochs}: {self._text(trainer)}", file=sys.stderr, flush=True)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Leave the full bar."""
        if self._bar is not None:
            epoch = f"{trainer.current_epoch}/{self._epochs(trainer)}"
            self._bar.update(self._task, completed=trainer.global_step, epoch=epoch, text=self._text(trainer))
            self.close()

    def _epochs(self, trainer: pl.Trainer) -> str:
        return "any" if trainer.max_epochs == -1 else str(trainer.max_epochs)

    def _steps(self, trainer: pl.Trainer) -> int:
        return int(trainer.estimated_stepping_batches)

    def _text(self, trainer: pl.Trainer) -> str:
        seconds, done = time.monotonic() - self._start, trainer.global_step - self._first
        parts = []
        for name, label in (
            ("train/loss", "loss"),
            ("val/knn_top1", "10-NN"),
            ("val/top1", "top-1"),
            ("val/miou", "mIoU"),
            ("val/map", "mAP"),
        ):
            if name in trainer.callback_metrics:
                value = float(trainer.callback_metrics[name])
                parts.append(f"{label} {value:.4f}" if label == "loss" else f"{label} {value:.1%}")
        if done:
            left = seconds / done * max(self._steps(trainer) - trainer.global_step, 0)
            parts += [f"{images_per_second(trainer, done, seconds):.0f} images/s", f"{clock(left)} left"]
        return ", ".join(parts)


def images_per_second(trainer: pl.Trainer, steps: int, seconds: float) -> float:
    """Images of all processes in ``steps`` optimiser steps."""
    batch = getattr(getattr(trainer, "datamodule", None), "batch_size", 0)
    return batch * trainer.world_size * trainer.accumulate_grad_batches * steps / max(seconds, 1e-9)


def clock(seconds: float) -> str:
    """``1:02:03``, or ``2:03`` below an hour."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
