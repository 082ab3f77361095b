"""Completions of masked images, trained on and held out, by an overfit model and a well-fitted one."""

from __future__ import annotations

import copy
import functools
import statistics
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tinymim import precision
from tinymim.config import recipe as recipes
from tinymim.data.device_augment import unit
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError, misfit, several
from tinymim.methods.base import Errors
from tinymim.methods.mae_decoder import patchify, unpatchify
from tinymim.methods.mim import MaskedPretrainer
from tinymim.report import csv_files, figures
from tinymim.report.document import Picture, Section, Table
from tinymim.scaling.table import RunRow
from tinymim.teachers import sizes, weights
from tinymim.teachers.download import asking_nobody
from tinymim.training import inspection, preflight
from tinymim.training.checkpoint_files import SafeCheckpointIO, newest

if TYPE_CHECKING:
    from pandas import DataFrame

KINDS = ("training", "held out")
"""The two kinds of images."""

GREY = 0.5
"""The value of masked patches in a picture."""

CAPTION = (
    "Under each completion the loss of that image. Masks belong to the images' indices; visible patches are the "
    "original's. Error: mean absolute difference of colours, one scale for all."
)
STANDARDISED = " Where the target was standardised, the true mean and variance of each patch were put back."


@dataclass(frozen=True)
class RestoringRun:
    """A run whose model restores images: its title, its module in eval mode, and its data."""

    title: str
    module: MaskedPretrainer
    data: Any


@dataclass(frozen=True)
class Completions:
    """A model's completions of some images, ``(B, 3, H, W)`` in [0, 1] each.

    Args:
        masked: its input, masked patches in grey.
        completed: visible patches as they are, masked ones as the model has them.
        error: ``(B, H, W)``: mean absolute difference of the colours, 0 in visible patches.
        losses: of each image: the objective.
    """

    masked: Tensor
    completed: Tensor
    error: Tensor
    losses: list[float]


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


def load(title: str, place: Path, trust: bool = False) -> RestoringRun:
    """The model of a run folder, from its newest checkpoint: decoder and mask token with it; of any class if ``trust``.

    Raises:
        TinymimError: no run that restores images, data that cannot be built, no checkpoint, or one that does not fit.
    """
    if not (place / "config.yaml").is_file():
        raise TinymimError(f"run: {place} has no config.yaml, so it is no run folder")
    recipe = inspection.read(place / "config.yaml", f"recipe {place / 'config.yaml'}")
    parts: recipes.Config = {part: recipe[part] for part in ("model", "data") if part in recipe}
    inspection.data(parts, trust, f"run {place}")
    with inspection.trusted(parts, trust, f"run {place}"), asking_nobody(not trust):
        inspected = preflight.inspect(parts)
    module, checkpoint = inspected.model, newest(place)
    if not isinstance(module, MaskedPretrainer):
        raise TinymimError(f"run: {place} trains {type(module).__name__}, which restores no images; take MAE or SimMIM")
    if inspected.problems:
        raise several(f"run: {place} cannot be built again", inspected.problems)
    if checkpoint is None:
        raise TinymimError(f"run: {place} has no checkpoint yet")
    weights.read(checkpoint)  # which looks at its record
    content, misfit_ = SafeCheckpointIO().load_checkpoint(checkpoint), f"run: {checkpoint} does not fit its config.yaml"
    state = {key: value for key, value in (content.get("state_dict") or {}).items() if isinstance(value, Tensor)}
    if not trust:  # one's own may do what needs numbers
        sizes.check_built(functools.partial(_built, copy.deepcopy(module), content), state, misfit_)
    _built(module, content)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise TinymimError(f"{misfit_}: {misfit(error)}") from None
    inspected.data.setup("test")
    return RestoringRun(title, module.eval(), inspected.data)


def _built(module: MaskedPretrainer, checkpoint: dict[str, Any]) -> MaskedPretrainer:
    module.build(None, None, Errors())
    module.on_load_checkpoint(checkpoint)  # says which other module a checkpoint is of
    return module


def restored(module: MaskedPretrainer, images: Tensor, index: Tensor) -> Completions:
    """Let a model, in eval mode, complete ``(B, 3, H, W)`` images in [0, 1] of its own size under the masks that belong
    to their ``(B,)`` indices, in float32 (:func:`tinymim.precision.measuring`)."""
    encoder = module.backbone
    with torch.inference_mode(), precision.measuring(images.device):
        masks = module.fixed_masks(index)
        made = unpatchify(module.restore(images, masks), encoder.grid, encoder.patch)
        completed = encoder.denormalise(made).clamp(0, 1)
        each = zip(images.split(1), masks.split(1), strict=True)
        losses = [float(module.loss(image, mask)) for image, mask in each]
        patches = patchify(images, encoder.patch)
        pixels = module.hidden(masks).unsqueeze(-1).expand_as(patches)
        hidden = unpatchify(pixels, encoder.grid, encoder.patch)
    completed = torch.where(hidden, completed, images)
    masked = torch.where(hidden, torch.full_like(images, GREY), images)
    return Completions(masked, completed, (completed - images).abs().mean(1), losses)


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
    standardised = any(getattr(run.module, "norm_pix", False) for run in loaded)
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
