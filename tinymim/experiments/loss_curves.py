"""The losses of a question's rows against steps, training and held out side by side: mean and band over seeds."""

from __future__ import annotations

import statistics
from pathlib import Path

from tinymim.experiments.convergence import Logged
from tinymim.experiments.questions import Curve, Question
from tinymim.report import csv_files, figures
from tinymim.report.document import Picture
from tinymim.report.narrow import narrow
from tinymim.training.metrics_log import Line

SETS = {"train": "training", "val": "held out"}
SPREAD, ONE_SEED = "Mean over seeds; the band is ± one standard deviation.", "One seed."
ABOUT = "Training images are augmented, and logged by the batch."


def draw(question: Question, curve: Curve, logged: Logged, stem: Path, beside: str) -> Picture | None:
    """Write STEM.png, STEM.svg and STEM.csv of a question's rows; ``beside`` is their folder as the page names it.

    Returns:
        The picture, or ``None`` where no row has logged the loss.
    """
    lines: dict[str, dict[str, dict[int, Line]]] = {}
    for name in SETS:
        for row in question.rows:
            for seed, stages in sorted(logged.get(row, {}).items()):
                if line := stages.get(curve.stage, {}).get(f"{name}/{curve.loss}"):
                    lines.setdefault(name, {}).setdefault(row, {})[seed] = line
    if not lines:
        return None
    curves = {  # of what was measured more than once
        name: rows
        for name, rows in lines.items()
        if any(len(steps) > 1 for seeds in rows.values() for steps, _ in seeds.values())
    }
    drawn = curves or lines
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
        svg, for_phones = figures.save(figure, stem), narrow(figure)
    written = [
        {"row": row, "seed": seed, "set": SETS[name], "step": f"{step:.0f}", "loss": value}
        for name, by_row in lines.items()
        for row, seeds in by_row.items()
        for seed, line in seeds.items()
        for step, value in zip(*line, strict=True)
    ]
    csv_files.write(stem.with_suffix(".csv"), written)
    files = [f"{beside}/{stem.name}{suffix}" for suffix in (".png", ".svg", ".csv")]
    several = any(len(seeds) > 1 for by_row in drawn.values() for seeds in by_row.values())
    text = f"{SPREAD if several else ONE_SEED} {ABOUT}"
    return Picture(curve.title, svg, files, text, wide=len(drawn) > 1, narrow=for_phones)


def band(lines: list[Line]) -> tuple[list[float], list[float], list[float]]:
    """Steps that all seeds have, the mean at each, and the standard deviation: 0 of one seed."""
    by_step = [dict(zip(*line, strict=True)) for line in lines]
    steps = [step for step in by_step[0] if all(step in values for values in by_step)]
    at = [[values[step] for values in by_step] for step in steps]
    return steps, [statistics.mean(v) for v in at], [statistics.stdev(v) if len(v) > 1 else 0.0 for v in at]
