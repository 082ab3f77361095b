"""The figures of a scaling study: losses along length, size and data, losses against accuracy, and the laws."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pandas import DataFrame, Series, concat

from tinymim.report import figures
from tinymim.report.document import Picture
from tinymim.scaling.laws import Law

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 2
"""Panels beside each other."""

AXES = {"iterations": "iterations", "parameters": "weights of the encoder", "images": "training images"}
"""Names of the axes along which losses are drawn."""

RINGED = "Rings: the loss rose above that of a shorter run of the same model and data."
BANDS = "Points: the runs of the lowest loss at each place. Band: 95 % of the fits to resampled residuals."


def losses(runs: DataFrame, stem: Path) -> list[Picture]:
    """Validation loss along iterations of the runs of one objective (:func:`tinymim.scaling.overfitting.flagged`), a
    panel for each set of images; of the longest runs along size and data. The files' names begin with ``stem``."""
    length = runs["iterations"].max()
    by_data = {f"data: {data}": part for data, part in _by_size(runs, "images").groupby("data", sort=False)}
    longest = {f"{length:,} iterations": runs[runs["iterations"] == length]}
    charts = {
        "loss_by_length": ("Validation loss along training", by_data, "iterations", ("model", "parameters")),
        "loss_by_size": ("Validation loss along the model's size", longest, "parameters", ("data", "images")),
        "loss_by_data": ("Validation loss along data", longest, "images", ("model", "parameters")),
    }
    return [_chart(_extended(stem, name), *chart) for name, chart in charts.items()]


def _chart(stem: Path, title: str, panels: dict[str, DataFrame], x: str, series: tuple[str, str]) -> Picture:
    """Panels, by title, of validation loss along the column ``x``; runs that differ by the seed alone are one point,
    their mean. ``series`` are the column that tells series apart and the one that orders them."""
    label, size = series
    labels = list(_by_size(concat(panels.values()), size)[label].unique())
    with _panels(len(panels), sharey=True) as (fig, axes):
        for axis, (panel, runs) in zip(axes, panels.items(), strict=True):
            for place, name in enumerate(labels):
                points = runs[runs[label] == name].groupby(x)
                means, overfit = points["validation_loss"].mean(), points["is_overfit"].any()
                axis.plot(means.index, means, label=name, **_style(place, len(labels)))
                _ring(axis, means.index[overfit], means[overfit])
            axis.set(title=panel, xlabel=AXES[x])
            axis.set_xscale("log")
            _ticks(axis, sorted(runs[x].unique()))
        for axis in axes[::COLUMNS]:
            axis.set_ylabel("validation loss")
        _legend(fig, axes[0], label)
        ringed = any(runs["is_overfit"].any() for runs in panels.values())
        return Picture.saved(fig, stem, title, RINGED if ringed else "", wide=len(panels) > 1)


def accuracy(runs: DataFrame, stem: Path) -> list[Picture]:
    """Accuracy after fine-tuning against validation loss, and training loss where there is one; nothing without
    accuracies."""
    known = _by_size(runs[runs["accuracy"].notna()], "parameters")
    if not len(known):
        return []
    kinds = [kind for kind in ("validation", "training") if known[f"{kind}_loss"].notna().any()]
    models = list(known["model"].unique())
    with _panels(len(kinds), sharey=True) as (fig, axes):
        for axis, kind in zip(axes, kinds, strict=True):
            for place, model in enumerate(models):
                points = known[known["model"] == model]
                x, y = points[f"{kind}_loss"], 100 * points["accuracy"]
                axis.plot(x, y, label=model, **_style(place, len(models)) | {"linestyle": ""})
                _ring(axis, x[points["is_overfit"]], y[points["is_overfit"]])
            axis.set_xlabel(f"{kind} loss")
        axes[0].set_ylabel("top-1 after fine-tuning, %")
        _legend(fig, axes[0], "model")
        title = "Accuracy against the loss of pre-training"
        text = RINGED if known["is_overfit"].any() else ""
        return [Picture.saved(fig, _extended(stem, "accuracy_by_loss"), title, text, wide=len(kinds) > 1)]


def laws(fitted: list[Law], stem: Path) -> list[Picture]:
    """The laws of one objective that were fitted, with their points and bands."""
    from matplotlib.ticker import EngFormatter, NullFormatter

    curves = [(law, law.curve) for law in fitted if law.curve is not None]
    if not curves:
        return []
    with _panels(len(curves)) as (fig, axes):
        for axis, (law, curve) in zip(axes, curves, strict=True):
            x = np.geomspace(law.places[0], law.places[-1], 200)
            axis.fill_between(x, *law.band(x), color=figures.COLOURS[0], alpha=0.2, linewidth=0)
            axis.plot(x, curve.at(x)[0], color=figures.COLOURS[0])
            axis.plot(law.places, law.losses, "o", color=figures.COLOURS[6])
            axis.set(xscale="log", xlabel=f"{law.axis}, {law.unit}", ylabel="validation loss")
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_title(f"L = {curve.c[0]:.3f} + a·x^-{curve.b[0]:.3f}")
        title = "Power laws of the validation loss"
        return [Picture.saved(fig, _extended(stem, "laws"), title, BANDS, wide=len(curves) > 1)]


def stems(objectives: list[str], folder: Path) -> dict[str, Path]:
    """Beginnings of the names of each objective's files: no two alike, though ``A/B`` and ``A_B`` are so as names."""
    names: dict[str, str] = {}
    for objective in objectives:
        name = plain = re.sub(r"\W+", "_", objective)
        number = 1
        while name.lower() in {other.lower() for other in names.values()}:
            number += 1
            name = f"{plain}_{number}"
        names[objective] = name
    return {objective: folder / name for objective, name in names.items()}


def _extended(stem: Path, name: str) -> Path:
    return stem.with_name(f"{stem.name}_{name}")


@contextmanager
def _panels(count: int, **options: Any) -> Iterator[tuple[Figure, list[Axes]]]:
    """Axes in two columns, or one."""
    columns = min(count, COLUMNS)
    with figures.figure(-(-count // columns), columns, height=58, squeeze=False, **options) as (fig, axes):
        flat = list(axes.flat)
        for spare in flat[count:]:
            spare.set_axis_off()
        yield fig, flat[:count]


def _by_size(runs: DataFrame, size: str) -> DataFrame:
    return runs.sort_values(size, kind="stable")


def _style(place: int, count: int) -> dict[str, Any]:
    """The style of series ``place`` of ``count`` ordered ones: from dark to light, with marker and dashes."""
    import matplotlib as mpl

    colour = mpl.colormaps[figures.SEQUENTIAL](0.85 * place / max(count - 1, 1))
    return {**figures.series(place), "color": colour}


def _ring(axes: Axes, x: Any, y: Series) -> None:
    if len(y):
        axes.scatter(x, y, s=45, facecolors="none", edgecolors=figures.COLOURS[1], linewidths=1, zorder=3)


def _ticks(axes: Axes, places: list[float]) -> None:
    """Ticks where there are runs, to three digits."""
    from matplotlib.ticker import EngFormatter, NullLocator

    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(places, [EngFormatter(sep="")(float(f"{place:.3g}")) for place in places])


def _legend(fig: Figure, axes: Axes, title: str) -> None:
    handles, labels = axes.get_legend_handles_labels()
    place: Any = {"loc": "outside lower center", "ncols": min(len(labels), 5), "columnspacing": 1, "handlelength": 2.6}
    fig.legend(handles, labels, title=title, **place)
