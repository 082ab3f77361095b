"""The figures of an analysis, each 80 mm wide: networks side by side on one scale."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinymim.analysis.results import Results, Row
from tinymim.report import figures

PANEL = 36
"""Millimetres of height of a panel of dots."""

MAP = 40
"""And of a heat map."""


@dataclass(frozen=True)
class Measure:
    """A column of ``heads.csv``: its title and unit for an axis."""

    column: str
    axis: str
    uniform: str = ""
    """What one is, where 1 is uniform attention."""


DISTANCE = Measure("distance_px", "attention distance (px)")
ENTROPY = Measure("entropy_nats", "entropy (nats)")
DIVERSITY = Measure("diversity_kl", "KL to other heads (nats)")
RELATIVE = {
    DISTANCE: Measure("distance_ratio", "distance / uniform", "1 is uniform attention"),
    ENTROPY: Measure("entropy_ratio", "entropy / uniform", "1 is uniform attention"),
}
"""The measures that can be compared between patches and grids of different sizes."""


def means(rows: list[Row], column: str) -> dict[int, float]:
    """The mean over heads of each block."""
    found: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        found[row["block"]].append(row[column])
    return {block: sum(values) / len(values) for block, values in found.items()}


def of_model(results: Results, title: str) -> list[Row]:
    """The rows of ``heads.csv`` of one network."""
    return [row for row in results.heads if row["model"] == title]


def dots(results: Results, measure: Measure, stem: Path) -> bytes:
    """A dot for each head over its block, a panel for each network; the line is the mean over heads."""
    titles = results.titles
    with _panels(len(titles), PANEL, shared=True) as (figure, axes):
        for number, (title, one) in enumerate(zip(titles, axes, strict=False)):
            rows = of_model(results, title)
            look = figures.series(number)
            one.plot([row["block"] for row in rows], [row[measure.column] for row in rows], **_dot(look))
            line = means(rows, measure.column)
            one.plot(list(line), list(line.values()), color="black", linewidth=1)
            one.set_title(_short(title), color=look["color"], fontsize=7)
            figures.whole_numbers(one)
        figure.supxlabel("block", fontsize=8)
        figure.supylabel(measure.axis, fontsize=8)
        return figures.save(figure, stem)


def lines(results: Results, measures: Sequence[Measure], stem: Path) -> bytes:
    """The mean over heads of every block, all networks in one plot; a plot for each measure."""
    depths = {model["depth"] for model in results.models}
    with figures.figure(len(measures), height=52, width=figures.WIDTH, squeeze=False, sharex=True) as (figure, axes):
        for one, measure in zip(axes[:, 0], measures, strict=True):
            for number, model in enumerate(results.models):
                line = means(of_model(results, model["title"]), measure.column)
                share = 1 if len(depths) == 1 else model["depth"]
                one.plot([block / share for block in line], list(line.values()), **figures.series(number))
            one.set_ylabel(measure.axis)
            one.margins(y=0.08)
            one.set_ylim(bottom=0)
            if measure.uniform:
                one.axhline(1, color="0.4", linewidth=0.8, linestyle=":")
        if len(depths) == 1:
            figures.whole_numbers(axes[-1, 0])
        axes[-1, 0].set_xlabel("block" if len(depths) == 1 else "block / depth")
        labels = [_short(model["title"]) for model in results.models]
        figure.legend(axes[0, 0].lines[: len(labels)], labels, loc="outside upper center", ncols=2)
        return figures.save(figure, stem)


def likeness(results: Results, pairs: Sequence[tuple[str, str]], stem: Path) -> bytes:
    """CKA of every block with every block, a panel for each pair of networks, all on one scale from 0 to 1."""
    with _panels(len(pairs), MAP) as (figure, axes):
        for (a, b), one in zip(pairs, axes, strict=False):
            rows = [row for row in results.cka if (row["model_a"], row["model_b"]) == (a, b)]
            across, up, values = grid(rows, "block_b", "block_a", "cka")
            shown = _map(one, across, up, values, vmin=0, vmax=1)
            one.set_title(_short(a) if a == b else f"↑ {_short(a)}\n→ {_short(b)}", fontsize=7)
        figure.supxlabel("block", fontsize=8)
        figure.supylabel("block", fontsize=8)
        figure.colorbar(shown, ax=list(axes), label="linear CKA", aspect=30)
        return figures.save(figure, stem)


def agreement(results: Results, relation: str, stem: Path) -> bytes:
    """KL of teacher's and student's relations at every pair of blocks, a panel for each student, on one scale of
    factors; a frame marks the pair that was distilled."""
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import LogLocator

    rows = [row for row in results.relations if row["relation"] == relation]
    students = list(dict.fromkeys(row["student"] for row in rows))
    positive = [row["kl"] for row in rows if row["kl"] > 0]
    least = max(min(positive), max(positive) / 1000) if positive else 0
    scale = LogNorm(least, max(positive)) if positive else None
    with _panels(len(students), MAP) as (figure, axes):
        for student, one in zip(students, axes, strict=False):
            across, up, values = grid([row for row in rows if row["student"] == student], *PAIR, "kl")
            shown = _map(one, across, up, np.maximum(values, least), norm=scale)
            for teacher_block, student_block in distilled(results, student):
                if student_block in across and teacher_block in up:
                    corner = (across.index(student_block) - 0.5, up.index(teacher_block) - 0.5)
                    one.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=figures.COLOURS[1], linewidth=2))
            one.set_title(_short(student), fontsize=7)
        figure.supxlabel("student's block", fontsize=8)
        figure.supylabel("teacher's block", fontsize=8)
        ticks = {"ticks": LogLocator(subs=(1, 2, 5)), "format": "%g"} if scale else {}
        less = "min" if any(row["kl"] < least for row in rows) else "neither"  # all of which have the last colour
        bar = figure.colorbar(shown, ax=list(axes), label="KL (nats), log scale", aspect=30, extend=less, **ticks)
        bar.minorticks_off()
        return figures.save(figure, stem)


PAIR = ("student_block", "teacher_block")


def distilled(results: Results, student: str) -> list[tuple[int, int]]:
    """The blocks, teacher's and student's, that a student's distillation compared, if its teacher is the one here."""
    models = {model["title"]: model for model in results.models}
    one, teacher = models[student], models[results.about["teacher"]]
    taught = one["taught_by_sha256"] and one["taught_by_sha256"] == teacher["sha256"]
    return [(pair[0], pair[1]) for pair in one["distilled_blocks"]] if taught else []


