"""Pre-emption: on a signal to end, or when its time is over, a run finishes the step, saves, and exits with code 75.

Signals are those with which a cluster takes its machines back (SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU), a closed session
(SIGHUP) and Ctrl-C (SIGINT, code 130). They may reach the whole process group: loading processes ignore them.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from typing_extensions import override

from tinymim.errors import TinymimError
from tinymim.log import say
from tinymim.system import HANG_UP, PREEMPTED, EndSignals, exit_code
from tinymim.system.workers import forget_children
from tinymim.training.processes import started_by_lightning

HANGING = 15
"""Seconds without a batch after which a run that was asked to end does so without its step: its loading processes may
hang, as on a network disk that is gone, and a cluster does not wait."""

LOOK = 1.0
"""Seconds between two agreements of several processes; each costs a small collective."""

MOST = 10
"""Steps between two agreements at the most, as steps may become slower than they were."""


class Preempted(TinymimError):  # noqa: N818  # not a mistake
    """The run was asked to end, and everything is saved."""

    code = PREEMPTED

    def __init__(self, message: str, received: signal.Signals | None = None):
        super().__init__(message)
        self.code = exit_code(received)


class Preemption(EndSignals):
    """Signals of this process, deferred to the end of a step.

    The first signal is noted, and acted on where nothing is half done; the second ends the process at once, which
    harms no file, as files appear by renaming alone. Before training there is nothing to save, and the first one ends
    it.
    """

    def __init__(self) -> None:
        super().__init__(self._asked)
        self.deadline = math.inf
        """When the run's time is over, by the monotonic clock."""
        self._process, self._over = os.getpid(), threading.Event()
        self._trainer: pl.Trainer | None = None

    @override
    def __exit__(self, *exception: object) -> None:
        self._trainer = None
        self._over.set()
        super().__exit__(*exception)

    @override
    def listen(self, trainer: pl.Trainer | None = None) -> None:
        # Lightning would save in the middle of a step; once the trainer trains, a signal waits for the end of one
        self._trainer = trainer
        super().listen()

    def _asked(self, number: int) -> None:
        if os.getpid() != self._process:  # a loading process that was started a moment ago
            return
        received = signal.Signals(number)
        if self.count > 1:
            # by the process that started this one, and ends it where the user means it
            if not (started_by_lightning() or "TORCHELASTIC_RUN_ID" in os.environ):
                os._exit(self.code)
            return
        if received in HANG_UP:
            _leave_terminal()
        launcher = self._trainer and self._trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(number)  # the processes that this one started
        if not self._trainer:
            raise Preempted(f"ended by {received.name}; there was nothing to save yet", received)
        threading.Thread(target=self._watch, args=(received,), daemon=True).start()

    def _watch(self, received: signal.Signals) -> None:
        """Say what happens now, and end the process where no data comes, so that no step ever ends."""
        say(f"{received.name}: the run ends after this step, and saves it; once more ends it at once")
        seconds = 0
        while not self._over.wait(1):
            seconds = seconds + 1 if _waits_for_data() else 0
            if seconds < HANGING or not (trainer := self._trainer):
                continue
            last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
            saved = f"the newest checkpoint is {last}; `{resume_command(trainer)}` goes on from it"
            saved = saved if last.exists() else "there was no checkpoint yet"
            say(f"ended by {received.name}: no data came for {HANGING} s; {saved}")
            end_workers()
            os._exit(self.code)

    def request(self, trainer: pl.Trainer) -> int:
        """0 while nothing was asked; 1, to end; 2, to end and have SLURM run the job again."""
        if self.received is None:
            return int(time.monotonic() > self.deadline)
        environment: Any = trainer._accelerator_connector.cluster_environment
        slurm = isinstance(environment, SLURMEnvironment) and environment.auto_requeue
        return 1 + (slurm and self.received == environment.requeue_signal)

    @property
    def reason(self) -> str:
        """Name of the signal or limit that ends the run."""
        if self.received:
            return self.received.name
        return "trainer.max_time" if time.monotonic() > self.deadline else "another process"


def resume_command(trainer: pl.Trainer) -> str:
    """The command that goes on with a run."""
    return f"tinymim resume {shlex.quote(str(trainer.default_root_dir))}"


def end_workers() -> None:
    """End the loading processes of this one, whatever they do, as it ends itself: they ignore the signals that a run is
    ended by, and one that hangs would be waited for."""
    forget_children()  # else PyTorch reports each as an error
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()


def _waits_for_data() -> bool:
    """Whether the main thread waits for a batch of a loading process."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame:
        if frame.f_code.co_name == "_try_get_data" and frame.f_code.co_filename.endswith("dataloader.py"):
            return True
        frame = frame.f_back
    return False


def _leave_terminal() -> None:
    """Let what is printed go nowhere: each write to a terminal that hung up is an error."""
    for stream in (1, 2):
        if os.isatty(stream):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def requeue(trainer: pl.Trainer) -> None:
    """Make SLURM run the job again, by Lightning's plugin.

    Called by all processes: its handler saves a checkpoint of its own on the way, ``hpc_ckpt_N.ckpt``, with the content
    of ours, which the next start clears away.
    """
    environment: Any = trainer._accelerator_connector.cluster_environment
    trainer._signal_connector._slurm_sigusr_handler_fn(environment.requeue_signal, None)  # type: ignore[arg-type]


class PeriodicAgreement:
    """Agreement of a run's processes, seldom enough to cost nothing: whether to end, and whether to save.

    One process decides alone. Several compare notes about every :data:`LOOK` seconds, at a count of steps that all
    of them know, as clocks and signals differ.
    """

    def __init__(self) -> None:
        self._calls, self._last, self._next, self._when = 0, 0, 0, time.monotonic()

    def agree(self, trainer: pl.Trainer, request: int, due: bool = False, now: bool = False) -> tuple[int, bool]:
        """The largest ``request`` and ``due`` of all processes, which call this alike; ``now`` compares for sure."""
        if trainer.world_size == 1:
            return request, due
        self._calls += 1
        if self._calls < self._next and not now:
            return 0, False
        clock = time.monotonic()
        pace = (clock - self._when) / (self._calls - self._last)
        wait = min(max(int(LOOK / max(pace, 1e-6)), 1), MOST)
        notes = torch.tensor([float(request), float(due), -float(wait)], device=trainer.strategy.root_device)
        dist.all_reduce(notes, op=dist.ReduceOp.MAX)
        largest, any_due, soonest = notes.tolist()
        self._last, self._when, self._next = self._calls, clock, self._calls - int(soonest)
        return int(largest), bool(any_due)
