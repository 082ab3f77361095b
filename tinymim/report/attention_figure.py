"""Where teacher and student look: their attention maps over the same images, side by side."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tinymim import precision
from tinymim.config import references
from tinymim.data.batches import unit
from tinymim.data.image_limits import evenly, image_files, read_rgb, unreadable
from tinymim.data.sampler import Draw
from tinymim.data.transforms import PlainView
from tinymim.errors import TinymimError
from tinymim.report.figures import data_uri
from tinymim.report.runs import Run
from tinymim.targets.attention import log_attention
from tinymim.teachers import weights
from tinymim.teachers.download import asking_nobody
from tinymim.training import looking
from tinymim.training.checkpoints import newest
from tinymim.vit.backbone import Backbone
from tinymim.vit.blocks import Tap, attention_bias

SIDE = 224  # pixels of a picture on the page


@dataclass
class Side:
    """One of the networks on the page."""

    title: str
    network: Backbone
    block: int

    @property
    def caption(self) -> str:
        """Which map is shown."""
        query = "CLS token" if self.network.has_cls else "mean patch"
        return f"{self.title}: block {self.block}, {query}, mean of {self.network.heads[self.block - 1]} heads"


@dataclass
class Gallery:
    """Pictures in rows: an image, then what each side makes of it; why something is away; the weights' licence."""

    captions: list[str]
    rows: list[list[str]]
    notes: list[str]
    licence: str | None = None


def gallery(run: Run, images: Path | None, count: int, trust: bool = False) -> Gallery:
    """The attention maps of a run's networks over some images.

    Args:
        run: its newest checkpoint is shown, beside its teacher or the weights it started from.
        images: a folder to take images from; ``None`` takes the run's own held-out ones.
        count: how many, spread evenly.
        trust: the data of the run's recipe may be any class, and is built; its teacher is fetched if need be.
    """
    notes: list[str] = []
    checkpoint = newest(run.place)
    if checkpoint is None:
        return Gallery([], [], ["the run has no checkpoint yet"])
    noted = functools.partial(_noted, notes, list(references.places(run.recipe)))
    with noted("the checkpoint cannot be shown"):
        network, provenance, _ = weights.load(checkpoint)
        if not count:
            return Gallery([], [], notes, provenance.licence)
        blocks = (network.output_block, network.output_block)
        with noted("the blocks that were compared are not known"):
            blocks = next(iter(looking.compared(run.recipe, network)), blocks)
        sides = [Side("this run", network, blocks[1])]
        with noted(f"{run.source} cannot be shown beside it"):
            if run.source:
                title = "teacher" if run.arguments.get("teacher") else "what it started from"
                with asking_nobody(not trust):
                    before, _ = looking.located(run.source).load()
                sides.insert(0, Side(title, before, min(blocks[0], before.depth)))
        with noted("there are no images to show; name some with --images FOLDER"):
            shown = (
                _from_folder(images, count)
                if images
                else _held_out(looking.data(run.recipe, trust, f"run {run.place}"), count)
            )
            return Gallery(
                [side.caption for side in sides], [_row(image, sides) for image in shown], notes, provenance.licence
            )
    return Gallery([], [], notes)


@contextmanager
def _noted(notes: list[str], kept: list[tuple[references.Place, str]], what: str) -> Iterator[None]:
    """A page does not fail for want of a picture: it says what is missing."""
    try:
        yield
    except TinymimError as error:
        notes.append(references.hidden(f"{what}: {error}", kept))


def _held_out(data: Any, count: int) -> list[Tensor]:
    data.setup("test")
    pool = data.held_out or data.train
    return [unit(pool[Draw(0, index)]["image"]) for index in evenly(len(pool), count)]


def _from_folder(folder: Path, count: int) -> list[Tensor]:
    if not folder.is_dir():
        raise TinymimError(f"images: {folder} is no folder")
    names = sorted(image_files(str(folder)))
    if not names:
        raise TinymimError(f"images: {folder} holds no images")
    chosen = [names[index] for index in evenly(len(names), count)]
    view, shown = PlainView(SIDE), []
    for name in chosen:
        try:
            shown.append(unit(view(read_rgb(f"{folder}/{name}"))["image"]))
        except Exception as error:  # decoders raise all sorts
            raise TinymimError(f"images: {folder}/{name} cannot be read: {unreadable(error)}") from None
    return shown


def _row(image: Tensor, sides: list[Side]) -> list[str]:
    return [_png(image), *(_png(_overlay(image, attention(side.network, side.block, image))) for side in sides)]


def attention(network: Backbone, block: int, image: Tensor) -> Tensor:
    """Where a block looks, mean over its heads: the CLS token's attention to the patches, or, without CLS, the mean
    over the patches' own.

    Args:
        network: in eval mode or not; no weight changes.
        block: from 1.
        image: ``(3, H, W)`` in [0, 1].

    Returns:
        ``(rows, columns)`` of the network's grid, which sums to 1.
    """
    network.eval()
    with torch.inference_mode(), precision.measuring(image.device):
        (_, parts, told) = next(network.walk(image[None], [Tap(block, "q"), Tap(block, "k")]))
        bias = attention_bias(network.vit.blocks[block - 1], told)
        maps = log_attention(parts["q"], parts["k"], network.heads[block - 1], bias)[0].exp().mean(0)
    rows = maps[:1] if network.has_cls else maps[network.prefix :]
    to_patches = rows.mean(0)[network.prefix :]
    return (to_patches / to_patches.sum()).unflatten(0, network.grid)


def _overlay(image: Tensor, weights_: Tensor) -> Tensor:
    """The image in grey under its map in colour: the more attention, the brighter, up to the map's own greatest."""
    import matplotlib as mpl

    size = image.shape[-2:]
    scaled = F.interpolate(weights_[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    scaled = scaled / scaled.max()
    colours = torch.from_numpy(mpl.colormaps["viridis"](scaled.numpy())[..., :3]).permute(2, 0, 1).float()
    return 0.35 * image.mean(0, keepdim=True) + 0.65 * colours


def _png(image: Tensor) -> str:
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if min(picture.size) < SIDE:
        picture = picture.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return data_uri("png", out.getvalue())
