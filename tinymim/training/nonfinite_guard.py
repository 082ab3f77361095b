"""Guard against steps whose loss or gradients are not finite: capture them, then stop, or rewind and skip them."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from tinymim.config.options import Action
from tinymim.errors import TinymimError, first_few
from tinymim.files import write_json
from tinymim.training.captured_step import Step, finite_each, nonfinite, tensors
from tinymim.training.checkpoint_files import newest

FOLDER = "nonfinite"
BEHIND = 2
"""Steps between a verdict and reading it on a GPU: enough that the device is hardly ever waited for, few enough that
the batches held meanwhile are no burden."""


class Rewind(TinymimError):  # noqa: N818  # a request more than an error
    """The run must start again from ``checkpoint``, or from where it began where there is none yet.

    The step to pass over is on record in the run folder, so whoever starts it again need not be told.
    """

    def __init__(self, message: str, checkpoint: Path | None):
        super().__init__(message)
        self.checkpoint = checkpoint


@dataclass
class Verdict:
    """Verdict on a step: ``flags`` of bad loss and bad gradients of all processes; which gradients are ``finite``."""

    step: Step
    flags: Tensor
    names: list[str]
    finite: Tensor
    ready: torch.cuda.Event | None = None


class NonFiniteGuard(pl.Callback):
    """Watch loss and gradients, and keep every step that is not finite out of the weights.

    On a CPU the verdict is read before the optimiser steps. On a GPU that would make the host wait at every step, so
    there the fused optimiser gets it as a flag on the device, ``found_inf``, which makes this step and all later ones
    do nothing, and the host reads it two steps later. Either way parameters and optimiser are those from before the
    bad step when it is captured. An optimiser that does not know the flag is waited for. Processes agree: verdicts are
    reduced over all of them, and all read the same one at the same step.

    With fp16's gradient scaler the loss alone is judged: gradients that overflow are the scaler's way of finding its
    scale, and it skips those steps itself.

    Args:
        action: ``stop``, or ``rewind``: start again from the last good checkpoint (:class:`Rewind`) and pass over the
            bad step. Order and augmentation repeat, so without passing over it the fault would come back.
        rewinds: how many in a run, resumed pieces included; the next fault stops it.
        write: ``False`` captures nothing and always stops.
        behind: steps between a verdict and reading it; ``None`` chooses by device.
    """

    def __init__(self, action: Action = "stop", rewinds: int = 3, write: bool = True, behind: int | None = None):
        self.action, self.rewinds, self.write, self.behind = action, rewinds, write, behind
        self.skipped: list[dict[str, Any]] = []
        self._step: Step | None = None
        self._unread: deque[Verdict] = deque()
        self._found_inf: Tensor | None = None

    @override
    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # read which steps to pass over, and note what to watch
        record = Path(trainer.default_root_dir) / FOLDER / "skipped.json"
        self.skipped = _skipped(record) if self.write and record.is_file() else []
        stored = module.state_dict().keys()
        self._buffers = [name for name, _ in module.named_buffers() if name in stored]
        self._parameters = dict(module.named_parameters())
        if trainer.ckpt_path and (broken := nonfinite(module.named_parameters())):
            what = f"{trainer.ckpt_path} holds weights that are not finite ({first_few(broken)})"
            raise TinymimError(
                f"ckpt_path: {what}: it is damaged, or the training that wrote it had diverged; name one of before"
            )

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if self._step is None:
            self._step = Step.begin(trainer, module, self._buffers)
        self._step.add(batch_idx, batch)

    @override
    def on_before_backward(self, trainer: pl.Trainer, module: pl.LightningModule, loss: Tensor) -> None:
        if self._step is not None:
            self._step.losses.append(loss.detach())

    @override
    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Optimizer) -> None:
        # judge the step before gradients are clipped and weights change
        step, self._step = self._step, None
        if step is None:  # another optimiser of the same batch
            return
        if any(step.number == entry["step"] for entry in self.skipped):
            step.restore_buffers(module)
            optimizer.zero_grad(set_to_none=True)  # optimisers pass over parameters without a gradient
            return
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        watched = {} if scaled else {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
        finite = finite_each(list(watched.values()), module.device)
        losses = torch.stack([loss.isfinite().all() for loss in step.losses]) if step.losses else finite[:0]
        flags = torch.stack([losses.all(), finite.all()]).logical_not().float()
        if trainer.world_size > 1:
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        verdict = Verdict(step, flags, list(watched), finite)
        late = self._late(module.device, optimizer, scaled)
        if late:
            worst = flags.amax()
            self._found_inf = worst if self._found_inf is None else torch.maximum(self._found_inf, worst)
            optimizer.found_inf = self._found_inf  # type: ignore[attr-defined]
        if flags.device.type == "cuda":
            verdict.flags = flags.to("cpu", non_blocking=True)  # into pinned memory: the host goes on
            verdict.ready = torch.cuda.Event()
            verdict.ready.record()
        self._unread.append(verdict)
        self._read(trainer, module, late)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # read all verdicts before checkpoints of the epoch
        self._read(trainer, module, 0)

    @override
    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        # read all verdicts before any other checkpoint, and let no weights into one that an update broke
        self._read(trainer, module, 0)
        if broken := nonfinite(module.named_parameters()):
            step = trainer.global_step
            self._end(
                trainer, step, trainer.current_epoch, f"weights are not finite after step {step} ({first_few(broken)})"
            )

    def _late(self, device: torch.device, optimizer: Optimizer, scaled: bool) -> int:
        """Steps between a verdict and reading it."""
        if scaled or not all(group.get("fused") for group in optimizer.param_groups):
            return 0
        if self.behind is not None:
            return self.behind
        return BEHIND if device.type == "cuda" else 0

    def _read(self, trainer: pl.Trainer, module: pl.LightningModule, late: int) -> None:
        """Read the verdicts that are at least ``late`` steps old, and raise at the first bad one."""
        while len(self._unread) > late:
            verdict = self._unread.popleft()
            if verdict.ready is not None:
                verdict.ready.synchronize()
            loss, gradients = (bool(flag) for flag in verdict.flags.tolist())
            if loss or gradients:
                self._unread.clear()
                self._fault(trainer, module, verdict, loss)

    def _fault(self, trainer: pl.Trainer, module: pl.LightningModule, verdict: Verdict, loss: bool) -> None:
        """Capture the step, and raise."""
        step, number = verdict.step, verdict.step.number
        gradients = [name for name, good in zip(verdict.names, verdict.finite.tolist(), strict=True) if not good]
        weights = nonfinite(module.named_parameters())
        here = any(not bool(value.isfinite().all()) for value in step.losses)
        state = trainer.strategy.lightning_module_state_dict()  # by all processes, which sharded weights need
        advice, folder = "", Path(trainer.default_root_dir) / FOLDER
        if self.write and loss and not here:
            advice = f"The process whose loss it was has the step in {folder}. "
        elif self.write:
            suffix = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
            path = folder / f"step_{number}{suffix}.pt"
            step.write(path, trainer, module, state, {"loss": here, "gradients": gradients, "weights": weights})
            advice = f"The step is in {path}: `tinymim replay {path}` shows where it breaks. "
        what = f"the loss is not finite at step {number}"
        if not loss:
            what = f"the loss is finite, but the gradients of {first_few(gradients)} are not finite at step {number}"
        if weights:
            number -= 1
            advice += f"The weights were not finite before it: the update of step {number} broke them. "
        elif bad := nonfinite(pair for _, batch in step.batches for pair in tensors(batch, "batch")):
            advice += f"The batch itself is not finite ({first_few(bad)}): look at the data first. "
        self._end(trainer, number, step.epoch, what, advice)

    def _end(self, trainer: pl.Trainer, step: int, epoch: int, what: str, advice: str = "") -> None:
        """Raise :class:`Rewind`, or what stops the run.

        Raises:
            TinymimError: with the step, the last good checkpoint, and what to try.
        """
        run = Path(trainer.default_root_dir)
        good = newest(run)
        what += f" (epoch {epoch + 1})"
        if self.action == "rewind" and self.write and len(self.skipped) < self.rewinds:
            self.skipped.append({"step": step, "why": what})
            if trainer.is_global_zero:
                write_json(run / FOLDER / "skipped.json", self.skipped)
            trainer.strategy.barrier("skipped.json is written before anyone reads it")
            back = f"Going back to {good}" if good else "Starting again, as there is no checkpoint yet"
            count = f"rewind {len(self.skipped)} of {self.rewinds}"
            raise Rewind(f"{what}. {advice}{back}, to pass over step {step}; {count}", good)
        kept = f"the last good checkpoint is {good}" if good else "no checkpoint had been written yet"
        after = f", after {len(self.skipped)} rewinds" if self.skipped else ""
        rewind = "; --on_nonfinite rewind goes back and passes over such a step" if self.action == "stop" else ""
        raise TinymimError(
            f"{what}{after}; {kept}. {advice}Try a lower base_lr, a longer warm-up, --trainer.gradient_clip_val 1, "
            f"or --trainer.precision 32-true{rewind}"
        )


def _skipped(record: Path) -> list[dict[str, Any]]:
    """Steps to pass over, as a rewind wrote them."""
    try:
        steps = json.loads(record.read_text())
        return [{"step": int(entry["step"]), "why": str(entry["why"])} for entry in steps]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TinymimError(
            f"{record} cannot be read ({error}); it lists steps to pass over. Restore it, or move it away to try them"
        ) from None
