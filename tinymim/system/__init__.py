"""The machine and its operating system: cores, memory, and signals that ask a process to end, their count, a disk that
is full; files and processes in its modules.

All that is POSIX's alone is in this package; elsewhere something less does, which each function says. Needs no library,
so that the command line can listen before it has imported any.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

resource: Any = None
with contextlib.suppress(ImportError):  # Windows has none
    import resource  # type: ignore[no-redef]


def _signals(*names: str) -> tuple[signal.Signals, ...]:
    """Those of these signals that the system has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


SIGNALS = _signals("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGHUP", "SIGBREAK")
"""Signals that ask to end: Ctrl-C, what clusters and ``timeout`` send (submitit and Grid Engine SIGUSR2, a limit of
processor time SIGXCPU), a closed session, and Windows' closed window."""

TICKING = _signals("SIGXCPU")
"""Those of them that come every second once a limit is reached: again is not a second request."""

HANG_UP = _signals("SIGHUP")
"""Those that come because the terminal is gone."""

KILLED = -9
"""Exit code of a process that was killed, as often for a lack of memory."""

ECHO = 0.5
"""Seconds in which a signal that follows is the first one's: a group and its launcher both forward it."""

PREEMPTED, CTRL_C = INTERRUPTED = (75, 130)
"""Exit codes of what was asked to end, and would go on: EX_TEMPFAIL, and as shells have it."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk that is full."""

FULL = (*NO_ROOM, errno.EFBIG, errno.EROFS)
"""Errors of a disk that takes no more."""


UNKNOWN = 4 << 30
"""Bytes of memory that any machine to train on has free."""

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
        if self.count and (now - self.when < ECHO or number in TICKING):
            return
        self.received, self.when, self.count = self.received or signal.Signals(number), now, self.count + 1
        self._act(number)

    @property
    def code(self) -> int:
        """Exit code of what the first has ended."""
        return exit_code(self.received)


def free_memory() -> int:
    """Bytes of memory that processes may still take, as far as the system, or the container, says; :data:`UNKNOWN`
    where neither does."""
    try:
        match = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        match = None
    if match:
        free = 1024 * int(match[1])
    elif hasattr(os, "sysconf"):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        free = UNKNOWN
    with contextlib.suppress(OSError, ValueError):  # no limit is ``max``
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return free


def peak_memory() -> int:
    """Bytes that this process has had in memory at once, so far; 0 where the system does not say."""
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def start_timer(seconds: float, act: Callable[[], None] = lambda: None) -> None:
    """Have the main thread, wherever it is, call ``act`` in ``seconds``, in place of a timer before; 0 is never. Does
    nothing in another thread, and where the system has no such timers."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        return
    if seconds:
        signal.signal(signal.SIGALRM, lambda *_: act())
    signal.setitimer(signal.ITIMER_REAL, seconds)
