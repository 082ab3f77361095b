"""What a recipe may say of a run beside Lightning's own ``trainer``: what to do with bad steps, and when to save."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Action = Literal["stop", "rewind"]


@dataclass
class Saving:
    """When checkpoints are written, beside the ends of epochs, and how many are kept.

    Args:
        every_steps: optimiser steps; ``None`` is not by steps.
        every_minutes: of training; ``None`` is not by time.
        keep: the newest so many; from 2 on there is one to fall back on.
    """

    every_steps: int | None = None
    every_minutes: float | None = 10.0
    keep: int = 2

    def problems(self) -> list[str]:
        """Values out of range."""
        least = {"every_steps": (self.every_steps, 1), "every_minutes": (self.every_minutes, 0), "keep": (self.keep, 1)}
        return [
            f"checkpoint.{name}: {value} is not {low} or more"
            for name, (value, low) in least.items()
            if value is not None and value < low
        ]


@dataclass
class Corruptions:
    """What `tinymim test` does to the held-out images, beside showing them as they are.

    Args:
        names: of the corruptions in ``tinymim/data/corruptions.py``; ``None`` is all of them.
        severities: from 1 to 5.
        baseline: a fine-tuned checkpoint whose errors the classifier's are divided by.
    """

    names: list[str] | None = None
    severities: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    baseline: str | None = None

    def problems(self) -> list[str]:
        """Names and severities that there are not."""
        from tinymim.data.corruptions import CORRUPTIONS, SEVERITIES

        known: dict[str, tuple[list[Any] | None, list[Any]]] = {
            "names": (self.names, list(CORRUPTIONS)),
            "severities": (self.severities, list(SEVERITIES)),
        }
        return [
            f"corruptions.{field}: {value} is not a list of some of {', '.join(map(str, choices))}"
            for field, (value, choices) in known.items()
            if value is not None and (not value or not set(value) <= set(choices))
        ]


RUN: dict[str, Any] = {
    "on_nonfinite": Action,
    "max_rewinds": int,
    "checkpoint": Saving,
    "corruptions": Corruptions | None,
}
"""Those keys, and what they may hold."""
