"""Errors of the libraries that stand for a user's mistake, reworded in one sentence of ours."""

from __future__ import annotations

import os
import re
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler

import tinymim
from tinymim.errors import TinymimError, misfit
from tinymim.log import hush
from tinymim.methods.checkpoint_record import OTHER_RUN
from tinymim.system import FULL, NO_ROOM
from tinymim.training.processes import rank

LOST = re.compile(r"(Connection (closed|reset) by|Broken pipe|\[.*gloo|NCCL|Watchdog caught|Timed out waiting)", re.I)
"""PyTorch's collectives, when another process is gone."""

WORKER = re.compile(r"DataLoader worker \(pid.*(killed by signal|exited unexpectedly)")
"""PyTorch's loader, when one of its processes is gone."""

ABSENT = re.compile(r"No supported (gpu) backend found|`(\w+)Accelerator` can not run on your system")
"""Lightning's words on a kind of device that is not here."""

UNMADE = re.compile(r"Problem with given class_path '([^']+)':\s*(.+?)\s*(?:- Expected|Given value|$)", re.DOTALL)
"""jsonargparse's words on a class that it could not make, among those on all that it tried."""

PACKAGE = Path(tinymim.__file__).parent
LIBRARIES = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))
DRIVERS = ("training/fit.py", "training/messages.py", "cli/")
"""Files that only hand a recipe to Lightning."""

SWITCH = "TINYMIM_TRACEBACK"
"""Variable that shows where an error came from, if it is set."""


@contextmanager
def readable_errors() -> Iterator[None]:
    """Hide expected warnings, and raise a :class:`TinymimError` where a library's error is a user's to mend.

    That is what it says of files, checkpoints and processes; and all that Lightning and parts for it raise, as long as
    no code of the project's or of the user's is at work in it.
    """
    hush()
    try:
        yield
    except TinymimError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and isinstance(error.__context__, TinymimError):
            raise error.__context__ from None  # loggers, at the end, could not write either
        message = _message(error)
        if message is None or os.environ.get(SWITCH):
            raise
        raise TinymimError(message) from None


def _message(error: Exception) -> str | None:
    """The sentence for an error, or ``None`` where its traceback is what helps."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in FULL:
        where = f" ({error.filename})" if error.filename else ""
        reason = "the disk is full" if error.errno in NO_ROOM else str(error.strerror)
        return f"{reason}{where}; checkpoints are untouched. Make room, and go on with --ckpt_path last"
    if isinstance(error, ValueError) and "parameter group" in text:
        return (
            f"ckpt_path: the checkpoint's optimizer does not fit this recipe: {misfit(error)}; {OTHER_RUN}; or start "
            "from the weights alone"
        )
    if isinstance(error, RuntimeError) and "Error(s) in loading state_dict" in text:
        return f"ckpt_path: the checkpoint does not fit this recipe: {misfit(error)}; {OTHER_RUN}"
    if isinstance(error, RuntimeError) and WORKER.search(text):
        return (
            f"data.num_workers: a loading process has ended ({text.splitlines()[0].strip()}), perhaps for its memory; "
            "fewer of them take less. --ckpt_path last goes on from the newest checkpoint"
        )
    if isinstance(error, RuntimeError) and LOST.search(text):
        return (
            f"rank {rank()}: another rank died; its error may be printed above ({text.strip().splitlines()[0][:200]}). "
            "--ckpt_path last goes on from the newest checkpoint"
        )
    if absent := ABSENT.search(text):
        wanted = (absent[1] or absent[2]).lower()
        return f"trainer.accelerator: {wanted}, but this machine has none that PyTorch can use; give cpu or auto"
    if UNMADE.search(text):
        return unmade(error)
    if "Original Traceback" in text or not _of_libraries_alone(error):
        return None
    if "Traceback (most recent call last)" in text:  # of a process that was started
        text = text.strip().splitlines()[-1]
    words = " ".join(text.split())[:500] or type(error).__name__
    return f"{_part(error)}{words} ({type(error).__name__}; {SWITCH}=1 shows where)"


def unmade(error: Exception) -> str:
    """The sentence for an error of a class that a recipe names, without the values that it was given."""
    words = str(error).strip()
    if problem := UNMADE.search(words):
        return f"{problem[1].rpartition('.')[2]}: {' '.join(problem[2].split())}"
    lines = [line.strip(" -") for line in words.splitlines() if not re.match(r"\W*(Given value|Expected|Sub)", line)]
    return lines[-1] if lines else type(error).__name__


def _of_libraries_alone(error: Exception) -> bool:
    """Whether Lightning raised an error itself, or no code but that of libraries was at work, beside the project's that
    starts them."""
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    if Path(pl.__file__).parents[1] in files[-1].parents:
        return True
    for file in files:
        if PACKAGE in file.parents:
            if not file.relative_to(PACKAGE).as_posix().startswith(DRIVERS):
                return False
        elif file.is_absolute() and not any(place in file.parents for place in LIBRARIES):
            return False
    return True


def _part(error: Exception) -> str:
    """The option of the recipe whose part raised an error."""
    options = {"callbacks": pl.Callback, "logger": Logger, "profiler": Profiler}
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        owner = frame.f_locals.get("self")
        for option, base in options.items():
            if isinstance(owner, base):
                return f"trainer.{option}: {type(owner).__name__}: "
    return ""
