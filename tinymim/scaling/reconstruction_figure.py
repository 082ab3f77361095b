"""Completions of masked images, trained on and held out, by an overfit model and a well-fitted one."""

from __future__ import annotations

import statistics
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tinymim.data.device_augment import unit
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError
from tinymim.report import csv_files, figures
from tinymim.report.completions import load, restored
from tinymim.report.document import Picture, Section, Table
from tinymim.scaling.table import RunRow

if TYPE_CHECKING:
    from pandas import DataFrame

KINDS = ("training", "held out")
"""The two kinds of images."""

CAPTION = (
    "Under each completion the loss of that image. Masks belong to the images' indices; visible patches are the "
    "original's. Error: mean absolute difference of colours, one scale for all."
)
STANDARDISED = " Where the target was standardised, the true mean and variance of each patch were put back."


def choose(runs: DataFrame) -> tuple[RunRow, RunRow] | None:
    """The most overfit run and the best that is not, among runs of one objective (see
    :func:`tinymim.scaling.overfitting.flagged`); ``None`` where there are not both.

    The most overfit is the run of the largest gap between held-out and training loss, or where no training loss is
    known, of the largest increase. The best has the lowest held-out loss among the others that were trained on as many
    images or more, so that both have seen the images shown as training images.
    """
    overfit = runs[runs["is_overfit"]]
    if not len(overfit):
        return None
    gaps = overfit["gap"].dropna()
    most = runs["row"][gaps.idxmax() if len(gaps) else overfit["loss_increase"].idxmax()]
    others = runs[~runs["is_overfit"] & (runs["images"] >= most.images)]
    return (most, runs["row"][others["validation_loss"].idxmin()]) if len(others) else None


def section(runs: dict[str, Path], out: Path, count: int = 3, trust: bool = False) -> Section:
    """A section of the page: completions by each run, of ``count`` training images of the first and as many held out.

    Args:
        runs: folders by title, the overfitted one first: its training images are shown, since the larger set of a
            well-fitted one most often holds them too.
        out: the page's folder; the figure goes into its ``figures``, the losses into ``reconstructions.csv``.
        count: images of each kind.
        trust: see :func:`load`.

    Raises:
        TinymimError: networks of several image sizes, or no held-out images.
    """
    loaded = [load(title, place, trust) for title, place in runs.items()]
    if len(sizes := {run.module.backbone.image_size for run in loaded}) > 1:
        raise TinymimError(f"reconstructions: the runs take images of {sorted(sizes)} px; choose runs of one size")
    data = loaded[0].data
    if data.held_out is None:
        raise TinymimError("reconstructions: the data has no held-out images")
    pools = dict(zip(KINDS, (data.bank or data.train, data.held_out), strict=True))  # a bank is not augmented
    shown = [(kind, i) for kind, pool in pools.items() for i in range(min(count, len(pool)))]
    images = torch.stack([unit(pools[kind][Draw(0, i)]["image"]) for kind, i in shown])
    made = [restored(run.module, images, torch.tensor([i for _, i in shown])) for run in loaded]
    rows: list[tuple[str, Tensor, list[float]]] = [("original", images, [])]
    records, lines = [], []
    for run, completions in zip(loaded, made, strict=True):
        if not any(torch.equal(completions.masked, row) for _, row, _ in rows):
            rows.append(("masked", completions.masked, []))
        rows += [(run.title, completions.completed, completions.losses), ("error", completions.error, [])]
        losses: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for (kind, i), loss in zip(shown, completions.losses, strict=True):
            records.append({"run": run.title, "images": kind, "index": i, "loss": loss})
            losses[kind].append(loss)
        seen, unseen = map(statistics.fmean, losses.values())
        lines.append([run.title, f"{seen:.4f}", f"{unseen:.4f}", f"{unseen - seen:+.4f}"])
    standardised = any(run.standardised for run in loaded)
    picture = _picture(rows, [kind for kind, _ in shown], out, standardised)
    csv_files.write(out / "reconstructions.csv", records)
    table = Table(
        ["loss of the pictures shown", "training", "held out", "gap"],
        lines,
        text=f"Means of {count} images each; the whole sets' losses are in the table of runs.",
        files=["reconstructions.csv"],
    )
    return Section("What do they restore?", tables=[table], pictures=[picture])


def _picture(rows: list[tuple[str, Tensor, list[float]]], kinds: list[str], out: Path, standardised: bool) -> Picture:
    brightest = max(float(images.max()) for title, images, _ in rows if title == "error")
    with figures.figure(len(rows), len(kinds), height=12.5, width=figures.WIDTH, squeeze=False) as (fig, axes):
        for line, (title, images, losses) in zip(axes, rows, strict=True):
            for place, axis in enumerate(line):
                if title == "error":
                    axis.imshow(images[place].numpy(), cmap=figures.SEQUENTIAL, vmin=0, vmax=brightest)
                else:
                    axis.imshow(images[place].permute(1, 2, 0).numpy())
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                if losses:
                    axis.set_xlabel(f"{losses[place]:.3f}", labelpad=1, fontsize=7)
            line[0].set_ylabel(textwrap.fill(title, 12), rotation=0, ha="right", va="center", fontsize=7)
        for kind in dict.fromkeys(kinds):
            axes[0][kinds.index(kind)].set_title(kind, loc="left")
        text = CAPTION + (STANDARDISED if standardised else "")
        return Picture.saved(fig, out / "figures" / "reconstructions", "Completions", text, wide=True)
