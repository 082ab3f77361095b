"""What a command says while its tasks run: each that ends, how the others are, and how long it may still take."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinymim.experiments.workers import Task
from tinymim.log import say
from tinymim.training.progress import clock

EVERY = 20.0
"""Seconds between two lines on a task at work."""


class Tally:
    """Count tasks that end.

    Args:
        tasks: all there are.
        figures: what to show of a finished one's record.
    """

    def __init__(self, tasks: list[Task], figures: Callable[[Task, dict[str, Any]], str]):
        self.total, self.figures = len(tasks), figures
        self.done = 0
        self._left = list(tasks)
        self._took: dict[str, list[float]] = {}
        self.failures: list[str] = []
        self._start = self._told = time.monotonic()
        self._said: dict[Path, str] = {}

    def finished(self, task: Task, record: dict[str, Any]) -> None:
        """Say how a task ended."""
        self.done += 1
        text = self.figures(task, record)
        if record["status"] != "done":
            self.failures.append(f"{task.name}: {record['error']}")
            text = f"FAILED: {record['error']}"
        spent = time.monotonic() - self._start
        self._left.remove(task)
        if seconds := record.get("seconds"):
            self._took.setdefault(kind(task), []).append(seconds)
        about = f"about {clock(self.left(spent))} left"
        say(f"[{self.done}/{self.total}] {task.name}: {text or 'done'} ({clock(spent)} so far, {about})")

    def left(self, spent: float) -> float:
        """Seconds that the tasks left may take after ``spent``: one takes what those of its :func:`kind` took, and of a
        kind that is new what a task took on average; as many run at once as did so far."""
        took = [seconds for each in self._took.values() for seconds in each]
        if not took:
            return spent / max(self.done, 1) * len(self._left)
        average = statistics.mean(took)
        ahead = sum(statistics.mean(self._took.get(kind(task), [average])) for task in self._left)
        return spent * ahead / sum(took)

    def watch(self, running: list[Task]) -> None:
        """Say how far the tasks at work are, now and then, from the last line of their logs."""
        if time.monotonic() - self._told < EVERY:
            return
        self._told = time.monotonic()
        for task in running:
            line = _last(task.place / "log.txt")
            if line.startswith(("epoch ", "step ")) and self._said.get(task.place) != line:
                self._said[task.place] = line
                say(f"  {task.name}: {line}")


def kind(task: Task) -> str:
    """What tasks of other seeds have in common with this: the name of its folder, or of the one that holds its
    seed's."""
    return task.place.parent.name if re.fullmatch(r"seed\d+", task.place.name) else task.place.name


def _last(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return lines[-1].strip() if lines else ""
