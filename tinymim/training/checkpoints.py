"""The checkpoints of a run: written whole, checked when read, the last few kept.

checkpoints/step-00000220.ckpt           after 220 optimiser steps
checkpoints/step-00000220.ckpt.sha256    of it, as ``sha256sum`` writes and checks it
checkpoints/last.ckpt                    a link to the newest
checkpoints/best.ckpt                    the best validated one
progress.json                            how far the run was when the newest was written
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from typing_extensions import override

from tinymim.config.options import Saving
from tinymim.errors import TinymimError
from tinymim.files import checksum_beside, write_json
from tinymim.system import disk
from tinymim.training import lock
from tinymim.training.checkpoint_files import age
from tinymim.training.preemption import PeriodicAgreement, Preempted, Preemption, requeue, resume_command
from tinymim.training.progress import Elapsed
from tinymim.training.run_folder import PROGRESS


class Checkpoints(Checkpoint):
    """Write the checkpoints that a run resumes from, and end a run that is asked to end.

    Checkpoints are written between two optimiser steps, before an epoch is validated, and at its end; a resumed run
    goes on from each as if it had never stopped.

    Args:
        run: the run folder.
        saving: when, and how many are kept.
        preemption: whether this process was asked to end.
        elapsed: the run's clock.
        seconds: ``trainer.max_time``, from here on: then the run ends as on a signal, and can be gone on with.
    """

    def __init__(
        self, run: Path, saving: Saving, preemption: Preemption, elapsed: Elapsed, seconds: float | None = None
    ):
        self.run, self.saving, self.preemption, self.elapsed = run, saving, preemption, elapsed
        self.seconds = seconds
        self.folder = run / "checkpoints"
        self._agreement = PeriodicAgreement()
        self._begun = -1  # the step this process began at

    @override
    def on_sanity_check_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # from here on, signals wait for the end of a step
        self.preemption.listen(trainer)

    @override
    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.preemption.listen(trainer)
        self._saved, self._begun = time.monotonic(), trainer.global_step
        if self.seconds is not None:
            self.preemption.deadline = self._saved + self.seconds

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # the last step of an epoch is left to what follows it: validation, or the end
        done = batch_idx + 1
        if done % trainer.accumulate_grad_batches or done >= trainer.num_training_batches:
            return
        steps = self.saving.every_steps
        request, due = self._agree(trainer, self._is_overdue())
        if request or due or (steps and trainer.global_step % steps == 0):
            self._save(trainer)
        self._end_if_asked(request, trainer)

    @override
    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # save before a validation, which may take longer than a cluster waits
        common = torch.tensor([float(n) for n in trainer.num_val_batches], device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(common, op=torch.distributed.ReduceOp.MIN)
        self._common = common.tolist()
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._save(trainer)

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # the resumed run starts the validation again
        if batch_idx < self._common[dataloader_idx]:  # batches that all processes have
            self._end_if_asked(self._agree(trainer)[0], trainer)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # save at the end of an epoch, which closes the records of the last one; where steps are counted and epochs may
        # be short, only where it is due
        last = trainer.current_epoch + 1 == trainer.max_epochs or trainer.global_step == trainer.max_steps
        if trainer.max_epochs != -1 or last:
            self._save(trainer)
        if last:
            return
        request, due = self._agree(trainer, self._is_overdue(), now=True)
        if trainer.max_epochs == -1 and (request or due):
            self._save(trainer)
        self._end_if_asked(request, trainer)

    def _is_overdue(self) -> bool:
        """Whether the newest checkpoint is older than ``every_minutes``."""
        minutes = self.saving.every_minutes
        return minutes is not None and time.monotonic() - self._saved >= 60 * minutes

    def _agree(self, trainer: pl.Trainer, due: bool = False, now: bool = False) -> tuple[int, bool]:
        request = self.preemption.request(trainer)
        if self.preemption.received is None and trainer.global_step == self._begun:
            request = 0  # a time that is shorter than a validation would end there again and again
        return self._agreement.agree(trainer, request, due, now)

    def _save(self, trainer: pl.Trainer) -> None:
        path = self.folder / f"step-{trainer.global_step:08d}.ckpt"
        self._check_place(trainer)
        trainer.save_checkpoint(path)
        self._saved = time.monotonic()
        if trainer.is_global_zero:
            _link(self.folder / "last.ckpt", path)
            for old in sorted(self.folder.glob("step-*.ckpt"), key=age)[: -self.saving.keep]:
                old.unlink()
                checksum_beside(old).unlink(missing_ok=True)
            for logger in trainer.loggers:
                logger.save()
            write_progress(self.run, "running", trainer, self.elapsed)

    def _check_place(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero and not lock.is_held(self.run):
            raise TinymimError(
                f"run_dir: {self.run} was removed or renamed while the run wrote into it; `tinymim resume FOLDER` goes "
                "on with what was saved, where it is now"
            ) from None

    @override
    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Say so where a logger is the first that finds the run folder gone."""
        if isinstance(exception, OSError):
            self._check_place(trainer)

    def _end_if_asked(self, request: int, trainer: pl.Trainer) -> None:
        """Raise :class:`Preempted` where a signal asked this run to end."""
        if not request:
            return
        if trainer.is_global_zero:
            write_progress(self.run, "preempted", trainer, self.elapsed)
        if request > 1:
            requeue(trainer)
        where = f"step {trainer.global_step} (epoch {trainer.current_epoch + 1})"
        saved = f"all is saved in {self.folder / 'last.ckpt'}; `{resume_command(trainer)}` goes on"
        if trainer.sanity_checking:
            saved = "no step was taken, so there was nothing to save"
        raise Preempted(f"ended by {self.preemption.reason} at {where}; {saved}", self.preemption.received)


def total_steps(trainer: pl.Trainer) -> int:
    """Steps of the whole run. To be asked before a later validation, which takes the training images away: the trainer
    would then begin to load them anew, in processes that nobody ends."""
    return int(trainer.estimated_stepping_batches)


def write_progress(
    run: Path,
    state: Literal["running", "preempted", "done"],
    trainer: pl.Trainer,
    elapsed: Elapsed,
    steps: int | None = None,
) -> None:
    """Write ``progress.json``; ``epoch`` is the one the run is in, from 1, where it counts them, and ``steps`` the
    :func:`total_steps`."""
    epochs = trainer.max_epochs or 1
    counted = {"epoch": min(trainer.current_epoch + 1, epochs), "epochs": trainer.max_epochs} if epochs > 0 else {}
    content = {
        "state": state,
        **counted,
        "step": trainer.global_step,
        "steps": total_steps(trainer) if steps is None else steps,
        "seconds": round(elapsed.seconds, 1),
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
    }
    write_json(run / PROGRESS, content)


class BestCheckpoint(ModelCheckpoint):
    """The best validated checkpoint, with a state of its own: a recipe may have a ``ModelCheckpoint`` beside it."""

    @property
    def _legacy_state_key(self) -> Any:  # under which Lightning looks next: the one in older checkpoints
        return self.state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)


def _link(link: Path, path: Path) -> None:
    """Let ``link`` name ``path``, a file beside it, from one moment to the next."""
    if link.is_dir() and not link.is_symlink():
        raise TinymimError(f"checkpoints: {link} is a folder, where a link to the newest belongs; move it away")
    temporary = link.with_name(f".{link.name}.link")
    temporary.unlink(missing_ok=True)
    disk.link(temporary, path.name)
    temporary.replace(link)
