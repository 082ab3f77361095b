"""Curves of a run, as SVG that a page can hold."""

from __future__ import annotations

from tinymim.report import figures
from tinymim.report.runs import Run

OURS, TRAIN, OTHERS = (figures.COLOURS[place] for place in (0, 4, 7))
RATE = "lr/"

Line = tuple[list[float], list[float], str, str, float]
"""Steps, values, colour, label and width."""


def charts(run: Run, others: list[Run]) -> dict[str, str]:
    """One picture a quantity, by title: losses, then accuracies, then the learning rate.

    Args:
        run: drawn in colour, training and held-out images together.
        others: their held-out values are drawn thin and grey, of the same data alone, and a sum of losses
            only where it is of the same parts.
    """
    rates = sorted(name for name in run.curves if name.startswith(RATE))
    names = dict.fromkeys(name.partition("/")[2] for name in run.curves if not name.startswith(RATE))
    drawn = {title_of(name): _chart(name, run, others) for name in sorted(names, key=lambda name: "loss" not in name)}
    if rates:
        top = max(rates, key=lambda name: max(run.curves[name][1]))
        drawn["learning rate"] = _draw([(*run.curves[top], OURS, "highest of all groups", 1.6)])
    return drawn


def title_of(name: str) -> str:
    """A logged quantity's name for people, as ``loss: relation qk``."""
    known = {"top1": "top-1", "top5": "top-5", "knn_top1": "10-NN", "miou": "mIoU", "map": "mAP"}
    part = name.removeprefix("loss_")
    return known.get(name) or (f"loss: {part.replace('_', ' ')}" if part != name else name.replace("_", " "))


def _chart(name: str, run: Run, others: list[Run]) -> str:
    held_out = f"val/{name}"
    lines: list[Line] = []
    for other in others:
        same = other.data == run.data and (name != "loss" or (other.kind, other.parts) == (run.kind, run.parts))
        if same and held_out in other.curves:
            lines.append((*other.curves[held_out], OTHERS, "" if lines else "other runs, held out", 0.8))
    for stage, colour, label in (("train", TRAIN, "training"), ("val", OURS, "held out")):
        if (logged := f"{stage}/{name}") in run.curves:
            lines.append((*run.curves[logged], colour, label, 1.6))
    return _draw(lines)


def _draw(lines: list[Line]) -> str:
    """Lines as one picture."""
    with figures.figure(height=50) as (figure, axes):
        for steps, values, colour, label, width in lines:
            point = "o" if len(steps) == 1 else None
            axes.plot(steps, values, color=colour, label=label or None, linewidth=width, marker=point, markersize=4)
        axes.set_xlabel("step")
        axes.legend()
        return figures.data_uri("svg+xml", figures.svg(figure))
