"""What a recipe may say of a run beside Lightning's own ``trainer``: what to do with bad steps, and when to save."""

from __future__ import annotations

from dataclasses import dataclass
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


RUN: dict[str, Any] = {"on_nonfinite": Action, "max_rewinds": int, "checkpoint": Saving}
"""Those keys, and what they may hold."""