def grid(rows: list[Row], across: str, up: str, value: str) -> tuple[list[int], list[int], np.ndarray]:
    """Rows as a matrix: the blocks along its columns, those along its rows, and the values; NaN where there is none."""
    columns, lines_ = (sorted({row[name] for row in rows}) for name in (across, up))
    values = np.full((len(lines_), len(columns)), math.nan)
    for row in rows:
        values[lines_.index(row[up]), columns.index(row[across])] = row[value]
    return columns, lines_, values


@contextmanager
def _panels(count: int, height: float, shared: bool = False) -> Iterator[tuple[Any, list[Any]]]:
    """A figure of ``count`` panels in two columns, and their axes; ``shared`` puts all on the same axes."""
    columns = min(count, 2)
    rows = math.ceil(count / columns)
    single = 1.5 if count == 1 else 1
    with figures.figure(rows, columns, height * single, figures.WIDTH, squeeze=False, sharex=shared, sharey=shared) as (
        figure,
        axes,
    ):
        flat = list(axes.flat)
        for spare in flat[count:]:
            spare.set_visible(False)
            flat[count - columns].tick_params(labelbottom=True)  # the panel above it is the last of its column
        yield figure, flat[:count]


def _map(axes: Any, across: list[int], up: list[int], values: np.ndarray, **scale: Any) -> Any:
    shown = axes.imshow(
        values, origin="lower", cmap=figures.SEQUENTIAL, aspect="auto", interpolation="nearest", **scale
    )
    for axis, blocks in ((axes.xaxis, across), (axes.yaxis, up)):
        step = math.ceil(len(blocks) / 6)
        axis.set_ticks(range(0, len(blocks), step), [str(block) for block in blocks[::step]])
    axes.grid(visible=False)
    return shown


def _dot(look: dict[str, Any]) -> dict[str, Any]:
    return {**look, "linestyle": "none", "markersize": 3, "alpha": 0.7}


def _short(title: str, most: int = 18) -> str:
    """As much of a title as there is room for: its beginning and its end."""
    return title if len(title) <= most else f"{title[: most // 2]}…{title[-(most // 2 - 1) :]}"
