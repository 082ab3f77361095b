"""Attention maps of teacher and student over the same images, side by side."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tinymim import precision
from tinymim.config import references
from tinymim.data.device_augment import unit
from tinymim.data.image_files import evenly, image_files
from tinymim.data.listed_images import ListedImages
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError
from tinymim.log import say
from tinymim.report.document import Picture
from tinymim.report.runs import Run
from tinymim.report.viridis import viridis
from tinymim.teachers import weights
from tinymim.teachers.download import asking_nobody
from tinymim.training import inspection
from tinymim.training.checkpoint_files import newest
from tinymim.vit.attention_maps import watched
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Tap

SIDE = 224
ATTEMPTS = 100  # images that are tried in place of broken ones
"""Pixels of a picture on the page."""


@dataclass
class ShownNetwork:
    """A network of the gallery, and the block whose maps are shown."""

    title: str
    network: Backbone
    block: int

    @property
    def caption(self) -> str:
        """The block, query and heads of the map."""
        query = "CLS token" if self.network.has_cls else "mean patch"
        return f"{self.title}: block {self.block}, {query}, mean of {self.network.heads[self.block - 1]} heads"


@dataclass
class Gallery:
    """Rows of pictures, an image and then each network's map of it; notes on what is missing; the weights' licence."""

    captions: list[str] = field(default_factory=list)
    rows: list[list[Picture]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    licence: str | None = None


def gallery(run: Run, images: Path | None, count: int, trust: bool = False) -> Gallery:
    """The attention maps of a run's networks over some images.

    Args:
        run: its newest checkpoint is shown, beside its teacher or the weights it started from.
        images: a folder to take images from; ``None`` takes the run's own held-out ones.
        count: how many, spread evenly.
        trust: the data of the run's recipe may be any class, and is built; its teacher is fetched if need be.
    """
    made = Gallery()
    checkpoint = newest(run.place)
    if checkpoint is None:
        made.notes.append("the run has no checkpoint yet")
        return made
    noted = functools.partial(_noted, made.notes, list(references.places(run.recipe)))
    with noted("the checkpoint cannot be shown"):
        network, provenance, _ = weights.load(checkpoint)
        made.licence = provenance.licence
        if not count:
            return made
        networks = _networks(run, network, noted, trust)
        with noted("there are no images to show; name some with --images FOLDER"):
            shown = _from_folder(images, count) if images else _held_out(run, count, trust)
            made.captions = [each.caption for each in networks]
            for image in shown:
                maps = [_overlay(image, attention(each.network, each.block, image)) for each in networks]
                titles = [f"attention of {each.caption}" for each in networks]
                made.rows.append([_picture("image", image), *map(_picture, titles, maps)])
    return made


def _networks(
    run: Run, network: Backbone, noted: Callable[[str], AbstractContextManager[None]], trust: bool
) -> list[ShownNetwork]:
    """The run's network, after its teacher or the weights it started from; at the blocks that were compared."""
    teacher_block = student_block = network.output_block
    with noted("the blocks that were compared are not known"):
        for pair in inspection.compared(run.recipe, network)[:1]:
            teacher_block, student_block = pair
    networks = [ShownNetwork("this run", network, student_block)]
    with noted(f"{run.source} cannot be shown beside it"):
        if run.source:
            title = "teacher" if run.arguments.get("teacher") else "what it started from"
            with asking_nobody(not trust):
                before, _ = inspection.located(run.source).load()
            networks.insert(0, ShownNetwork(title, before, min(teacher_block, before.depth)))
    return networks


@contextmanager
def _noted(notes: list[str], kept: list[tuple[references.Place, str]], what: str) -> Iterator[None]:
    """A page does not fail for want of a picture: it says what is missing."""
    try:
        yield
    except TinymimError as error:
        notes.append(references.hidden(f"{what}: {error}", kept))
        say(f"report: {notes[-1]}")


def _held_out(run: Run, count: int, trust: bool) -> list[Tensor]:
    data = inspection.data(run.recipe, trust, f"run {run.place}")
    data.setup("test")
    pool: Any = data.held_out or data.train
    return [unit(pool[Draw(0, index)]["image"]) for index in evenly(len(pool), count)]


def _from_folder(folder: Path, count: int) -> list[Tensor]:
    if not folder.is_dir():
        raise TinymimError(f"images: {folder} is no folder")
    files = ListedImages(str(folder), sorted(image_files(str(folder))), SIDE)
    if not files.names:
        raise TinymimError(f"images: {folder} holds no images")
    images: list[Tensor] = []
    wanted = evenly(len(files), count)
    why = ""
    for index in dict.fromkeys([*wanted, *evenly(len(files), ATTEMPTS)]):  # others in place of broken ones
        _, pixels = files[index]
        if isinstance(pixels, str):
            why = f"{folder}/{files.names[index]} cannot be read: {pixels}"
        else:
            images.append(unit(pixels))
        if len(images) == len(wanted):
            return images
    if not images:
        raise TinymimError(f"images: none of {folder}, such as {why}")
    return images


def attention(network: Backbone, block: int, image: Tensor) -> Tensor:
    """Attention of a block, from 1, mean over its heads: the CLS token's to the patches, or, without CLS, the mean over
    the patches' own; of an image ``(3, H, W)`` in [0, 1], ``(rows, columns)`` of the network's grid, which sums to 1.
    """
    network.eval()
    attn = network.vit.blocks[block - 1].attn
    with torch.inference_mode(), precision.measuring(image.device), watched([attn]) as last:
        network.read(image[None], [Tap(block, "attn_pre")])
        maps = last.maps(1)(slice(0, 1))[0, 0].mean(0)
    rows = maps[:1] if network.has_cls else maps[network.prefix :]
    to_patches = rows.mean(0)[network.prefix :]
    return (to_patches / to_patches.sum()).unflatten(0, network.grid)


def _overlay(image: Tensor, shares: Tensor) -> Tensor:
    """The image in grey under its map in colour: the more attention, the brighter, up to the map's own greatest."""
    scaled = F.interpolate(shares[None, None], size=image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    colours = viridis((scaled / scaled.max()).numpy())
    return 0.35 * image.mean(0, keepdim=True) + 0.65 * torch.from_numpy(colours).permute(2, 0, 1).float()


def _picture(title: str, image: Tensor) -> Picture:
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if min(picture.size) < SIDE:
        picture = picture.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return Picture(title, out.getvalue())
