"""The checkpoints of a run: written whole, checked when read, the last few kept.

checkpoints/step-00000220.ckpt           after 220 optimiser steps
checkpoints/step-00000220.ckpt.sha256    of it, as ``sha256sum`` writes and checks it
checkpoints/last.ckpt                    a link to the newest
checkpoints/best.ckpt                    the best validated one
progress.json                            how far the run was when the newest was written
"""

from __future__ import annotations

import io
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from tinymim.config.options import Saving
from tinymim.errors import TinymimError
from tinymim.files import checksum_beside, sha256, write_atomically, write_json, write_text
from tinymim.log import say
from tinymim.teachers import safe_pickle
from tinymim.training.preemption import PeriodicAgreement, Preempted, Preemption, requeue
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
    """

    def __init__(self, run: Path, saving: Saving, preemption: Preemption, elapsed: Elapsed):
        self.run, self.saving, self.preemption, self.elapsed = run, saving, preemption, elapsed
        self.folder = run / "checkpoints"
        self._agreement = PeriodicAgreement()

    @override
    def on_sanity_check_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # from here on, signals wait for the end of a step
        self.preemption.listen(trainer)

    @override
    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.preemption.listen(trainer)
        self._saved = time.monotonic()

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
        return self._agreement.agree(trainer, self.preemption.request(trainer), due, now)

    def _save(self, trainer: pl.Trainer) -> None:
        path = self.folder / f"step-{trainer.global_step:08d}.ckpt"
        trainer.save_checkpoint(path)
        self._saved = time.monotonic()
        if trainer.is_global_zero:
            _link(self.folder / "last.ckpt", path)
            for old in sorted(self.folder.glob("step-*.ckpt"), key=_age)[: -self.saving.keep]:
                old.unlink()
                checksum_beside(old).unlink(missing_ok=True)
            for logger in trainer.loggers:
                logger.save()
            write_progress(self.run, "running", trainer, self.elapsed)

    def _end_if_asked(self, request: int, trainer: pl.Trainer) -> None:
        """Raise :class:`Preempted` where a signal asked this run to end."""
        if not request:
            return
        if trainer.is_global_zero:
            write_progress(self.run, "preempted", trainer, self.elapsed)
        if request > 1:
            requeue(trainer)
        signal = self.preemption.asked
        where = f"step {trainer.global_step} (epoch {trainer.current_epoch + 1})"
        again = f"tinymim resume {shlex.quote(str(self.run))}"
        saved = f"all is saved in {self.folder / 'last.ckpt'}; `{again}` goes on"
        if trainer.sanity_checking:
            saved = "no step was taken, so there was nothing to save"
        raise Preempted(f"ended by {signal.name if signal else 'another process'} at {where}; {saved}")


def write_progress(
    run: Path, state: Literal["running", "preempted", "done"], trainer: pl.Trainer, elapsed: Elapsed
) -> None:
    """Write ``progress.json``; ``epoch`` is the one the run is in, from 1, where it counts them."""
    epochs = trainer.max_epochs or 1
    counted = {"epoch": min(trainer.current_epoch + 1, epochs), "epochs": trainer.max_epochs} if epochs > 0 else {}
    content = {
        "state": state,
        **counted,
        "step": trainer.global_step,
        "steps": int(trainer.estimated_stepping_batches),
        "seconds": round(elapsed.seconds, 1),
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
    }
    write_json(run / PROGRESS, content)


def newest(run: Path) -> Path | None:
    """Newest whole checkpoint of a run, or ``None`` where there is none at all. Says which ones are damaged.

    Raises:
        TinymimError: there are some, and all of them are damaged.
    """
    folder = run / "checkpoints"
    damaged: list[str] = []
    for path in _candidates(folder):
        if not (problem := problem_of(path)):
            if damaged:
                say(f"{'; '.join(damaged)}. Going back to the one before: {path}")
            return path
        damaged.append(problem)
    if damaged:
        raise TinymimError(
            f"ckpt_path: no checkpoint in {folder} is whole: {'; '.join(damaged)}. Restore one, or start again "
            "with --overwrite true"
        )
    return None


def _candidates(folder: Path) -> Iterator[Path]:
    """Checkpoints to resume from, best first, each file once."""
    last = folder / "last.ckpt"
    if last.is_file():
        yield last
    steps = sorted(folder.glob("step-*.ckpt"), key=_age, reverse=True)
    yield from (path for path in steps if path != folder / last.resolve().name)


def _age(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name


def problem_of(path: Path) -> str | None:
    """Reason why a checkpoint cannot be resumed from, or ``None``. Its list of contents is read, no values."""
    real = path.resolve()
    recorded = checksum_beside(real)
    if recorded.is_file() and sha256(real) not in recorded.read_text(errors="replace").split():
        return f"{real} is damaged: its sha256 is not the one in {recorded.name}"
    try:  # a checksum is right of whatever it was made of
        safe_pickle.load(real, "meta")
    except TinymimError as error:
        return str(error)
    return None


def _link(link: Path, path: Path) -> None:
    """Let ``link`` name ``path``, a file beside it, from one moment to the next."""
    temporary = link.with_name(f".{link.name}.link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(path.name)
    temporary.replace(link)


class _Stream(io.FileIO):
    """A file that remembers why a write failed, which torch's writer forgets."""

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            left = memoryview(data).cast("B")
            while left:
                left = left[super().write(left) :]
        except OSError as error:
            self.failed = error
            raise
        return len(data)


class SafeCheckpointIO(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, with their checksum, and load without running code."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        # write, flush, rename; a full disk leaves the previous checkpoint as it was
        path = Path(path)
        recorded = checksum_beside(path)

        def write(temporary: Path) -> None:
            with _Stream(temporary, "wb") as stream:
                try:
                    torch.save(checkpoint, stream)
                except RuntimeError as error:
                    raise stream.failed or error from None
            line = f"{sha256(temporary)}  {path.name}\n"
            before = recorded.read_text(errors="replace") if path.is_file() and recorded.is_file() else ""
            write_text(recorded, line + before)  # until the rename, the file of that name is the one before

        try:
            write_atomically(path, write)
            lines = recorded.read_text().splitlines(keepends=True)
            if len(lines) > 1:
                write_text(recorded, lines[0])
        except (OSError, RuntimeError) as error:
            raise TinymimError(
                f"checkpoint {path} could not be written ({error}); the one before it is untouched. Make room, and go "
                "on with --ckpt_path last"
            ) from error

    @override
    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        # read weights and plain values alone, whatever ``weights_only`` says
        if not Path(path).is_file():
            raise TinymimError(f"ckpt_path: there is no checkpoint at {path}")
        try:
            content: dict[str, Any] = safe_pickle.load(Path(path), map_location)
        except TinymimError as error:
            raise TinymimError(f"ckpt_path: {error}") from None
        return content

    @override
    def remove_checkpoint(self, path: Any) -> None:
        super().remove_checkpoint(path)
        checksum_beside(Path(path)).unlink(missing_ok=True)
