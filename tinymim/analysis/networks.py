"""The networks of an analysis: found by card, checkpoint, file or timm's name, or the same with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import timm
import torch

from tinymim.analysis import swin as windows
from tinymim.analysis.swin import Windowed
from tinymim.errors import TinymimError, several
from tinymim.methods.simmim import SimMIMPretrainer
from tinymim.seeds import seeded
from tinymim.teachers import card, locate, timm_hub
from tinymim.teachers.locate import Teacher, freeze
from tinymim.teachers.weights import Provenance
from tinymim.training import looking
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.blocks import Tap
from tinymim.vit.initialise import Init, initialise, truncated, xavier

RANDOM = "random:"

MOST = 1 << 29
"""Bytes of random weights of a network that a file describes: a ViT-B has 0.35 GB."""

ORIGINS = ("start", "teacher", "deit")
"""Keys of a checkpoint's record that name the weights it was made from; without them nobody else's licence holds."""

Network = Backbone | Windowed


@dataclass
class Subject:
    """A network that is analysed.

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
    network: Network
    licence: str = ""
    provenance: Provenance | None = None
    record: dict[str, Any] = field(default_factory=dict)
    init: str = ""

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self.network.depth

    def trained(self, names: str, block: int) -> bool:
        """Whether all of ``names``, letters of q, k, v, were trained in ``block``: the blocks after the last that a
        distillation trained are as they were born, and would say nothing of it."""
        return isinstance(self.network, Windowed) or all(self.network.trained(Tap(block, name)) for name in names)

    @property
    def mapped(self) -> list[int]:
        """Blocks whose attention maps are measured: those whose q and k were trained."""
        return [block for block in range(1, self.depth + 1) if self.trained("qk", block)]

    @property
    def given_out(self) -> list[int]:
        """Blocks whose outputs are measured: those that were trained whole."""
        last = self.depth if isinstance(self.network, Windowed) else self.network.output_block
        return list(range(1, last + 1))

    @property
    def left_out(self) -> str:
        """Which of its blocks are not measured, in words."""
        missing = {
            "attention maps": sorted(set(range(1, self.depth + 1)) - {*self.mapped}),
            "outputs": sorted(set(range(1, self.depth + 1)) - {*self.given_out}),
        }
        parts = [f"the {what} of block {', '.join(map(str, blocks))}" for what, blocks in missing.items() if blocks]
        return f"{self.title}: {' and '.join(parts)} left out, which nothing has trained" if parts else ""

    @property
    def taught_by(self) -> str:
        """The sha256 of the weights it was distilled from, itself or before it was fine-tuned; empty where of none."""
        teacher = self.record.get("teacher") or (self.record.get("start") or {}).get("teacher") or {}
        return str(teacher.get("sha256", ""))

    def distilled(self) -> list[tuple[int, int]]:
        """The teacher's and the student's blocks that its distillation compared, where the recipe of its run lies
        beside its checkpoint."""
        if self.provenance is None or "teacher" not in self.record or isinstance(self.network, Windowed):
            return []
        recipe = Path(self.provenance.path).resolve().parent.parent / "config.yaml"
        try:
            return looking.compared(looking.read(recipe, f"recipe {recipe}"), self.network)
        except TinymimError:  # there is none, or none that says so
            return []

    def as_dict(self) -> dict[str, Any]:
        """For the results."""
        network = self.network
        vit: Any = network.swin if isinstance(network, Windowed) else network.vit
        weights = self.provenance
        return {
            "title": self.title,
            "source": self.source,
            "arch": network.architecture.arch,
            "width": vit.embed_dim,
            "depth": self.depth,
            "heads": network.heads,
            "grid": list(vit.patch_embed.grid_size),
            "image_size": list(network.image_size),
            "patch_px": vit.patch_embed.patch_size[0],
            "prefix_tokens": 0 if isinstance(network, Windowed) else network.prefix,
            "blocks_with_maps": self.mapped,
            "blocks_with_outputs": self.given_out,
            "weights": "random" if weights is None else weights.path,
            "init": self.init,
            "sha256": None if weights is None else weights.sha256,
            "licence": self.licence,
            "taught_by_sha256": self.taught_by,
            "distilled_blocks": [list(pair) for pair in self.distilled()],
        }


