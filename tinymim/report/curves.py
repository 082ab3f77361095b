"""Curves of a run, one picture a quantity: percentages and epochs as people read them, other runs faint behind."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy import multiply

from tinymim import extras
from tinymim.report import figures, hover
from tinymim.report.document import Picture
from tinymim.report.narrow import narrow
from tinymim.report.runs import Run
from tinymim.training import run_schemas
from tinymim.training.metrics_log import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HELD_OUT, TRAIN, OTHERS = (figures.COLOURS[place] for place in (0, 1, 7))
RATE = "lr/"
KNOWN = {"top1": "top-1", "top5": "top-5", "knn_top1": "10-NN", "miou": "mIoU", "map": "mAP"}
"""Shares, shown in per cent, and their names for people."""

MOST = 24
"""Pictures of a page, losses first: all targets of a recipe, and what is logged beside them."""

SMOOTHED, WINDOW = 60, 0.04
"""Values from which on a training curve is drawn as its running mean too, and the share of them that a mean is over."""


@dataclass(frozen=True)
class Drawn:
    """A line of a chart: steps and values, and how it is drawn; the legend leaves out a ``label`` that begins with an
    underscore."""

    steps: list[float]
    values: list[float]
    label: str
    colour: str
    width: float = 1.6
    strength: float = 1.0


def headline(run: Run) -> str | None:
    """The quantity whose curve stands first: an accuracy or else the loss, one that was logged more than once if any
    was."""
    names = dict.fromkeys(name.partition("/")[2] for name in run.curves if not name.startswith(RATE))
    known = [name for name in (*KNOWN, "loss") if name in names and says(run, f"val/{name}")]
    several = (name for name in known if any(len(_of(run, kind, name)[0]) > 1 for kind in ("val", "train")))
    return next(several, next(iter(known), None))


def charts(run: Run, others: list[Run], but: str | None = None) -> list[Picture]:
    """One picture a quantity: losses, then accuracies, then the learning rate.

    Args:
        run: drawn in colour, training and held-out images together.
        others: their held-out values are drawn thin and grey, of the same data alone, and a sum of losses
            only where it is of the same parts.
        but: a quantity that is left out.

    Returns:
        The pictures; none without matplotlib.
    """
    if not extras.installed("matplotlib"):
        return []
    rates = [name for name in run.curves if name.startswith(RATE)]
    names = dict.fromkeys(name.partition("/")[2] for name in run.curves if not name.startswith(RATE))
    shown = [name for name in names if name != but and says(run, f"val/{name}")]
    drawn = [chart(name, run, others) for name in sorted(shown, key=lambda name: "loss" not in name)[:MOST]]
    if rates:
        top = max(sorted(rates), key=lambda name: max(run.curves[name][1]))
        curve = Drawn(*run.curves[top], "highest of all groups", HELD_OUT)
        drawn.append(_draw("learning rate", [curve], run, share=False))
    return drawn


def title_of(name: str) -> str:
    """A logged quantity's name for people, as ``loss: relation qk``."""
    name = name.removeprefix("val/")
    part = name.removeprefix("loss_")
    return KNOWN.get(name) or (f"loss: {part.replace('_', ' ')}" if part != name else name.replace("_", " "))


def says(run: Run, name: str) -> bool:
    """Whether a figure says anything: the right class is always among five of five or fewer."""
    values = [*run.curves.get(name, ([], []))[1], *([run.metrics[name]] if name in run.metrics else [])]
    return run_schemas.says(name, values)


def chart(name: str, run: Run, others: list[Run], wide: bool = False) -> Picture:
    """The picture of a quantity: training and held-out images, other runs behind; ``wide`` over the whole page."""
    held_out = f"val/{name}"
    curves: list[Drawn] = []
    for other in others:
        comparable = other.data == run.data and (name != "loss" or _parts(other) == _parts(run))
        if comparable and held_out in other.curves:
            curves.append(Drawn(*other.curves[held_out], f"_{other.name}", OTHERS, 0.8, 0.7))
    curves += _training(*_of(run, "train", name))
    if held_out in run.curves:
        curves.append(Drawn(*run.curves[held_out], "held out", HELD_OUT))
    return _draw(title_of(name), curves, run, name in KNOWN, wide)


def _of(run: Run, kind: str, name: str) -> Line:
    return run.curves.get(f"{kind}/{name}", ([], []))


def _training(steps: list[float], values: list[float]) -> list[Drawn]:
    """A training curve; a long one, which is noise of single batches, under its running mean; none without values."""
    if not values:
        return []
    if len(values) < SMOOTHED:
        return [Drawn(steps, values, "training", TRAIN)]
    window = max(2, round(WINDOW * len(values)))
    means, total = [], 0.0
    for place, value in enumerate(values):
        total += value - (values[place - window] if place >= window else 0)
        means.append(total / min(place + 1, window))
    return [
        Drawn(steps, values, "_training", TRAIN, 0.6, 0.35),
        Drawn(steps, means, f"training, mean of {window}", TRAIN),
    ]


def _parts(run: Run) -> tuple[str, Any]:
    """Terms of a run's loss."""
    return run.kind, run.arguments.get("targets")


def _draw(title: str, curves: list[Drawn], run: Run, share: bool, wide: bool = False) -> Picture:
    scale = 100 if share else 1
    with figures.figure(height=72 if wide else 54, width=3 * figures.WIDTH if wide else None) as (figure, axes):
        for curve in curves:
            values = [scale * value for value in curve.values]
            point = "o" if len(values) < 12 else None
            axes.plot(
                curve.steps, values, color=curve.colour, linewidth=curve.width, alpha=curve.strength, marker=point,
                markersize=3 * min(curve.width, 1), label=curve.label,
            )  # fmt: skip
        axes.set_xlabel("step")
        axes.set_ylabel(f"{title}, %" if share else title.partition(":")[0])
        axes.set_xlim(0, 1.02 * max(*(curve.steps[-1] for curve in curves if curve.steps), run.steps or 1))
        figures.whole_numbers(axes)
        _epochs(axes, run)
        handles, labels = axes.get_legend_handles_labels()
        if behind := [line for line in axes.lines if line.get_color() == OTHERS]:
            handles, labels = [*handles, behind[0]], [*labels, "other runs, held out"]
        if handles:
            axes.legend(handles, labels)
        return Picture(title, figures.svg(figure), wide=wide, narrow=narrow(figure))


def _epochs(axes: Axes, run: Run) -> None:
    """An axis of epochs above, where it is known how long they are."""
    each = run.steps / run.epochs if run.steps and run.epochs else 0

    def value(number: float) -> str:
        return f"{number:.2f} %" if axes.get_ylabel().endswith("%") else f"{number:.4g}"

    def place(step: float) -> str:
        return f"{step:,.0f}" + (f" (epoch {step / each:.3g})" if each else "")

    hover.told(axes, place, value)
    if each:
        to, back = partial(multiply, 1 / each), partial(multiply, each)
        above = axes.secondary_xaxis("top", functions=(to, back))
        above.set_xlabel("epoch")
