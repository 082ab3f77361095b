"""Signals to a command that is not at work on what could be saved: it ends, leaving nothing half written, and says so.

What trains, or runs many fits, takes the signals over while it does, to save first.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from typing_extensions import override

from tinymim.system import EndSignals, exit_code


class Stopping(EndSignals):
    """End the command by ``KeyboardInterrupt`` at the first signal, and at once at the second, or while it imports.

    Libraries swallow what is raised within an import, or leave a module half made for the next one to trip over; and
    what only imports writes nothing.

    Args:
        name: of the command, which its last line begins with.
    """

    def __init__(self, name: str) -> None:
        super().__init__(self._end)
        self._name = name
        self._process, self._complain = os.getpid(), sys.unraisablehook

    @override
    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        sys.unraisablehook = self._complain

    def _end(self, number: int) -> None:
        if self.count > 1 or os.getpid() != self._process:  # of a data worker, which ends with the command
            os._exit(self.code)
        if _importing():
            if os.environ.get("LOCAL_RANK", "0") == "0":  # whoever writes a line just now may hold the stream
                os.write(2, f"tinymim {self._name}: {self.last_words()[0]}\n".encode())
            os._exit(self.code)
        sys.unraisablehook = lambda _: None  # what was half made, such as a loader, complains as it is taken away
        raise KeyboardInterrupt

    def last_words(self) -> tuple[str, int]:
        """The line that is said at the end, and the exit code."""
        number = self.received or signal.SIGINT
        words = f"stopped by {number.name}; nothing is left half written, and the same command runs it again"
        return words, exit_code(number)


def _importing() -> bool:
    """Whether an import is under way in this thread."""
    frame: FrameType | None = sys._getframe()
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
