"""Signals to a command that is not at work on what could be saved: it ends, leaving nothing half written, and says so.

What trains, or runs many fits, takes the signals over while it does, to save first.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from tinymim.system import ECHO, SIGNALS, TICKING

CODES = {number: 130 if number == signal.SIGINT else 75 for number in SIGNALS}
"""Exit codes: of Ctrl-C, and of what a cluster, a closed session or ``timeout`` asks to end."""


class Stopping:
    """Have the first signal end the command by ``KeyboardInterrupt``, and a second one at once."""

    def __init__(self) -> None:
        self._number, self._when, self._pid = signal.SIGINT, 0.0, os.getpid()
        self._before: dict[signal.Signals, Any] = {}
        self._complain = sys.unraisablehook

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            for number in CODES:  # one that is ignored, as under nohup, stays ignored
                if (before := signal.getsignal(number)) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = before
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._complain

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a data worker, which ends with the command
            os._exit(CODES[signal.Signals(number)])
        now = time.monotonic()
        if self._when:
            if now - self._when > ECHO and number != TICKING:
                os._exit(self.code)
            return
        self._number, self._when = signal.Signals(number), now
        sys.unraisablehook = lambda _: None  # what was half made, such as a loader, complains as it is taken away
        raise KeyboardInterrupt

    @property
    def code(self) -> int:
        """The exit code."""
        return CODES[self._number]

    @property
    def words(self) -> str:
        """What is said."""
        return f"stopped by {self._number.name}; nothing is left half written, and the same command runs it again"
