"""Processes as the operating system has them: how they are started, what they hear, and which one runs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from multiprocessing import context
from pathlib import Path
from typing import Any

from tinymim.system import SIGNALS

FORKS = hasattr(context, "ForkServerProcess")
"""Whether a server can fork processes; elsewhere each imports everything itself."""

ForkServerProcess: Any = getattr(context, "ForkServerProcess", object)


def processes(*preloaded: str) -> Any:
    """The ``multiprocessing`` context that starts processes which share nothing, with those modules imported once where
    that can be."""
    made = multiprocessing.get_context("forkserver" if FORKS else "spawn")
    made.set_forkserver_preload([*preloaded])
    return made


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Let :data:`SIGNALS` wait, for this process and those it starts meanwhile, which let them in themselves."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def block_signals() -> None:
    """Let :data:`SIGNALS` wait from now on."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def leave_group() -> None:
    """In a worker: make a session of its own, and hear what is sent to it from now on, and what was so far."""
    if hasattr(os, "setsid"):
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def forget_children() -> None:
    """Let no handler tell of children that end."""
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def command_line(pid: int) -> str:
    """Command line of a process; empty where there is none, or where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="surrogateescape")
    except OSError:
        if Path("/proc/self").exists() or not (ps := shutil.which("ps")):
            return ""
    return subprocess.run([ps, "-o", "command=", "-p", str(pid)], capture_output=True, text=True).stdout
