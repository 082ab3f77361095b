"""The figures of an analysis, each 80 mm wide: networks side by side on one scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandas import DataFrame

from tinymim.analysis.results import AnalysisResults
from tinymim.report import figures, hover
from tinymim.report.document import Picture

PANEL = 36
"""Millimetres of height of a panel of dots."""

MAP = 40
"""Millimetres of height of a heat map."""


@dataclass(frozen=True)
class Measure:
    """A column of ``heads.csv`` and its title and unit for an axis; 1 of a ``relative`` one is uniform attention."""

    column: str
    axis: str
    relative: bool = False


DISTANCE = Measure("distance_px", "attention distance (px)")
ENTROPY = Measure("entropy_nats", "entropy (nats)")
DIVERSITY = Measure("diversity_kl", "KL to other heads (nats)")
RELATIVE = {
    DISTANCE: Measure("distance_ratio", "distance / uniform", relative=True),
    ENTROPY: Measure("entropy_ratio", "entropy / uniform", relative=True),
}
"""The measures that can be compared between patches and grids of different sizes."""


def dots(results: AnalysisResults, measure: Measure, stem: Path) -> Picture:
    """A dot for each head over its block, a panel for each network; the line is the mean over heads."""
    titles = results.titles
    with _panels(len(titles), PANEL, shared=True) as (figure, panels):
        for number, (title, panel) in enumerate(zip(titles, panels, strict=False)):
            heads = results.heads_of(title)
            style = figures.series(number)
            dot = {**style, "linestyle": "none", "markersize": 3, "alpha": 0.7}
            panel.plot(heads["block"], heads[measure.column], **dot)
            means = heads.groupby("block")[measure.column].mean()
            panel.plot(means.index, means, color="black", linewidth=1)
            panel.set_title(_short(title), color=style["color"], fontsize=7)
            figures.whole_numbers(panel)
        figure.supxlabel("block", fontsize=8)
        figure.supylabel(measure.axis, fontsize=8)
        text = "One dot a head, block by block; the line is their mean."
        return Picture.saved(figure, stem, "Every head", text)


def lines(results: AnalysisResults, measures: Sequence[Measure], stem: Path) -> Picture:
    """The mean over heads of every block, all networks in one plot; a plot for each measure."""
    same_depth = len({model["depth"] for model in results.models}) == 1
    with figures.figure(len(measures), height=52, width=figures.WIDTH, squeeze=False, sharex=True) as (figure, axes):
        for panel, measure in zip(axes[:, 0], measures, strict=True):
            for number, model in enumerate(results.models):
                means = results.heads_of(model["title"]).groupby("block")[measure.column].mean()
                panel.plot(means.index / (1 if same_depth else model["depth"]), means, **figures.series(number))
            panel.set_ylabel(measure.axis)
            panel.margins(y=0.08)
            panel.set_ylim(bottom=0)
            if measure.relative:
                panel.axhline(1, color="0.4", linewidth=0.8, linestyle=":")
        if same_depth:
            figures.whole_numbers(axes[-1, 0])
        axes[-1, 0].set_xlabel("block" if same_depth else "block / depth")
        labels = [_short(title) for title in results.titles]
        figure.legend(axes[0, 0].lines[: len(labels)], labels, loc="outside upper center", ncols=2)
        text = "Mean over the heads of each block."
        if len(measures) > 1:
            text += " Below, in proportion to uniform attention, as patches or their numbers differ."
        return Picture.saved(figure, stem, "All models", text)


def likeness(results: AnalysisResults, pairs: Sequence[tuple[str, str]], stem: Path) -> Picture:
    """CKA of every block with every block, a panel for each pair of networks, all on one scale from 0 to 1."""
    rows = results.cka
    with _panels(len(pairs), MAP) as (figure, panels):
        for (a, b), panel in zip(pairs, panels, strict=False):
            pair = rows[(rows["model_a"] == a) & (rows["model_b"] == b)]
            image = _heat_map(panel, pair.pivot(index="block_a", columns="block_b", values="cka"), vmin=0, vmax=1)
            panel.set_title(_short(a) if a == b else f"↑ {_short(a)}\n→ {_short(b)}", fontsize=7)
        figure.supxlabel("block", fontsize=8)
        figure.supylabel("block", fontsize=8)
        figure.colorbar(image, ax=list(panels), label="linear CKA", aspect=30)
        if all(a == b for a, b in pairs):
            return Picture.saved(figure, stem, "Within each model", "Every block with every block.")
        text = "The blocks of one model up (↑), those of the other across (→)."
        return Picture.saved(figure, stem, "Between models", text)


def agreement(results: AnalysisResults, relation: str, stem: Path) -> Picture:
    """KL of teacher's and student's relations at every pair of blocks, a panel for each student, on one scale of
    factors; a frame marks the pair that was distilled."""
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import LogLocator

    rows = results.relations[results.relations["relation"] == relation]
    students = list(rows["student"].unique())
    positive = rows["kl"][rows["kl"] > 0]
    # three decades of colours; a pair that is nearer has the last one, which the bar's label says
    least = max(positive.min(), positive.max() / 1000) if len(positive) else 0
    scale = LogNorm(least, positive.max()) if len(positive) else None
    with _panels(len(students), MAP) as (figure, panels):
        for student, panel in zip(students, panels, strict=False):
            kl = rows[rows["student"] == student].pivot(index="teacher_block", columns="student_block", values="kl")
            image = _heat_map(panel, kl.clip(lower=least), norm=scale)
            for teacher_block, student_block in results.distilled_blocks(student):
                if teacher_block in kl.index and student_block in kl.columns:
                    corner = kl.columns.get_loc(student_block) - 0.5, kl.index.get_loc(teacher_block) - 0.5
                    frame = Rectangle(corner, 1, 1, fill=False, edgecolor=figures.COLOURS[1], linewidth=2)
                    panel.add_patch(frame)
            panel.set_title(_short(student), fontsize=7)
        figure.supxlabel("student's block", fontsize=8)
        figure.supylabel("teacher's block", fontsize=8)
        ticks = {"ticks": LogLocator(subs=(1, 2, 5)), "format": "%g"} if scale else {}
        below = bool((rows["kl"] < least).any())
        label = "KL (nats), log scale" + (f"; dark: {least:.1g} or less" if below else "")
        extend = "min" if below else "neither"
        bar = figure.colorbar(image, ax=list(panels), label=label, aspect=30, extend=extend, **ticks)
        bar.minorticks_off()
        framed = any(results.distilled_blocks(student) for student in students)
        text = "Dark is near." + (" A frame marks the pair of blocks that was distilled." if framed else "")
        return Picture.saved(figure, stem, f"{relation}: KL from the teacher, {results.about['teacher']}", text)


@contextmanager
def _panels(count: int, height: float, shared: bool = False) -> Iterator[tuple[Any, list[Any]]]:
    """A figure of ``count`` panels in two columns, and their axes; ``shared`` puts all on the same axes."""
    columns = min(count, 2)
    rows, height = math.ceil(count / columns), height * (1.5 if count == 1 else 1)
    options = {"squeeze": False, "sharex": shared, "sharey": shared}
    with figures.figure(rows, columns, height, figures.WIDTH, **options) as (figure, axes):
        flat = list(axes.flat)
        for spare in flat[count:]:
            spare.set_visible(False)
            flat[count - columns].tick_params(labelbottom=True)  # the panel above it is the last of its column
        yield figure, flat[:count]


def _heat_map(axes: Any, values: DataFrame, **scale: Any) -> Any:
    image = axes.imshow(
        values, origin="lower", cmap=figures.SEQUENTIAL, aspect="auto", interpolation="nearest", **scale
    )
    for axis, blocks in ((axes.xaxis, values.columns), (axes.yaxis, values.index)):
        step = math.ceil(len(blocks) / 6)
        axis.set_ticks(range(0, len(blocks), step), [str(block) for block in blocks[::step]])
    axes.grid(visible=False)
    across, up = ([str(block) for block in blocks] for blocks in (values.columns, values.index))
    hover.told(axes, lambda place: across[round(place)], lambda place: up[round(place)])
    return image


def _short(title: str, most: int = 18) -> str:
    """A title shortened to the room there is: its beginning and its end."""
    return title if len(title) <= most else f"{title[: most // 2]}…{title[-(most // 2 - 1) :]}"
