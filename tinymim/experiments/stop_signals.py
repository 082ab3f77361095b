"""Signals that ask a plan to stop: once is to save and end, twice is at once.

Each reaches the stage as SIGTERM, which torchrun and srun pass on; SIGUSR1 would end torchrun, and srun takes SIGINT
for a question. A stage has a session of its own: what reaches a whole process group, as Ctrl-C does, comes to it once,
by way of this process.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from tinymim.system import CTRL_C, PREEMPTED, EndSignals

GRACE = 10.0
"""Seconds that a stage has to end once it is asked again; then it is killed, which harms no file."""


class StopSignals(EndSignals):
    """The signals that have come, and a stage's end that counts as one.

    Args:
        act: called at each, once it is counted.
    """

    def __init__(self, act: Callable[[], None]):
        super().__init__(lambda number: act())
        self._stop = act

    @property
    def overdue(self) -> bool:
        """Whether what was asked twice has had its time."""
        return self.count > 1 and time.monotonic() - self.when > GRACE

    def ask(self, code: int = PREEMPTED) -> None:
        """Stop as at a first signal, unless one has come."""
        if not self.count:
            self.count, self.received = 1, signal.SIGINT if code == CTRL_C else signal.SIGTERM
        self._stop()
