"""The machine and its operating system: cores, the signals that ask a process to end, a disk that takes no more.

Needs no library, so that the command line can listen before it has imported any.
"""

from __future__ import annotations

import errno
import os
import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGHUP)
"""Signals that ask to end: Ctrl-C, what clusters and ``timeout`` send (submitit and Grid Engine SIGUSR2, a limit of
processor time SIGXCPU), and a closed session."""

TICKING = signal.SIGXCPU
"""The one of them that comes every second once the limit is reached: again is not a second request."""

ECHO = 0.5
"""Seconds in which a signal that follows is the first one's: a group and its launcher both forward it."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk that is full."""

FULL = (*NO_ROOM, errno.EFBIG, errno.EROFS)
"""Errors of a disk that takes no more."""


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
