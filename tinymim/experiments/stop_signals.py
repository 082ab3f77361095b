"""Signals that ask a plan to stop: once is to save and end, twice is at once.

Each reaches the stage as SIGTERM, which torchrun and srun pass on; SIGUSR1 would end torchrun, and srun takes SIGINT
for a question. A stage has a session of its own: what reaches a whole process group, as Ctrl-C does, comes to it once,
by way of this process.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

from tinymim.system import ECHO, SIGNALS, TICKING
from tinymim.training.preemption import Preempted

INTERRUPTED = (Preempted.code, 130)
"""Exit codes of what was asked to end, and would go on: by a cluster, and by Ctrl-C."""

GRACE = 10.0
"""Seconds that a stage has to end once it is asked again; then it is killed, which harms no file."""


class StopSignals:
    """The signals that have come.

    Args:
        act: called at each, once it is counted.
    """

    def __init__(self, act: Callable[[], None]):
        self.count, self.code = 0, Preempted.code
        self._act, self._when = act, 0.0

    @property
    def overdue(self) -> bool:
        """Whether what was asked twice has had its time."""
        return self.count > 1 and time.monotonic() - self._when > GRACE

    def ask(self, code: int = Preempted.code) -> None:
        """Stop as at a first signal, unless one has come."""
        if not self.count:
            self.count, self.code = 1, code
        self._act()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Count signals; one that is ignored, as under nohup, stays ignored."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._receive)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.count and number == TICKING:
            return
        last, self._when = self._when, time.monotonic()
        if self.count and self._when - last < ECHO:  # make and launchers forward what the whole group has had
            return
        if not self.count and number == signal.SIGINT:
            self.code = 130
        self.count += 1
        self._act()
