"""The losses of a question's rows against steps, training and held out side by side: mean and band over seeds."""

from __future__ import annotations

import csv
import io
import statistics
from pathlib import Path

from tinymim.experiments.convergence import Logged
from tinymim.experiments.questions import Curve, Question
from tinymim.files import write_text
from tinymim.report import figures
from tinymim.report.document import Picture
from tinymim.safety.escaping import cell
from tinymim.training.metrics_log import Line

SETS = {"train": "training", "val": "held out"}
ABOUT = "Mean over seeds; the band is ± one standard deviation. Training images are augmented, and logged by the batch."


def draw(question: Question, curve: Curve, logged: Logged, stem: Path, beside: str) -> Picture | None:
    """Write STEM.png, STEM.svg and STEM.csv.

    Args:
        question: whose rows are drawn.
        curve: the loss.
        logged: of the rows.
        stem: of the files.
        beside: folder of the files as the page names it.

    Returns:
        The picture, or ``None`` where no row has logged the loss.
    """
    lines = {name: _lines(question, logged, curve.stage, f"{name}/{curve.loss}") for name in SETS}
    found = {name: rows for name, rows in lines.items() if rows}
    if not found:
        return None
    drawn = {name: rows for name, rows in found.items() if _is_curve(rows)} or found
    with figures.figure(columns=len(drawn), height=70, squeeze=False) as (figure, axes):
        for panel, (name, rows) in zip(axes[0], drawn.items(), strict=True):
            for number, (row, title) in enumerate(question.rows.items()):
                if row in rows:
                    steps, means, spreads = band(list(rows[row].values()))
                    style = figures.series(number)
                    panel.plot(steps, means, label=title, markevery=max(len(steps) // 6, 1), **style)
                    low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
                    panel.fill_between(steps, low, high, color=style["color"], alpha=0.15, linewidth=0)
            panel.set(title=f"{curve.title}, {SETS[name]}", xlabel="step", ylabel="loss")
            figures.whole_numbers(panel)
        handles, labels = axes[0][-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2 if len(drawn) > 1 else 1)
        svg = figures.save(figure, stem)
    write_text(stem.with_suffix(".csv"), _csv(found))
    files = [f"{beside}/{stem.name}{suffix}" for suffix in (".png", ".svg", ".csv")]
    return Picture(curve.title, svg, files, ABOUT, wide=len(drawn) > 1)


def _is_curve(rows: dict[str, dict[int, Line]]) -> bool:
    """Whether anything was measured more than once."""
    return any(len(steps) > 1 for seeds in rows.values() for steps, _ in seeds.values())


def band(lines: list[Line]) -> tuple[list[float], list[float], list[float]]:
    """Steps that all seeds have, the mean at each, and the standard deviation: 0 of one seed."""
    by_step = [dict(zip(*line, strict=True)) for line in lines]
    steps = [step for step in by_step[0] if all(step in values for values in by_step)]
    at = [[values[step] for values in by_step] for step in steps]
    return steps, [statistics.mean(v) for v in at], [statistics.stdev(v) if len(v) > 1 else 0.0 for v in at]


def _lines(question: Question, logged: Logged, stage: str, name: str) -> dict[str, dict[int, Line]]:
    """Curves that the rows logged under ``name``, by row and seed."""
    found: dict[str, dict[int, Line]] = {}
    for row in question.rows:
        for seed, stages in sorted(logged.get(row, {}).items()):
            if line := stages.get(stage, {}).get(name):
                found.setdefault(row, {})[seed] = line
    return found


def _csv(found: dict[str, dict[str, dict[int, Line]]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "seed", "set", "step", "loss"])
    for name, rows in found.items():
        for row, seeds in rows.items():
            for seed, line in seeds.items():
                writer.writerows(
                    [cell(row), seed, SETS[name], f"{step:.0f}", value] for step, value in zip(*line, strict=True)
                )
    return out.getvalue()
