"""Keys of a recipe beside Lightning's own ``trainer``, ``model`` and ``data``, and the options among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

KEYS = {
    *("seed_everything", "trainer", "model", "data", "name", "run_dir", "overwrite", "compare"),
    *("on_nonfinite", "max_rewinds", "checkpoint", "corruptions"),
}
"""Keys of a recipe."""

COMMAND_KEYS = {"ckpt_path", "weights_only", "verbose", "return_predictions"}
"""Keys of a command beside its recipe."""

Action = Literal["stop", "rewind"]
"""Reaction of a run to a step that is not finite."""


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


def run_hints() -> dict[str, Any]:
    """Types of the options of a run."""
    from jsonargparse.typing import NonNegativeInt

    from tinymim.data.corruptions import Corruptions

    return {
        "seed_everything": bool | int | None,
        "run_dir": str | None,
        "overwrite": bool,
        "compare": dict | None,
        "ckpt_path": str | None,
        "weights_only": bool | None,
        "verbose": bool,
        "on_nonfinite": Action,
        "max_rewinds": NonNegativeInt,
        "checkpoint": Saving,
        "corruptions": Corruptions | None,
    }
