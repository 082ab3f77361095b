"""Teachers: a network with its weights, found by name or path, and the one way to load it, frozen.

A teacher is named by its card (``card.py``), as ``timm:NAME`` (``timm_hub.py``), or by the path of a checkpoint of
ours, or of somebody else's whose architecture its weights tell (``infer_architecture.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tinymim import files
from tinymim.errors import TinymimError
from tinymim.teachers import infer_architecture, timm_hub, weights, weights_file
from tinymim.teachers.card import Card, find
from tinymim.teachers.provenance import Provenance, licence_of
from tinymim.teachers.weights import File
from tinymim.vit.backbone import NO_CLASSIFIER, Backbone, skeleton


@dataclass
class Teacher:
    """A teacher that is located but not loaded: its sizes are known, so that a recipe can be checked before."""

    source: str
    skeleton: Backbone
    target_block: int | None
    licence: str
    card: Card | None = None
    record: dict[str, Any] | None = None
    file: File | None = field(default=None, repr=False)
    """The file, where it had to be read to be known; loading takes it, so that it is read once."""

    @property
    def classes(self) -> int | None:
        """Outputs of its classifier; ``None`` where it has none."""
        return self.skeleton.classes

    def problem(self) -> str | None:
        """Why it cannot be loaded, or ``None``. Reads no weights, so a damaged file shows only on loading."""
        if not self.card or self.card.weights_path():
            return None
        if is_published(self.source):
            return timm_hub.missing(self.card)
        demo = "" if self.card.rebuild else ". The demo needs no download: `tinymim distill relation_digits`"
        return f"teacher: the weights of {self.card.name} are not here; {self.card.how_to_get()}{demo}"

    def load(self, classifier: bool = False) -> tuple[Backbone, Provenance]:
        """The backbone, frozen and in eval mode, and where it came from. Those of ``timm:NAME`` are fetched if need be.
        With ``classifier``, ``Tap(depth, "logits")`` can be read.

        Raises:
            TinymimError: weights missing, truncated, of another sha256, or not fitting the architecture; or a
                classifier asked of a teacher without one.
        """
        if classifier and not self.classes:
            raise TinymimError(f"teacher: {self.source} {NO_CLASSIFIER}")
        backbone, provenance = self._load(classifier)
        return freeze(backbone), provenance

    def _load(self, classifier: bool) -> tuple[Backbone, Provenance]:
        file, self.file = self.file, None
        if file and file.changed():
            file = None
        if self.card is None:
            backbone, provenance, _ = weights.load(Path(self.source), classifier, file)
            return backbone, provenance
        if problem := self.problem():
            raise TinymimError(problem)
        path = self.card.weights_path() or timm_hub.fetch(self.card)
        digest = files.sha256(path)
        if self.card.sha256 and digest != self.card.sha256:
            raise TinymimError(
                f"teacher: {path} has sha256 {digest}, and card {self.card.path} says {self.card.sha256}: "
                f"the file is damaged or another one; {self.card.how_to_get()}"
            )
        architecture = self.card.architecture
        if not classifier:
            architecture = replace(architecture, options={**architecture.options, "num_classes": 0})
        with torch.device("cpu"):
            file = file or weights.read(path)
        backbone, matched, unexpected = weights.built(architecture, file, classifier)
        verified = "its card" if self.card.sha256 else ""
        return backbone, Provenance(
            self.card.name, str(path), digest, verified, matched, [], unexpected, self.licence, file.form
        )


def locate(source: str) -> Teacher:
    """Find a teacher by card name, card path, ``timm:NAME``, or path of a file or folder with weights.

    Raises:
        TinymimError: nothing named, nothing there, or a file that does not say enough of itself.
    """
    with torch.device("cpu"):  # also where a module is built for its sizes alone
        return _located(source)


def _located(source: str) -> Teacher:
    if not source:
        raise TinymimError(
            "teacher: none is named; give a checkpoint's path, a card's name (`tinymim teachers`) or timm:NAME; the "
            "recipe's comments say which kind"
        )
    file = None
    if path := weights_file.weights_in(source):
        file = weights.read(path)
        if file.record:
            return replace(promised(str(path), file.record), file=file)
        card = infer_architecture.card(path, file)
    else:
        card = named(source)
    # A target block outside the network would show only in the middle of a run.
    network, block = skeleton(card.architecture), card.target_block
    if block and block > network.depth:
        raise TinymimError(
            f"teacher card {card.path}: target_block: {block} is not one of the blocks 1 to {network.depth}"
        )
    return Teacher(source, network, block, card.licence, card, file=file)


def named(source: str) -> Card:
    """The card by that name or path, or the one made for ``timm:NAME``."""
    return timm_hub.card(source) if is_published(source) else find(source)


def file_of(source: str) -> Path | None:
    """The file of weights that ``source`` names; ``None`` where there is none here."""
    path = weights_file.weights_in(source) or named(source).weights_path()
    return path if path and path.is_file() else None


def is_published(source: str) -> bool:
    """Whether ``source`` is ``timm:NAME``."""
    return source.startswith(timm_hub.PREFIX)


def promised(source: str, record: dict[str, Any]) -> Teacher:
    """The teacher that a checkpoint with ``record`` is, whether it lies at ``source`` or is yet to be written there."""
    with torch.device("meta"):
        network = weights.from_record(record, classifier=True)
    return Teacher(source, network, None, licence_of(record), record=record)


def freeze(backbone: Backbone) -> Backbone:
    """Make a teacher of a backbone: no gradients, eval mode for good."""
    backbone.requires_grad_(False)
    backbone.eval()
    return backbone
