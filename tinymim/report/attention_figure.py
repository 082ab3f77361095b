"""Attention maps of teacher and student over the same images, side by side."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from tinymim import precision
from tinymim.report.document import Picture
from tinymim.report.runs import Run
from tinymim.report.shown_images import ShownImages, picture
from tinymim.report.viridis import COLOURS, viridis
from tinymim.teachers import weights
from tinymim.teachers.download import asking_nobody
from tinymim.training import inspection
from tinymim.training.checkpoint_files import newest
from tinymim.vit.attention_maps import watched
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Tap


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
    """Rows of pictures, an image and then each network's map of it; the weights' licence."""

    captions: list[str] = field(default_factory=list)
    rows: list[list[Picture]] = field(default_factory=list)
    licence: str | None = None


def gallery(run: Run, shown: ShownImages) -> Gallery:
    """The attention maps of a run's networks over images: its newest checkpoint's, beside those of its teacher or the
    weights it started from. ``shown`` notes what is missing; where it is trusted, the teacher is fetched if need be."""
    made = Gallery()
    checkpoint = newest(run.place)
    if checkpoint is None:
        shown.notes.append("the run has no checkpoint, so there are no pictures of what it does")
        return made
    with shown.noted("the checkpoint cannot be shown"):
        network, provenance, _ = weights.load(checkpoint)
        made.licence = provenance.licence
        if not shown.count:
            return made
        networks = _networks(run, network, shown)
        with shown.noted("there are no images to show; name some with --images FOLDER"):
            made.captions = [each.caption for each in networks]
            for image in shown.images:
                maps = [_overlay(each, image) for each in networks]
                made.rows.append([picture("image", image), *maps])
    return made


def _networks(run: Run, network: Backbone, shown: ShownImages) -> list[ShownNetwork]:
    """The run's network, after its teacher or the weights it started from; at the blocks that were compared."""
    teacher_block = student_block = network.output_block
    with shown.noted("the blocks that were compared are not known"):
        for pair in inspection.compared(run.recipe, network)[:1]:
            teacher_block, student_block = pair
    networks = [ShownNetwork("this run", network, student_block)]
    with shown.noted(f"{run.source} cannot be shown beside it"):
        if run.source:
            title = "teacher" if run.taught else "what it started from"
            with asking_nobody(not shown.trust):
                before, _ = inspection.located(run.source).load()
            networks.insert(0, ShownNetwork(title, before, min(teacher_block, before.depth)))
    return networks


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


def _overlay(shown: ShownNetwork, image: Tensor) -> Picture:
    """The image in grey under its map in colour, from the map's least to its greatest value, which stand beneath as
    multiples of uniform attention: a map that is nearly uniform says so."""
    shares = attention(shown.network, shown.block, image)
    uniform = shares * shares.numel()
    least, most = float(uniform.min()), float(uniform.max())
    scaled = F.interpolate(uniform[None, None], size=image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    coloured = torch.from_numpy(viridis(((scaled - least) / max(most - least, 1e-6)).numpy()))
    overlay = 0.35 * image.mean(0, keepdim=True) + 0.65 * coloured.permute(2, 0, 1).float()
    text = f"{least:.2f} to {most:.2f} x uniform"
    return picture(f"attention of {shown.caption}", overlay, text, COLOURS)
