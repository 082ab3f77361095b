"""The machine and its operating system: cores, the signals that ask a process to end, a disk that takes no more.

Needs no library, so that the command line can listen before it has imported any.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
from pathlib import Path

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Signals that ask to end: Ctrl-C, what clusters and ``timeout`` send, and a closed session."""

ECHO = 0.5
"""Seconds in which a signal that follows is the first one's: a group and its launcher both forward it."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk that is full."""

FULL = (*NO_ROOM, errno.EFBIG, errno.EROFS)
"""Errors of a disk that takes no more."""


PER_CORE = 16
"""Processes for each core, beyond which they only wait, and take memory."""


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
