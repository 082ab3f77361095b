"""Curves of a run, one picture a quantity."""

from __future__ import annotations

from typing import Any

from tinymim import extras
from tinymim.report import figures
from tinymim.report.document import Picture
from tinymim.report.runs import Run

HELD_OUT, TRAIN, OTHERS = (figures.COLOURS[place] for place in (0, 4, 7))
RATE = "lr/"
KNOWN = {"top1": "top-1", "top5": "top-5", "knn_top1": "10-NN", "miou": "mIoU", "map": "mAP"}

MOST = 24
"""Pictures of a page, losses first: all targets of a recipe, and what is logged beside them."""

Line = tuple[list[float], list[float], str, str, float]
"""Steps, values, colour, label and width."""


def charts(run: Run, others: list[Run]) -> list[Picture]:
    """One picture a quantity: losses, then accuracies, then the learning rate.

    Args:
        run: drawn in colour, training and held-out images together.
        others: their held-out values are drawn thin and grey, of the same data alone, and a sum of losses
            only where it is of the same parts.

    Returns:
        The pictures; none without matplotlib.
    """
    if not extras.installed("matplotlib"):
        return []
    rates = [name for name in run.curves if name.startswith(RATE)]
    names = dict.fromkeys(name.partition("/")[2] for name in run.curves if not name.startswith(RATE))
    drawn = [_chart(name, run, others) for name in sorted(names, key=lambda name: "loss" not in name)[:MOST]]
    if rates:
        top = max(sorted(rates), key=lambda name: max(run.curves[name][1]))
        drawn.append(_draw("learning rate", [(*run.curves[top], HELD_OUT, "highest of all groups", 1.6)]))
    return drawn


def title_of(name: str) -> str:
    """A logged quantity's name for people, as ``loss: relation qk``."""
    name = name.removeprefix("val/")
    part = name.removeprefix("loss_")
    return KNOWN.get(name) or (f"loss: {part.replace('_', ' ')}" if part != name else name.replace("_", " "))


def _chart(name: str, run: Run, others: list[Run]) -> Picture:
    held_out = f"val/{name}"
    lines: list[Line] = []
    for other in others:
        comparable = other.data == run.data and (name != "loss" or _parts(other) == _parts(run))
        if comparable and held_out in other.curves:
            lines.append((*other.curves[held_out], OTHERS, "" if lines else "other runs, held out", 0.8))
    for stage, colour, label in (("train", TRAIN, "training"), ("val", HELD_OUT, "held out")):
        if (logged := f"{stage}/{name}") in run.curves:
            lines.append((*run.curves[logged], colour, label, 1.6))
    return _draw(title_of(name), lines)


def _parts(run: Run) -> tuple[str, Any]:
    """Terms of a run's loss."""
    return run.kind, run.arguments.get("targets")


def _draw(title: str, lines: list[Line]) -> Picture:
    with figures.figure(height=50) as (figure, axes):
        for steps, values, colour, label, width in lines:
            point = "o" if len(steps) == 1 else None
            axes.plot(steps, values, color=colour, label=label or None, linewidth=width, marker=point, markersize=4)
        axes.set_xlabel("step")
        axes.legend()
        return Picture(title, figures.svg(figure))