def load(models: Sequence[str], seed: int, init: Init | None = None) -> list[Subject]:
    """The networks that a command names, each ``[TITLE=]SOURCE``.

    Args:
        models: SOURCE is what :func:`tinymim.teachers.locate.locate` takes, ``timm:swin_*``, or ``random:`` and such a
            one, whose weights need not be there.
        seed: of random weights; every further one of them takes the next, so that they differ.
        init: the rule of random weights. ``None`` takes for a checkpoint of ours the rule that it says it began with
            (those of before it was noted began with ``timm``'s), and for others the ``published`` one.

    Raises:
        TinymimError: what keeps any of them from being analysed, all of it together.
    """
    named = [_titled(model) for model in models]
    titles = [title for title, _ in named]
    if twice := sorted({title for title in titles if titles.count(title) > 1}):
        raise TinymimError(
            f"models: several are called {', '.join(twice)}; give them titles: {twice[0]}=MODEL another=MODEL"
        )
    found, problems, random = [], [], 0
    for title, source in named:
        try:
            found.append(_load(title, source, seed + random, init))
        except TinymimError as error:
            problems.append(str(error).removeprefix("teacher: "))
        random += source.startswith(RANDOM)
    if problems:
        raise several("models", problems)
    return found


def _titled(model: str) -> tuple[str, str]:
    title, given, source = model.partition("=")
    if not given or Path(model).exists():  # paths may hold one too
        return _title_of(model), model
    if not title.strip() or not source:
        raise TinymimError(f"models: {model!r} is not TITLE=MODEL; give both, or the model alone")
    return title.strip(), source


def _title_of(source: str) -> str:
    """A card's name or timm's; of a checkpoint in a run folder the run's, of other files their own."""
    path = Path(source.removeprefix(RANDOM))
    if not path.exists():
        name = source.removeprefix(RANDOM).removeprefix("timm:")
    else:
        name = path.resolve().parent.parent.name if path.parent.name == "checkpoints" else path.stem
    return f"random {name}" if source.startswith(RANDOM) else name


def _load(title: str, source: str, seed: int, init: Init | None) -> Subject:
    name = source.removeprefix(RANDOM)
    if name != source:
        with seeded(seed):
            network, rule = _random(name, init)
            return Subject(title, source, network, init=rule)
    if windows.is_windowed(name):
        swin, weights = windows.load(name)
        return Subject(title, source, swin, weights.licence, weights)
    located = _located(name)
    network, weights = located.load()
    record = located.record or {}
    from_scratch = bool(record) and weights.licence == "unknown" and not any(record.get(name) for name in ORIGINS)
    return Subject(title, source, network, "" if from_scratch else weights.licence, weights, record)


def _random(name: str, init: Init | None) -> tuple[Network, Init]:
    """The network of that name, its weights drawn from the global generators, and the rule they follow."""
    if windows.is_windowed(name):  # timm's are those of Swin's own code
        return Windowed(timm_hub.card(name).architecture), "timm"
    architecture, record = _architecture(name)
    _check_bytes(name, architecture)
    began = record.get("init") or (record.get("start") or {}).get("init")
    rule: Init = init or ("published" if began == "published" or not record else "timm")
    network = Backbone(replace(architecture, options={**architecture.options, "num_classes": 0}))
    simmim = bool(record) and record["prefix"] == SimMIMPretrainer.prefix
    return freeze(initialise(network, rule, truncated if simmim else xavier)), rule


def _check_bytes(name: str, architecture: Architecture) -> None:
    """Raise where a file asks for more random weights than :data:`MOST` and than it holds; timm's names and cards of
    the project may."""
    place = card.paths().get(name)
    if locate.is_published(name) or (place and place.resolve().parent == card.PROJECT / "teachers"):
        return
    held = file.stat().st_size if (file := locate.file_of(name)) else 0
    network = skeleton(architecture)
    if (asked := sum(part.nbytes for part in (*network.parameters(), *network.buffers()))) > max(MOST, 8 * held):
        raise TinymimError(
            f"{name}: random weights of {network.describe()} would take {asked / 1e9:.1f} GB, and for a file at most "
            f"{MOST / 1e9:.1f} are drawn; random:timm:NAME has timm's own networks"
        )


def _architecture(name: str) -> tuple[Architecture, dict[str, Any]]:
    """Architecture and record of that name; of timm's networks, those too whose weights nobody has published."""
    arch = name.removeprefix(timm_hub.PREFIX)
    if name != arch and timm.is_model(arch) and not timm.is_model_pretrained(arch):
        return Architecture(arch), {}
    located = _located(name)
    return located.skeleton.architecture, located.record or {}


def _located(name: str) -> Teacher:
    try:
        return locate.locate(name)
    except TinymimError:
        if locate.is_published(name) and not _attends(arch := timm_hub.card(name).architecture.arch):
            raise TinymimError(
                f"{arch} has no attention, so there are no heads to look at; take one of timm's vit_*, deit_*, beit*, "
                "eva* or swin* models"
            ) from None
        raise


def _attends(arch: str) -> bool:
    """Whether any part of timm's network is called attention."""
    with torch.device("meta"):
        return any("attn" in name for name, _ in timm.create_model(arch, pretrained=False).named_modules())
