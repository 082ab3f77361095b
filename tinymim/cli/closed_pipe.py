"""Output whose reader has seen enough, as of ``tinymim recipes | head -1``: nothing more is said, and no error."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO


class UntilClosed:
    """A stream that goes on into nothing once its reader is gone; the command ends with an exit code of its own.

    Args:
        stream: of text, over a file descriptor; all but writing is its own.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, if anybody reads; return the number of characters."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._leave()
            return len(text)

    def flush(self) -> None:
        """Flush, if anybody reads."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._leave()

    def _leave(self) -> None:
        """Lead the descriptor into nothing: what lies in the buffer, and what libraries and children write, too."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)


def until_closed() -> None:
    """Let both streams of this process end in silence."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is not None:  # as under pythonw
            setattr(sys, name, UntilClosed(stream))
