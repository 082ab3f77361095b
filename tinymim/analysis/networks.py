"""The networks of an analysis: found by card, checkpoint, file or timm's name, or the same with random weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import timm
import torch

from tinymim.analysis import swin
from tinymim.analysis.captions import RANDOM
from tinymim.analysis.swin import Swin
from tinymim.errors import TinymimError, several
from tinymim.files import shipped
from tinymim.methods.simmim import SimMIMPretrainer
from tinymim.seeds import seeded
from tinymim.tasks.base import resampling, resized_backbone
from tinymim.teachers import card, locate, timm_hub
from tinymim.teachers.locate import Teacher, freeze
from tinymim.teachers.provenance import SCRATCH, Provenance
from tinymim.training import inspection
from tinymim.training.run_folder import RECIPE
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.initialise import Init, initialise, truncated, xavier
from tinymim.vit.taps import Tap

MOST = 1 << 29
"""Bytes of random weights of a network that a file describes: a ViT-B has 0.35 GB."""


@dataclass
class AnalysedNetwork:
    """A network with its title and the origin of its weights.

    Args:
        title: names it on the page.
        source: as it was given.
        network: frozen.
        licence: of its weights; empty where they are random, or were trained from scratch.
        provenance: of its weights; ``None`` where they are random.
        record: of its checkpoint; empty for others.
        init: the rule of random weights, ``published`` or ``timm``; empty for others.
    """

    title: str
    source: str
    network: Backbone | Swin
    licence: str = ""
    provenance: Provenance | None = None
    record: dict[str, Any] = field(default_factory=dict)
    init: str = ""

    def is_trained(self, names: str, block: int) -> bool:
        """Whether all of ``names``, letters of q, k, v, were trained in ``block``: blocks after the last one that a
        distillation trained still have their random initialisation and are excluded."""
        return isinstance(self.network, Swin) or all(self.network.trained(Tap(block, name)) for name in names)

    @property
    def blocks_with_maps(self) -> list[int]:
        """Blocks whose attention maps are measured: those whose q and k were trained."""
        return [block for block in range(1, self.network.depth + 1) if self.is_trained("qk", block)]

    @property
    def blocks_with_outputs(self) -> list[int]:
        """Blocks whose outputs are measured: those that were trained whole."""
        return list(range(1, getattr(self.network, "output_block", self.network.depth) + 1))

    @property
    def exclusions(self) -> str:
        """A sentence on the blocks that are not measured; empty where all are."""
        parts = []
        for name, blocks in (("attention maps", self.blocks_with_maps), ("outputs", self.blocks_with_outputs)):
            if missing := [str(block) for block in range(1, self.network.depth + 1) if block not in blocks]:
                parts.append(f"the {name} of block {', '.join(missing)}")
        return f"{self.title}: {' and '.join(parts)} left out, which nothing has trained" if parts else ""

    @property
    def resampled(self) -> str:
        """A sentence on positions that were fitted to images of another size; empty where all are its own."""
        if isinstance(self.network, Swin) or self.network.resampled_from is None:
            return ""
        return f"{self.title}: positions {resampling(self.network)}"

    @property
    def teacher_sha256(self) -> str:
        """The sha256 of the weights it was distilled from, itself or before it was fine-tuned; empty without any."""
        teacher = self.record.get("teacher") or (self.record.get("start") or {}).get("teacher") or {}
        return str(teacher.get("sha256", ""))

    def distilled_blocks(self) -> list[tuple[int, int]]:
        """The teacher's and the student's blocks that its distillation compared, where the recipe of its run lies
        beside its checkpoint."""
        if self.provenance is None or "teacher" not in self.record or isinstance(self.network, Swin):
            return []
        recipe = Path(self.provenance.path).resolve().parent.parent / RECIPE
        try:
            return inspection.compared(inspection.read(recipe, f"recipe {recipe}"), self.network)
        except TinymimError:  # no recipe there, or none of a distillation
            return []

    def as_dict(self) -> dict[str, Any]:
        """Its entry in ``analysis.json``."""
        network, vit, weights = self.network, self.network.vit, self.provenance
        return {
            "title": self.title,
            "source": self.source,
            "arch": network.architecture.arch,
            "width": vit.embed_dim,
            "depth": network.depth,
            "heads": network.heads,
            "grid": list(vit.patch_embed.grid_size),
            "image_size": list(network.image_size),
            "patch_px": vit.patch_embed.patch_size[0],
            "prefix_tokens": getattr(network, "prefix", 0),
            "blocks_with_maps": self.blocks_with_maps,
            "blocks_with_outputs": self.blocks_with_outputs,
            "weights": "random" if weights is None else weights.path,
            "init": self.init,
            "sha256": None if weights is None else weights.sha256,
            "licence": self.licence,
            "taught_by_sha256": self.teacher_sha256,
            "distilled_blocks": [list(pair) for pair in self.distilled_blocks()],
        }


def load(
    models: Sequence[str], seed: int, init: Init | None = None, image_size: int | None = None
) -> list[AnalysedNetwork]:
    """The networks that a command names, each ``[TITLE=]SOURCE``.

    Args:
        models: SOURCE is what :func:`tinymim.teachers.locate.locate` takes, ``timm:swin_*``, or ``random:`` and such a
            one, whose weights need not be there.
        seed: of random weights; every further one of them takes the next, so that they differ.
        init: the rule of random weights. ``None`` takes for a checkpoint of ours the rule that its record names
            (``timm``'s for records that name none), and for others the ``published`` one.
        image_size: side of the images in pixels, to which positions are resampled; ``None`` leaves each its own.

    Raises:
        TinymimError: what keeps any of them from being analysed, all of it together.
    """
    named = [_split_title(model) for model in models]
    counts = Counter(title for title, _ in named)
    if twice := sorted(title for title, count in counts.items() if count > 1):
        raise TinymimError(
            f"models: several are called {', '.join(twice)}; give them titles: {twice[0]}=MODEL another=MODEL"
        )
    networks, errors, random = [], [], 0
    for title, source in named:
        try:
            network = _load(title, source, seed + random, init)
            networks.append(network if image_size is None else _resized(network, image_size))
        except TinymimError as error:
            errors.append(str(error).removeprefix("teacher: "))
        random += source.startswith(RANDOM)
    if errors:
        raise several("models", errors)
    return networks


def _resized(network: AnalysedNetwork, image_size: int) -> AnalysedNetwork:
    if not isinstance(network.network, Backbone):
        raise TinymimError(f"{network.source}: image_size: attention in windows keeps the size it was trained at")
    try:
        return replace(network, network=freeze(resized_backbone(network.network, image_size)))
    except TinymimError as error:
        raise TinymimError(f"{network.source}: {str(error).removeprefix('data.')}") from None


def _split_title(model: str) -> tuple[str, str]:
    """Title and source; without a title a card's name or timm's, for a checkpoint in a run folder the run's, for other
    files their own."""
    title, sign, source = model.partition("=")
    if sign and not Path(model).exists():  # paths may hold the sign too
        if not title.strip() or not source:
            raise TinymimError(f"models: {model!r} is not TITLE=MODEL; give both, or the model alone")
        return title.strip(), source
    name = model.removeprefix(RANDOM)
    path, title = Path(name), name.removeprefix(timm_hub.PREFIX)
    if path.exists():
        title = path.resolve().parent.parent.name if path.parent.name == "checkpoints" else path.stem
    return title if name == model else f"random {title}", model


def _load(title: str, source: str, seed: int, init: Init | None) -> AnalysedNetwork:
    name = source.removeprefix(RANDOM)
    if name != source:
        with seeded(seed):
            network, rule = _random(name, init)
            return AnalysedNetwork(title, source, network, init=rule)
    if swin.is_swin(name):
        windowed, weights = swin.load(timm_hub.card(name))
        return AnalysedNetwork(title, source, windowed, weights.licence, weights)
    located = _locate(name)
    backbone, weights = located.load()
    record = located.record or {}
    licence = "" if weights.licence == SCRATCH else weights.licence
    return AnalysedNetwork(title, source, backbone, licence, weights, record)


def _random(name: str, init: Init | None) -> tuple[Backbone | Swin, Init]:
    """The network of that name, its weights drawn from the global generators, and the rule they follow."""
    if swin.is_swin(name):  # timm's rule is that of Swin's own code
        return Swin(timm_hub.card(name).architecture), "timm"
    architecture, record = _architecture(name)
    _check_bytes(name, architecture)
    recorded = record.get("init") or (record.get("start") or {}).get("init")
    rule: Init = init or ("published" if recorded == "published" or not record else "timm")
    network = Backbone(replace(architecture, options={**architecture.options, "num_classes": 0}))
    simmim = bool(record) and record["prefix"] == SimMIMPretrainer.prefix
    return freeze(initialise(network, rule, truncated if simmim else xavier)), rule


def _check_bytes(name: str, architecture: Architecture) -> None:
    """Raise where a file asks for more random weights than :data:`MOST` and than it holds; timm's names and cards of
    the project may."""
    place = card.paths().get(name)
    if locate.is_published(name) or (place and place.resolve().parent == shipped("teachers")):
        return
    held = file.stat().st_size if (file := locate.file_of(name)) else 0
    network = skeleton(architecture)
    if (size := sum(part.nbytes for part in (*network.parameters(), *network.buffers()))) > max(MOST, 8 * held):
        raise TinymimError(
            f"{name}: random weights of {network.describe()} would take {size / 1e9:.1f} GB, and for a file at most "
            f"{MOST / 1e9:.1f} are drawn; random:timm:NAME has timm's own networks"
        )


def _architecture(name: str) -> tuple[Architecture, dict[str, Any]]:
    """Architecture and record of that name, also of timm's networks whose weights nobody has published."""
    arch = name.removeprefix(timm_hub.PREFIX)
    if name != arch and timm.is_model(arch) and not timm.is_model_pretrained(arch):
        return Architecture(arch), {}
    located = _locate(name)
    return located.skeleton.architecture, located.record or {}


def _locate(name: str) -> Teacher:
    try:
        return locate.locate(name)
    except TinymimError:
        if not locate.is_published(name):
            raise
        arch = timm_hub.card(name).architecture.arch
        with torch.device("meta"):
            parts = timm.create_model(arch, pretrained=False).named_modules()
        if any("attn" in part for part, _ in parts):
            raise
        raise TinymimError(
            f"{arch} has no attention, so there are no heads to look at; take one of timm's vit_*, deit_*, beit*, "
            "eva* or swin* models"
        ) from None
