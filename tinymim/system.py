"""The machine and its operating system: cores, signals that ask a process to end, their count, a disk that is full.

Needs no library, so that the command line can listen before it has imported any.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGHUP)
"""Signals that ask to end: Ctrl-C, what clusters and ``timeout`` send (submitit and Grid Engine SIGUSR2, a limit of
processor time SIGXCPU), and a closed session."""

TICKING = signal.SIGXCPU
"""The one of them that comes every second once the limit is reached: again is not a second request."""

ECHO = 0.5
"""Seconds in which a signal that follows is the first one's: a group and its launcher both forward it."""

PREEMPTED, CTRL_C = INTERRUPTED = (75, 130)
"""Exit codes of what was asked to end, and would go on: EX_TEMPFAIL, and as shells have it."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk that is full."""

FULL = (*NO_ROOM, errno.EFBIG, errno.EROFS)
"""Errors of a disk that takes no more."""


PER_CORE = 16
"""Processes for each core, beyond which they only wait, and take memory."""


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def exit_code(number: int | None) -> int:
    """Exit code of what a signal has ended."""
    return CTRL_C if number == signal.SIGINT else PREEMPTED


class EndSignals:
    """Signals that ask this process to end, counted, an echo with its first; what is ignored, as under nohup, stays so.

    Args:
        act: called at each that counts.
    """

    def __init__(self, act: Callable[[int], object]):
        self.received: signal.Signals | None = None
        self.count, self.when = 0, 0.0  # of the last, by the monotonic clock
        self._act, self._before = act, dict[signal.Signals, Any]()

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, *exception: object) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def listen(self) -> None:
        """Take the signals over from whoever has them, in the main thread."""
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in SIGNALS}
            self._before = self._before or {n: each for n, each in handlers.items() if each is not signal.SIG_IGN}
            for number in self._before:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.count and (now - self.when < ECHO or number == TICKING):
            return
        self.received, self.when, self.count = self.received or signal.Signals(number), now, self.count + 1
        self._act(number)

    @property
    def code(self) -> int:
        """Exit code of what the first has ended."""
        return exit_code(self.received)


def free_memory() -> int:
    """Bytes of memory that processes may still take, as far as the system, or the container, says."""
    try:
        match = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        match = None
    free = 1024 * int(match[1]) if match else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # no limit is ``max``
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return free
