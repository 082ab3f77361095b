"""What a run logged, step by step: the ``metrics.csv`` of its folder, and the pieces from before a resume."""

from __future__ import annotations

import csv
from pathlib import Path

Line = tuple[list[float], list[float]]
"""Steps, and a value at each."""

Curves = dict[str, Line]
"""Everything that was logged, by name."""


def read(place: Path) -> Curves:
    """Of all pieces of the run in ``place``; where a resumed piece logged a step again, the later value counts."""
    numbered = sorted(place.glob("metrics-*.csv"), key=lambda path: int(path.stem.partition("-")[2]))
    found: dict[str, dict[float, float]] = {}
    for path in [*numbered, place / "metrics.csv"]:
        if not path.is_file():
            continue
        with path.open(newline="") as stream:
            for row in csv.DictReader(stream):
                for name, value in row.items():
                    if value and name not in ("epoch", "step"):
                        found.setdefault(name, {})[float(row["step"])] = float(value)
    steps = {name: sorted(values) for name, values in found.items()}
    return {name: (steps[name], [values[step] for step in steps[name]]) for name, values in found.items()}
