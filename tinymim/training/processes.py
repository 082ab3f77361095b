"""Processes of one run: their ranks, one precision for all, and an end at which none breaks another's connection."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from typing_extensions import override

from tinymim.data import opened
from tinymim.errors import TinymimError


def rank() -> int:
    """Rank of this process in its run, by the environment, before there is a trainer that knows."""
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return int(os.environ[name])
    return int(os.environ.get("LOCAL_RANK", 0)) + int(os.environ.get("NODE_RANK", 0))


def started_by_lightning() -> bool:
    """Whether the launcher of another process of this run started this one."""
    outside = ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "RANK")
    return int(os.environ.get("LOCAL_RANK", 0)) > 0 and not any(name in os.environ for name in outside)


def end_with_parent() -> None:
    """End this process when the one that started it is gone, so that no rank waits for it for ever."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def check_processes(trainer: pl.Trainer, data: Any) -> None:
    """Raise where several processes, which are yet to start, would train on a data set that this one has opened: each
    would run the program again, and open one of its own."""
    if trainer.world_size > 1 and opened.is_opened(data):
        raise TinymimError(
            f"trainer.devices: {trainer.world_size} processes in all, and more than one only for a folder of images; "
            "give --trainer.devices 1 and one node, or the path of a folder"
        )


class CommonPrecision(pl.Callback):
    """Give every process the precision of the first, before a network is built.

    Each process settles ``auto`` before it can talk to the others, by a measurement on a machine that may be another
    one or a busy one, and whichever started it: torchrun, SLURM or Lightning. ``setup`` is the first hook in which
    processes can talk.
    """

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.world_size == 1:
            return
        agreed = trainer.strategy.broadcast(str(trainer.precision))
        if agreed != trainer.precision:
            connector: Any = trainer._accelerator_connector
            connector._precision_flag = agreed
            connector.precision_plugin = trainer.strategy.precision_plugin = connector._check_and_init_precision()


def connected() -> bool:
    """Whether this process is connected to others of a run."""
    return dist.is_available() and dist.is_initialized()


def wait_for_all() -> None:
    """Wait until every process of a finished run has come to its end, so that none breaks a connection in use."""
    if connected():
        with contextlib.suppress(RuntimeError):  # one that is gone already needs no waiting for
            dist.barrier()


def leave(code: int) -> None:
    """End this process at once, with ``code``, if it is one of several; what is registered for its end is run.

    An orderly end takes down the interpreter and the libraries while gloo's thread still listens, as DDP's reducer
    keeps the process group alive whether or not it is destroyed. That thread then sees the connections of whoever ended
    first break, and may abort the process (SIGABRT) although all its work is done.
    """
    if connected():
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
