"""Masked images as a run's model completes them."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinymim import precision
from tinymim.config import recipe as recipes
from tinymim.errors import TinymimError, misfit, several
from tinymim.methods.base import Errors
from tinymim.methods.mae_decoder import patchify, unpatchify
from tinymim.methods.mim import MaskedPretrainer
from tinymim.report.document import Section, Table
from tinymim.report.runs import Run
from tinymim.report.shown_images import ShownImages, picture
from tinymim.teachers import sizes, weights
from tinymim.teachers.download import asking_nobody
from tinymim.training import inspection, preflight
from tinymim.training.checkpoint_files import SafeCheckpointIO, newest
from tinymim.training.run_folder import RECIPE

GREY = 0.5
"""The value of masked patches in a picture."""

KINDS = ("MAEPretrainer", "SimMIMPretrainer")
"""Classes of modules that restore images."""

CAPTION = (
    "Held-out images under masks that belong to their numbers; visible patches are the original's. Difference: of "
    "colours, twice as bright."
)
HEADS = ["original", "masked", "restored", "difference"]
STANDARDISED = " The target was standardised: the true mean and variance of each patch were put back."


@dataclass(frozen=True)
class RestoringRun:
    """A run whose model restores images: its title, its module in eval mode, and its data."""

    title: str
    module: MaskedPretrainer
    data: Any

    @property
    def standardised(self) -> bool:
        """Whether its target is patches of mean 0 and variance 1."""
        return bool(getattr(self.module, "norm_pix", False))


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


def load(title: str, place: Path, trust: bool = False) -> RestoringRun:
    """The model of a run folder, from its newest checkpoint: decoder and mask token with it; of any class if ``trust``.

    Raises:
        TinymimError: no run that restores images, data that cannot be built, no checkpoint, or one that does not fit.
    """
    if not (place / RECIPE).is_file():
        raise TinymimError(f"run: {place} has no {RECIPE}, so it is no run folder")
    recipe = inspection.read(place / RECIPE, f"recipe {place / RECIPE}")
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
    content, misfit_ = SafeCheckpointIO().load_checkpoint(checkpoint), f"run: {checkpoint} does not fit its {RECIPE}"
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


def strip(run: Run, shown: ShownImages) -> Section | None:
    """A section of the run's page: each image masked, completed, and the difference; ``None`` for a run that restores
    no images, or of which nothing can be shown."""
    if run.kind not in KINDS or not shown.count or newest(run.place) is None:
        return None
    with shown.noted("completions cannot be shown"):
        loaded = load(run.name, run.place, shown.trust)
        images = torch.stack([_fitted(image, loaded.module) for image in shown.images])
        made = restored(loaded.module, images, torch.tensor(shown.numbers))
        error = (2 * made.error).clamp(max=1).unsqueeze(1).expand_as(images)
        rows = [
            [picture(name, each) for name, each in zip(HEADS, row, strict=True)]
            for row in zip(images, made.masked, made.completed, error, strict=True)
        ]
        for row, loss in zip(rows, made.losses, strict=True):
            row[2].text = f"loss {loss:.4f}"
        text = CAPTION + (STANDARDISED if loaded.standardised else "")
        return Section("What it restores", tables=[Table(HEADS, rows, text=text, prose=True)])
    return None


def _fitted(image: Tensor, module: MaskedPretrainer) -> Tensor:
    """The image at the size that the network takes."""
    size = list(module.backbone.image_size)
    resized = torch.nn.functional.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
    return image if list(image.shape[-2:]) == size else resized.clamp(0, 1)
