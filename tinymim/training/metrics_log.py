"""Logged metrics of a run by step: the ``metrics.csv`` of its folder, and the pieces from before a resume."""

from __future__ import annotations

import csv
from pathlib import Path

NAME = "metrics.csv"

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
    """Curves over all pieces of the run; where a resumed piece logged a step again, the later value counts."""
    pieces = sorted(folder.glob("metrics-*.csv"), key=lambda path: int(path.stem.partition("-")[2]))
    values: dict[str, dict[float, float]] = {}
    for path in [*pieces, folder / NAME]:
        if not path.is_file():
            continue
        with path.open(newline="") as stream:
            for row in csv.DictReader(stream):
                for name, value in row.items():
                    if value and name not in ("epoch", "step"):
                        values.setdefault(name, {})[float(row["step"])] = float(value)
    steps = {name: sorted(by_step) for name, by_step in values.items()}
    return {name: (steps[name], [by_step[step] for step in steps[name]]) for name, by_step in values.items()}
