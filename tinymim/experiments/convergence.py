"""Speed at which a row's held-out loss falls, in steps, as further columns of a question.

Two levels are asked for, since one alone misleads: a row that starts low has little to improve, and takes long over it.

- *steps to 90 %*: until 90 % of the way from the first held-out loss to the lowest is done; each row by itself.
- *steps to the common level*: until the highest of the rows' lowest losses at the same seed, which every row reaches.

Between two validations the loss is taken to fall evenly; a level that the first one shows already counts from there.
"""

from __future__ import annotations

from typing import Any

from tinymim.experiments.questions import Figure
from tinymim.training.metrics_log import Curves, Line

SHARE = 0.9
STEPS = Figure(stage="", metric="", unit="steps", better="lower")
READING = (
    "Steps until the held-out loss has done 90 % of its own way from the first validation to the lowest, and until it "
    "is at the common level: the highest of these rows' lowest losses at the same seed. Between validations it is "
    "taken to fall evenly."
)

Logged = dict[str, dict[int, dict[str, Curves]]]
"""Logged curves of finished cells, by row, seed and stage."""


def titles(curve: str) -> tuple[str, str]:
    """The two columns of the curve called so."""
    return f"{curve}: 90 %", f"{curve}: common level"


def measured(
    curves: dict[str, tuple[str, str]], rows: list[str], logged: Logged
) -> tuple[dict[str, Figure], dict[str, dict[int, dict[str, Any]]]]:
    """The columns, and records that hold them as those of cells hold theirs.

    Args:
        curves: stage and loss of each, by title.
        rows: of the question; they share the common level.
        logged: of more rows, perhaps.
    """
    figures: dict[str, Figure] = {}
    records: dict[str, dict[int, dict[str, Any]]] = {row: {} for row in rows}
    for title, (stage, loss) in curves.items():
        lines = {
            (row, seed): line
            for row in rows
            for seed, stages in logged.get(row, {}).items()
            if (line := stages.get(stage, {}).get(f"val/{loss}"))
        }
        if not lines or min(len(steps) for steps, _ in lines.values()) < 2:  # a loss seen once has no speed
            continue
        own_title, common_title = titles(title)
        figures |= {own_title: STEPS, common_title: STEPS}
        for (row, seed), line in lines.items():
            first, lowest = line[1][0], min(line[1])
            level = max(min(other) for (_, same), (_, other) in lines.items() if same == seed)
            record = records[row].setdefault(seed, {"status": "done", "figures": {}})
            record["figures"][own_title] = steps_to(line, first - SHARE * (first - lowest))
            record["figures"][common_title] = steps_to(line, level)
    return figures, records


def steps_to(line: Line, level: float) -> float:
    """The step at which a loss is first at ``level`` or below, which it reaches."""
    before: tuple[float, float] | None = None
    for step, value in zip(*line, strict=True):
        if value <= level:
            if before is None:
                return step
            return before[0] + (step - before[0]) * (before[1] - level) / (before[1] - value)
        before = step, value
    raise ValueError(f"{level} is below every value")
