"""Logged metrics of a run by step: the ``metrics.csv`` of its folder, and the pieces from before a resume."""

from __future__ import annotations

import csv
import math
from pathlib import Path

NAME = "metrics.csv"

MOST_BYTES, MOST_COLUMNS = 64 << 20, 500
"""Limits of a log: 400,000 lines of all that a step logs."""

LAST_STEP, LARGEST = 2**53, 1e39
"""Limits of a step, and of a value that is no infinity: float32 has none beyond."""

Line = tuple[list[float], list[float]]
"""Steps, and a value at each."""

Curves = dict[str, Line]
"""Everything that was logged, by name."""


def set_aside(folder: Path) -> None:
    """Rename the log of the piece that is over to ``metrics-N.csv``: the logger of a resumed run would start it
    afresh."""
    if (log := folder / NAME).is_file():
        pieces = len(list(folder.glob("metrics-*.csv")))
        log.rename(folder / f"metrics-{pieces + 1}.csv")


def read(folder: Path) -> Curves:
    """Curves over all pieces of the run; where a resumed piece logged a step again, the later value counts.

    Raises:
        ValueError, KeyError, TypeError, csv.Error: a piece is no such log, or one of more than is taken.
    """
    pieces = sorted(folder.glob("metrics-*.csv"), key=lambda path: int(path.stem.partition("-")[2]))
    values: dict[str, dict[float, float]] = {}
    for path in [*pieces, folder / NAME]:
        if not path.is_file():
            continue
        if (size := path.stat().st_size) > MOST_BYTES:
            raise ValueError(f"{path.name} has {size:,} bytes, and {MOST_BYTES:,} are taken")
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            if len(columns := rows.fieldnames or ()) > MOST_COLUMNS:
                raise ValueError(f"{path.name} has {len(columns):,} columns, and {MOST_COLUMNS} are taken")
            for row in rows:
                if None in row:
                    raise ValueError(f"{path.name}: a line has more cells than there are columns")
                step = None
                for name, value in row.items():
                    if value and name not in ("epoch", "step"):
                        step = _step(row["step"]) if step is None else step
                        values.setdefault(name, {})[step] = _value(value)
    steps = {name: sorted(by_step) for name, by_step in values.items()}
    return {name: (steps[name], [by_step[step] for step in steps[name]]) for name, by_step in values.items()}


def _step(cell: str) -> float:
    step = float(cell)
    if not 0 <= step <= LAST_STEP:
        raise ValueError(f"step {cell} is no number from 0 to {LAST_STEP:,}")
    return step


def _value(cell: str) -> float:
    value = float(cell)
    return math.copysign(math.inf, value) if abs(value) > LARGEST else value
