"""The process of one fit: a command of its own, or a fork of a server that has imported the training stack once."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any

from typing_extensions import override

from tinymim.system.workers import (
    FORKS,
    ForkServerProcess,
    block_signals,
    command_line,
    leave_group,
    processes,
    signals_blocked,
)

PRELOADED = ["tinymim.training.fit", "torch.utils.tensorboard"]
"""Modules that the server imports, of those there are; none asks CUDA for anything, or its forks could use no GPU."""

COMMAND = [sys.executable, "-m", "tinymim"]


def start(
    words: list[str],
    log: Path | None,
    threads: int,
    launch: Sequence[str] = (),
    shown: bool = False,
    gpus: Sequence[str] = (),
) -> Process:
    """Start a fit: in a worker process, or, behind a launcher, by the command that a user would give.

    Args:
        words: what follows ``tinymim``.
        log: where its output goes; ``None`` is the terminal, and all threads.
        threads: of its computation.
        launch: comes before the command.
        shown: what it says is shown too; it is a command of its own.
        gpus: that a worker is to see alone, as ``CUDA_VISIBLE_DEVICES`` names them; by default all.

    Raises:
        OSError: the launcher cannot be started.
    """
    if log:
        log.parent.mkdir(exist_ok=True)
    if log and shown:
        return Shown(words, log)
    if not launch and FORKS:
        return Fork(words, log, threads, gpus)
    environment = {**({"OMP_NUM_THREADS": str(threads)} if log else {}), **os.environ}
    environment |= {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
    with log.open("ab") if log else contextlib.nullcontext() as stream:
        return subprocess.Popen(
            [*launch, *COMMAND, *words], env=environment, start_new_session=True, stdout=stream, stderr=stream
        )


class Shown(subprocess.Popen[str]):
    """A command in a process of its own, whose standard error goes to this one's, and into a file that it has anew."""

    def __init__(self, words: list[str], log: Path):
        super().__init__([*COMMAND, *words], stderr=subprocess.PIPE, text=True, start_new_session=True)
        self._copy = threading.Thread(target=self._copied, args=(log,))
        self._copy.start()

    def _copied(self, log: Path) -> None:
        assert self.stderr is not None
        with log.open("w") as stream:
            for line in self.stderr:
                sys.stderr.write(line)
                stream.write(line)

    @override
    def poll(self) -> int | None:
        if (code := super().poll()) is not None:
            self._copy.join()  # then the file holds all that was said
        return code


class Fork(ForkServerProcess):
    """A command in a worker process, which starts at once and ends with this one; as :func:`start` says."""

    def __init__(self, words: list[str], log: Path | None, threads: int, gpus: Sequence[str] = ()):
        super().__init__(target=_work, args=(words, log, threads, gpus))
        processes(*PRELOADED)
        with signals_blocked():  # for the server, and the fit until it listens
            resource_tracker.ensure_running()
            block_signals()  # some of which that may have let in again
            self.start()

    def poll(self) -> int | None:
        """Exit code as ``Popen`` gives it."""
        return self.exitcode

    def send_signal(self, number: int) -> None:
        """Send the process a signal."""
        assert self.pid is not None
        os.kill(self.pid, number)


Process = subprocess.Popen[bytes] | Shown | Fork


def _work(words: list[str], log: Path | None, threads: int, gpus: Sequence[str] = ()) -> None:
    """In the worker: run the command, as ``python -m tinymim`` does, and end with its exit code."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    leave_group()
    threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()
    if log:
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        if "OMP_NUM_THREADS" not in os.environ:
            import torch

            torch.set_num_threads(threads)
            os.environ["OMP_NUM_THREADS"] = str(threads)  # of the fit's other processes
    if gpus:  # before anything asks CUDA for them
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    sys.argv = [sys.argv[0], *words]  # Lightning starts the fit's other processes by this process's command line
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("tinymim.__main__")
    importlib.import_module("tinymim.cli.main").command()


def _die_with(sentinel: Any) -> None:
    """End this process when the command's does, kill -9 included: nobody would know of it any more."""
    connection.wait([sentinel])
    os._exit(1)


def alive(process: dict[str, Any], place: Path) -> int | None:
    """The id of a recorded process that still runs on this host: its command line names the folder, as no other's that
    was given the same id would."""
    pid = process.get("pid")
    if not isinstance(pid, int) or process.get("host") != socket.gethostname():
        return None
    return pid if str(place) in command_line(pid) else None


def last_line(log: Path) -> str:
    """The last line of a process's log; the whole of an error that lists several mistakes."""
    text = log.read_text(errors="replace") if log.is_file() else ""  # a worker makes it once it is up
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    begun = len(lines) - 1
    while begun > 0 and lines[begun].startswith("- "):
        begun -= 1
    whole = " ".join(lines[begun:]) if lines[begun].startswith("tinymim ") else lines[-1]
    return textwrap.shorten(whole, 500, placeholder=" ...")
