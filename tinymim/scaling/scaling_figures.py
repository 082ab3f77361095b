"""The figures of a scaling study: losses along length, size and data, what they say of accuracy, and the laws."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinymim.report import figures
from tinymim.report.document import Picture
from tinymim.scaling.laws import Law
from tinymim.scaling.overfit import Sign

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MODELS, DATA = ("model", "parameters"), ("data", "images")
"""What is one series or panel, and what orders them."""

COLUMNS = 2
"""Panels beside each other."""

RINGED = "Rings: the loss rose above that of a shorter run of the same model and data."

Groups = dict[str, list[Sign]]


def losses(found: list[Sign], out: Path) -> list[Picture]:
    """Validation loss along iterations, a panel for each set of images; of the longest runs along size and data.

    Args:
        found: runs of one objective.
        out: the page's folder; the files go into its ``figures``.
    """
    most = max(sign.row.iterations for sign in found)
    longest = {f"{most:,} iterations": [sign for sign in found if sign.row.iterations == most]}
    return [
        _chart(out, "loss_by_length", "Validation loss along training", _groups(found, DATA), "iterations", MODELS),
        _chart(out, "loss_by_size", "Validation loss along the model's size", longest, "parameters", DATA),
        _chart(out, "loss_by_data", "Validation loss along data", longest, "images", MODELS),
    ]


def _chart(out: Path, name: str, title: str, panels: Groups, x: str, series: tuple[str, str]) -> Picture:
    """Panels of validation loss along ``x``; runs that differ by the seed alone are one point, their mean."""
    names = {"iterations": "iterations", "parameters": "weights of the encoder", "images": "training images"}
    everyone = _groups([sign for some in panels.values() for sign in some], series)
    with _panels(len(panels), sharey=True) as (fig, axes):
        for one, (panel, some) in zip(axes, panels.items(), strict=True):
            within = _groups(some, series)
            for place, label in enumerate(everyone):
                points: dict[float, list[Sign]] = {}
                for sign in sorted(within.get(label, []), key=lambda sign: getattr(sign.row, x)):
                    points.setdefault(getattr(sign.row, x), []).append(sign)
                means = {at: statistics.mean(sign.row.validation_loss for sign in p) for at, p in points.items()}
                one.plot(list(means), list(means.values()), label=label, **_look(place, len(everyone)))
                _ring(one, [(at, means[at]) for at, p in points.items() if any(sign.rose for sign in p)])
            one.set(title=panel if panel.endswith("iterations") else f"data: {panel}", xlabel=names[x])
            one.set_xscale("log")
            _ticks(one, sorted({getattr(sign.row, x) for sign in some}))
        for one in axes[::COLUMNS]:
            one.set_ylabel("validation loss")
        _legend(fig, axes[0], series[0])
        return _picture(
            fig, out, _named(everyone, name), title, _ringed(some for one in everyone.values() for some in one)
        )


def accuracy(found: list[Sign], out: Path) -> list[Picture]:
    """Accuracy after fine-tuning against validation loss, and training loss where there is one; nothing without
    accuracies."""
    known = [sign for sign in found if sign.row.accuracy is not None]
    kinds = [kind for kind in ("validation", "training") if any(_loss(sign, kind) is not None for sign in known)]
    if not kinds:
        return []
    models = _groups(known, MODELS)
    with _panels(len(kinds), sharey=True) as (fig, axes):
        for one, kind in zip(axes, kinds, strict=True):
            for place, (name, some) in enumerate(models.items()):
                points = [(_loss(sign, kind), 100 * (sign.row.accuracy or 0)) for sign in some]
                one.plot(*zip(*points, strict=True), label=name, **_look(place, len(models)) | {"linestyle": ""})
                _ring(one, [point for point, sign in zip(points, some, strict=True) if sign.rose])
            one.set_xlabel(f"{kind} loss")
        axes[0].set_ylabel("top-1 after fine-tuning, %")
        _legend(fig, axes[0], "model")
        return [
            _picture(
                fig,
                out,
                _named(models, "accuracy_by_loss"),
                "Accuracy against the loss of pre-training",
                _ringed(known),
            )
        ]


def laws(found: list[Law], out: Path) -> list[Picture]:
    """The laws of one objective that were fitted, with their points and bands."""
    from matplotlib.ticker import EngFormatter, NullFormatter

    fitted = [(law, law.curve) for law in found if law.curve is not None]
    if not fitted:
        return []
    with _panels(len(fitted)) as (fig, axes):
        for one, (law, curve) in zip(axes, fitted, strict=True):
            x = np.geomspace(law.places[0], law.places[-1], 200)
            one.fill_between(x, *law.band(x), color=figures.COLOURS[0], alpha=0.2, linewidth=0)
            one.plot(x, curve.at(x)[0], color=figures.COLOURS[0])
            one.plot(law.places, law.losses, "o", color=figures.COLOURS[6])
            one.set(xscale="log", xlabel=f"{law.axis}, {law.unit}", ylabel="validation loss")
            one.xaxis.set_major_formatter(EngFormatter(sep=""))
            one.xaxis.set_minor_formatter(NullFormatter())
            one.set_title(f"L = {curve.c[0]:.3f} + a·x^-{curve.b[0]:.3f}")
        text = "Points: the runs of the lowest loss at each place. Band: 95 % of the fits to resampled residuals."
        return [_picture(fig, out, f"{slug(fitted[0][0].objective)}_laws", "Power laws of the validation loss", text)]


@contextmanager
def _panels(count: int, **options: Any) -> Iterator[tuple[Figure, list[Axes]]]:
    """Axes in two columns, or one."""
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    with figures.figure(rows, columns, height=58, squeeze=False, **options) as (fig, axes):
        flat = list(axes.flat)
        for one in flat[count:]:
            one.set_axis_off()
        yield fig, flat[:count]


def _groups(found: Sequence[Sign], by: tuple[str, str]) -> Groups:
    """Runs by name, in order of size."""
    name, size = by
    some: Groups = {}
    for sign in sorted(found, key=lambda sign: getattr(sign.row, size)):
        some.setdefault(getattr(sign.row, name), []).append(sign)
    return some


def _look(place: int, count: int) -> dict[str, Any]:
    """How series ``place`` of ``count`` ordered ones is drawn: from dark to light, with marker and dashes."""
    import matplotlib as mpl

    colour = mpl.colormaps[figures.SEQUENTIAL](0.85 * place / max(count - 1, 1))
    return {**figures.series(place), "color": colour}


def _ring(axes: Axes, points: list[Any]) -> None:
    if points:
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, s=45, facecolors="none", edgecolors=figures.COLOURS[1], linewidths=1, zorder=3)


def _ringed(found: Iterable[Sign]) -> str:
    """What rings mean, where there are any."""
    return RINGED if any(sign.rose for sign in found) else ""


def _ticks(axes: Axes, places: list[float]) -> None:
    """Ticks where there are runs, to three digits."""
    from matplotlib.ticker import EngFormatter, NullLocator

    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(places, [EngFormatter(sep="")(float(f"{place:.3g}")) for place in places])


def _legend(fig: Figure, axes: Axes, title: str) -> None:
    handles, labels = axes.get_legend_handles_labels()
    fig.legend(
        handles,
        labels,
        title=title,
        loc="outside lower center",
        ncols=min(len(labels), 5),
        columnspacing=1,
        handlelength=2.6,
    )


def _loss(sign: Sign, kind: str) -> Any:
    """``None`` where it is unknown, which is not drawn."""
    return getattr(sign.row, f"{kind}_loss")


def slug(objective: str) -> str:
    """What the files of an objective begin with."""
    return re.sub(r"\W+", "_", objective)


def _named(groups: Groups, name: str) -> str:
    return f"{slug(next(iter(groups.values()))[0].row.objective)}_{name}"


def _picture(fig: Figure, out: Path, name: str, title: str, text: str) -> Picture:
    files = [f"figures/{name}.png", f"figures/{name}.svg"]
    return Picture(title, figures.save(fig, out / "figures" / name), files, text, wide=len(fig.axes) > 1)
