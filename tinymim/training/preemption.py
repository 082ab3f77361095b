"""Pre-emption: on SIGTERM and SIGUSR1, with which a cluster takes its machines back, save and exit with code 75."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from tinymim.errors import TinymimError

ASKED = (signal.SIGTERM, signal.SIGUSR1)
ECHO = 0.5
"""Seconds in which a repeated signal is ignored: a process group and its launcher both forward it."""

LOOK = 1.0
"""Seconds between two agreements of several processes; each costs a small collective."""

MOST = 10
"""Steps between two agreements at the most, as steps may become slower than they were."""


class Preempted(TinymimError):  # noqa: N818  # not a mistake
    """The run was asked to end, and everything is saved."""

    code = 75  # EX_TEMPFAIL: try again later


class Preemption:
    """Signals of this process, deferred to the end of a step.

    The first signal is noted, and acted on where nothing is half done; the second ends the process at once, which
    harms no file, as files appear by renaming alone. Before training there is nothing to save, and the first one ends
    it.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._when = 0.0
        self._deferring = False
        self._trainer: pl.Trainer | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Preemption:
        self._before = {number: signal.getsignal(number) for number in ASKED}
        self.listen()
        return self

    def __exit__(self, *exception: object) -> None:
        self._trainer = None
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def listen(self, trainer: pl.Trainer | None = None) -> None:
        """Take the signals over from whoever has them; Lightning would save in the middle of a step.

        Args:
            trainer: once it trains; a signal then waits for the end of a step.
        """
        self._deferring, self._trainer = trainer is not None, trainer
        if threading.current_thread() is threading.main_thread():
            for number in ASKED:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked is not None:
            if now - self._when > ECHO:
                os._exit(Preempted.code)
            return
        self.asked, self._when = signal.Signals(number), now
        launcher = self._trainer and self._trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(number)  # the processes that this one started
        if not self._deferring:
            raise Preempted(f"ended by {self.asked.name}; there was nothing to save yet")

    def request(self, trainer: pl.Trainer) -> int:
        """0 while nothing was asked; 1, to end; 2, to end and have SLURM run the job again."""
        if self.asked is None:
            return 0
        environment: Any = trainer._accelerator_connector.cluster_environment
        slurm = isinstance(environment, SLURMEnvironment) and environment.auto_requeue
        return 1 + (slurm and self.asked == environment.requeue_signal)


def requeue(trainer: pl.Trainer) -> None:
    """Make SLURM run the job again, by Lightning's plugin.

    Called by all processes: its handler saves a checkpoint of its own on the way, ``hpc_ckpt_N.ckpt``, with the content
    of ours, which the next start clears away.
    """
    trainer._signal_connector._slurm_sigusr_handler_fn(signal.SIGUSR1, None)  # type: ignore[arg-type]


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
