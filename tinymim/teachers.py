"""Teacher cards: what a teacher is, where its weights are, and the one way to load it, frozen.

A card is ``teachers/NAME.yaml``. Cards are looked for in ``$TINYMIM_TEACHERS``, ``./teachers`` and the project's own
``teachers/``; a weights file lies beside its card or in any of these folders.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from tinymim import files, weights
from tinymim.architecture import Architecture
from tinymim.backbones import NO_CLASSIFIER, Backbone, skeleton
from tinymim.errors import TinymimError
from tinymim.weights import Provenance

PROJECT = Path(__file__).resolve().parents[1]


@dataclass
class Card:
    """A teacher. ``sha256: null`` means that nobody has recorded it: it is printed on loading and not compared.

    A supervised teacher's classifier, if the file holds one under timm's names, is stated by the architecture:
    ``options: {num_classes: 1000, global_pool: token}``. It is loaded where its logits are distilled, and else left.

    Args:
        name: of the card.
        architecture: with head layout and input normalisation.
        file: name of the weights file.
        url: where the file comes from; empty for one this project makes.
        sha256: of the file.
        target_block: the block to distil from; ``None`` leaves it to the rule.
        labels_seen: whether labels were used in its training.
        licence: of the weights; it passes on to students.
        citation: the paper.
        source: who trained it, on what.
        rebuild: the command that makes it again, if there is one.
        path: of the card itself.
    """

    name: str
    architecture: Architecture
    file: str
    licence: str
    citation: str
    source: str
    url: str = ""
    sha256: str | None = None
    target_block: int | None = None
    labels_seen: bool = False
    rebuild: str = ""
    path: Path = Path()

    def weights_path(self) -> Path | None:
        """The weights file, or ``None`` where it is not on this machine."""
        places = [self.path.parent / self.file, *(folder / self.file for folder in folders())]
        return next((place for place in places if place.is_file()), None)

    def how_to_get(self) -> str:
        """What a user does to have the weights."""
        place = self.path.parent / self.file
        if self.rebuild:
            return f"restore {place} from the repository, or make it again with `{self.rebuild}`"
        return f"download {self.url} and put it at {place} (or in the folder $TINYMIM_TEACHERS names)"


def folders() -> list[Path]:
    """Where cards and weights are looked for, first match wins."""
    own = os.environ.get("TINYMIM_TEACHERS")
    return [*([Path(own)] if own else []), Path("teachers"), PROJECT / "teachers"]


def cards() -> list[Card]:
    """Every card, by name."""
    found: dict[str, Path] = {}
    for folder in reversed(folders()):
        found.update({path.stem: path for path in folder.glob("*.yaml")})
    return [read_card(found[name]) for name in sorted(found)]


def find(name: str) -> Card:
    """The card called ``name``, or the card at that path.

    Raises:
        TinymimError: no such card; the message gives the nearest names.
    """
    if name.endswith((".yaml", ".yml")):
        return read_card(Path(name))
    for folder in folders():
        if (path := folder / f"{name}.yaml").is_file():
            return read_card(path)
    known = [card.name for card in cards()]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known
    raise TinymimError(
        f"teacher: no card {name!r}; near it: {', '.join(near)}. `tinymim teachers` lists them; "
        "a checkpoint is named by its path"
    )


def read_card(path: Path) -> Card:
    """Parse one card.

    Raises:
        TinymimError: unreadable, or fields missing or unknown.
    """
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text())
        content["architecture"] = Architecture(**content["architecture"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise TinymimError(f"teacher card {path} cannot be read: {error}") from None
    known = {field.name for field in fields(Card)} - {"path"}
    if unknown := sorted(content.keys() - known):
        raise TinymimError(
            f"teacher card {path}: unknown fields {', '.join(unknown)}; known: {', '.join(sorted(known))}"
        )
    try:
        return Card(**content, path=path)
    except TypeError as error:
        raise TinymimError(f"teacher card {path}: {str(error).split('__init__() ')[-1]}") from None


@dataclass
class Teacher:
    """A teacher found but not loaded: sizes are known, so a recipe can be checked before any weights are read."""

    source: str
    skeleton: Backbone
    target_block: int | None
    licence: str
    card: Card | None = None
    record: dict[str, Any] | None = None

    @property
    def classes(self) -> int | None:
        """Outputs of its classifier; ``None`` where it has none."""
        return self.skeleton.classes

    def problem(self) -> str | None:
        """Why it cannot be loaded, or ``None``. Reads no weights, so a damaged file shows only on loading."""
        if self.card and not self.card.weights_path():
            demo = "" if self.card.rebuild else ". The demo needs no download: `tinymim distill relation_digits`"
            return f"teacher: the weights of {self.card.name} are not here; {self.card.how_to_get()}{demo}"
        return None

    def load(self, classifier: bool = False) -> tuple[Backbone, Provenance]:
        """The backbone, frozen and in eval mode, and where it came from.

        Args:
            classifier: with its classifier, so that ``Tap(depth, "logits")`` can be read.

        Raises:
            TinymimError: weights missing, truncated, of another sha256, or not fitting the architecture; or a
                classifier asked of a teacher without one.
        """
        if classifier and not self.classes:
            raise TinymimError(f"teacher: {self.source} {NO_CLASSIFIER}")
        backbone, provenance = self._load(classifier)
        return freeze(backbone), provenance

    def _load(self, classifier: bool) -> tuple[Backbone, Provenance]:
        if self.card is None:
            backbone, provenance, _ = weights.load(Path(self.source), classifier)
            return backbone, provenance
        if problem := self.problem():
            raise TinymimError(problem)
        path = self.card.weights_path()
        assert path
        digest = files.sha256(path)
        if self.card.sha256 and digest != self.card.sha256:
            raise TinymimError(
                f"teacher: {path} has sha256 {digest}, and card {self.card.path} says {self.card.sha256}: "
                f"the file is damaged or another one; {self.card.how_to_get()}"
            )
        architecture = self.card.architecture
        if not classifier:
            architecture = replace(architecture, options={**architecture.options, "num_classes": 0})
        backbone = Backbone(architecture, initialise=False)
        matched, unexpected = weights.fill(backbone, weights.read(path), classifier)
        verified = self.card.sha256 is not None
        return backbone, Provenance(self.card.name, str(path), digest, verified, matched, [], unexpected, self.licence)


def locate(source: str) -> Teacher:
    """Find a teacher by card name, card path, or path of a checkpoint of ours.

    Raises:
        TinymimError: nothing named, nothing there, or a file that is not ours.
    """
    if not source:
        raise TinymimError(
            "teacher: none is named; give a checkpoint's path or a card's name (`tinymim teachers`); the recipe's "
            "comments say which kind"
        )
    path = Path(source)
    if path.suffix in (".ckpt", ".safetensors", ".pth", ".pt", ".bin"):
        record = weights.read(path).record
        if not record:
            raise TinymimError(
                f"teacher: {path} is no checkpoint of tinymim; describe it with a card (see teachers/) and name that"
            )
        return promised(source, record)
    card = find(source)
    return Teacher(source, skeleton(card.architecture), card.target_block, card.licence, card)


def promised(source: str, record: dict[str, Any]) -> Teacher:
    """The teacher that a checkpoint with ``record`` is, whether it lies at ``source`` or is yet to be written there."""
    with torch.device("meta"):
        network = weights.from_record(record, classifier=True)
    return Teacher(source, network, None, record.get("licence", "unknown"), record=record)


def freeze(backbone: Backbone) -> Backbone:
    """Make a teacher of a backbone: no gradients, eval mode for good."""
    backbone.requires_grad_(False)
    backbone.eval()
    return backbone
