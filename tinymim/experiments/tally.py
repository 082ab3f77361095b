"""What a command says while its tasks run: each that ends, how the others are, and how long it may still take."""

from __future__ import annotations

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
        total: tasks there are.
        figures: what to show of a finished one's record.
    """

    def __init__(self, total: int, figures: Callable[[Task, dict[str, Any]], str]):
        self.total, self.figures = total, figures
        self.done = 0
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
        left = clock(spent / self.done * (self.total - self.done))
        say(f"[{self.done}/{self.total}] {task.name}: {text or 'done'} ({clock(spent)} so far, about {left} left)")

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


def _last(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return lines[-1].strip() if lines else ""
