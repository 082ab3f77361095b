"""Progress lines of a command that runs fits: each that ends, how far others are, and the time left."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

from tinymim.experiments.fit_processes import last_line
from tinymim.log import say
from tinymim.training.progress import clock

EVERY = 20.0
"""Seconds between two lines on how far the fits at work are."""


FEW = 12
"""Fits of a command that says of each when it begins."""


class Tally:
    """Count fits that end, of those to run."""

    def __init__(self, keys: Iterable[str]):
        self._left = list(keys)
        self._total, self._done = len(self._left), 0
        self._took: dict[str, list[float]] = {}
        self._start = self._watched = time.monotonic()
        self._said: dict[Path, str] = {}

    def began(self, key: str, place: int, of: int) -> None:
        """Say that a fit begins, the one at ``place`` of all, where there are few: of many, their ends say enough."""
        if of <= FEW:
            spent = time.monotonic() - self._start
            about = f"; about {clock(self.left(spent))} left for all" if self._took else ""
            say(f"stage {place} of {of}: {key}{about}")

    def ended(self, key: str, how: str, seconds: float = 0.0) -> None:
        """Say how a fit ended, which took so long."""
        self._done += 1
        self._left.remove(key)
        if seconds:
            self._took.setdefault(kind(key), []).append(seconds)
        spent = time.monotonic() - self._start
        about = f"about {clock(self.left(spent))} left"
        say(f"[{self._done}/{self._total}] {key}: {how} ({clock(spent)} so far, {about})")

    def left(self, spent: float) -> float:
        """Seconds that the fits left may take after ``spent``; as many run at once as did so far."""
        took = sum(seconds for each in self._took.values() for seconds in each)
        return spent / (took or max(self._done, 1)) * sum(map(self._expected, self._left))

    def longest(self, keys: list[str]) -> str:
        """The fit that is expected to take longest; the first of equals."""
        return max(keys, key=self._expected)

    def _expected(self, key: str) -> float:
        """Seconds that those of the :func:`kind` of a fit took, or where it is new a fit on average; 1 before any has
        ended."""
        took = self._took.get(kind(key)) or [seconds for each in self._took.values() for seconds in each]
        return statistics.mean(took or [1.0])

    def watch(self, logs: dict[str, Path]) -> None:
        """Say how far the fits at work are, now and then, from the last line of each one's log."""
        if time.monotonic() - self._watched < EVERY:
            return
        self._watched = time.monotonic()
        for key, log in logs.items():
            line = last_line(log)
            if line.startswith(("epoch ", "step ")) and self._said.get(log) != line:
                self._said[log] = line
                say(f"  {key}: {line}")


def kind(key: str) -> str:
    """The kind of a fit, which those of other seeds share: the name of its folder, or of the one that holds its
    seed's."""
    return next(part for part in reversed(["", *key.split("/")]) if not re.fullmatch(r"seed\d+", part))
