"""Signals to a command that is not at work on what could be saved: it ends, leaving nothing half written, and says so.

What trains, or runs many fits, takes the signals over while it does, to save first.
"""

from __future__ import annotations

import os
import signal
import sys

from typing_extensions import override

from tinymim.system import EndSignals, exit_code


class Stopping(EndSignals):
    """End the command by ``KeyboardInterrupt`` at the first signal, and at once at the second."""

    def __init__(self) -> None:
        super().__init__(self._end)
        self._process, self._complain = os.getpid(), sys.unraisablehook

    @override
    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        sys.unraisablehook = self._complain

    def _end(self, number: int) -> None:
        if self.count > 1 or os.getpid() != self._process:  # of a data worker, which ends with the command
            os._exit(self.code)
        sys.unraisablehook = lambda _: None  # what was half made, such as a loader, complains as it is taken away
        raise KeyboardInterrupt

    def last_words(self) -> tuple[str, int]:
        """The line that is said at the end, and the exit code."""
        number = self.received or signal.SIGINT
        words = f"stopped by {number.name}; nothing is left half written, and the same command runs it again"
        return words, exit_code(number)
