"""Completions of masked images, trained on and held out, by an overfit model and a well-fitted one."""

from __future__ import annotations

import copy
import functools
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from tinymim.scaling.overfitting import OverfitFlags
from tinymim.scaling.table import RunRow
from tinymim.teachers import sizes, weights
from tinymim.teachers.download import asking_nobody
from tinymim.training import inspection, preflight
from tinymim.training.checkpoint_files import SafeCheckpointIO, newest

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


def choose(flags: Iterable[OverfitFlags]) -> tuple[RunRow, RunRow] | None:
    """The most overfit run and the best that is not, among runs of one objective; ``None`` where there are not both.

    The most overfit is the run of the largest gap between held-out and training loss, or where no training loss is
    known, of the largest increase. The best has the lowest held-out loss among the others that were trained on as many
    images or more, so that both have seen the images shown as training images.
    """
    runs = list(flags)
    overfit = [run for run in runs if run.is_overfit]
    if not overfit:
        return None
    most = max(overfit, key=lambda run: (run.gap is not None, run.loss_increase if run.gap is None else run.gap)).row
    others = [run.row for run in runs if not run.is_overfit and run.row.images >= most.images]
    return (most, min(others, key=lambda row: row.validation_loss)) if others else None


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
    """Let a model complete images under the masks that belong to their indices, in float32
    (:func:`tinymim.precision.measuring`).

    Args:
        module: in eval mode.
        images: ``(B, 3, H, W)`` in [0, 1], of the size it takes.
        index: ``(B,)``.
    """
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
    """
    from pandas import DataFrame

    picture, records = draw(
        [load(title, place, trust) for title, place in runs.items()], range(count), range(count), out
    )
    csv_files.write(out / "reconstructions.csv", records)
    means = DataFrame(records).groupby(["run", "images"])["loss"].mean()
    lines = []
    for title in runs:
        seen, unseen = (means[title, kind] for kind in KINDS)
        lines.append([title, f"{seen:.4f}", f"{unseen:.4f}", f"{unseen - seen:+.4f}"])
    table = Table(
        ["loss of the pictures shown", "training", "held out", "gap"],
        lines,
        text=f"Means of {count} images each; the whole sets' losses are in the table of runs.",
        files=["reconstructions.csv"],
    )
    return Section("What do they restore?", tables=[table], pictures=[picture])


def draw(
    runs: list[RestoringRun], trained: Iterable[int], held_out: Iterable[int], out: Path
) -> tuple[Picture, list[dict[str, Any]]]:
    """The picture, drawn and saved, and the loss of each image.

    Args:
        runs: of one image size; images are those of the first one's data.
        trained: indices of training images, seen without augmentation where the data has a bank.
        held_out: of held-out images.
        out: the page's folder.

    Raises:
        TinymimError: networks of several image sizes, or no held-out images.
    """
    if len(sizes := {run.module.backbone.image_size for run in runs}) > 1:
        raise TinymimError(f"reconstructions: the runs take images of {sorted(sizes)} px; choose runs of one size")
    data = runs[0].data
    if data.held_out is None:
        raise TinymimError("reconstructions: the data has no held-out images")
    pools = zip(KINDS, (data.bank or data.train, data.held_out), (trained, held_out), strict=True)
    shown = [
        (kind, i, unit(pool[Draw(0, i)]["image"])) for kind, pool, places in pools for i in places if i < len(pool)
    ]
    kinds, index = [kind for kind, _, _ in shown], [i for _, i, _ in shown]
    images = torch.stack([image for _, _, image in shown])
    made = [restored(run.module, images, torch.tensor(index)) for run in runs]
    rows: list[tuple[str, Tensor, list[float]]] = [("original", images, [])]
    for run, completions in zip(runs, made, strict=True):
        if not any(torch.equal(completions.masked, row) for _, row, _ in rows):
            rows.append(("masked", completions.masked, []))
        rows += [(run.title, completions.completed, completions.losses), ("error", completions.error, [])]
    picture = _picture(rows, kinds, out, any(getattr(run.module, "norm_pix", False) for run in runs))
    records = [
        {"run": run.title, "images": kind, "index": i, "loss": loss}
        for run, completions in zip(runs, made, strict=True)
        for kind, i, loss in zip(kinds, index, completions.losses, strict=True)
    ]
    return picture, records


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
