"""A run that is followed: its page is written again whenever the run has moved, until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tinymim.errors import TinymimError
from tinymim.report import runs
from tinymim.report.run_report import Seen
from tinymim.report.runs import Run
from tinymim.training import lock, metrics_log
from tinymim.training.checkpoint_files import newest
from tinymim.training.run_folder import PROGRESS

EVERY = 5
"""Seconds between two looks."""

Write = Callable[[Run, Seen, int], None]
"""Write the page of a run; the number is of seconds after which a browser reads it anew, 0 for never."""


def follow(place: Path, look: Callable[[Run], Seen], write: Write, every: float = EVERY) -> Run:
    """Keep the page of a run up to date while a command is at work on it; the last page, also that of a watch which
    ends by Ctrl-C, is one that a browser reads once.

    Args:
        place: the run's folder.
        look: looks at images, each time there is a new checkpoint.
        write: see :data:`Write`.
        every: seconds between two looks.

    Returns:
        The run as the last page has it.

    Raises:
        TinymimError: no run there.
    """
    run = runs.read(place)
    checkpoint, looked = newest(place), look(run)
    state: tuple[object, ...] = ()
    try:
        while lock.owner(place):
            if (now := _state(place)) != state:
                run = _read(place) or run
                if (latest := newest(place)) != checkpoint:
                    checkpoint, looked = latest, look(run)
                write(run, looked, max(round(every), 1))
                state = now
            time.sleep(every)
        run = _read(place) or run
        if newest(place) != checkpoint:
            looked = look(run)
    finally:
        write(run, looked, 0)
    return run


def _read(place: Path) -> Run | None:
    """The run; ``None`` while one of its files is being written."""
    try:
        return runs.read(place)
    except TinymimError:
        return None


def _state(place: Path) -> tuple[object, ...]:
    """Different once the run has moved."""
    files = [place / name for name in (metrics_log.NAME, PROGRESS, "results.json")]
    return (newest(place), *(file.stat().st_mtime_ns if file.is_file() else None for file in files))
