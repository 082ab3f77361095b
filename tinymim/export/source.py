"""Source of an export or a prediction: a backbone, perhaps its classifier, and all that is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinymim.data.transforms import PlainView
from tinymim.errors import TinymimError
from tinymim.teachers import card as cards
from tinymim.teachers import locate
from tinymim.teachers.provenance import Provenance
from tinymim.training.run_folder import RECIPE
from tinymim.vit.backbone import NO_CLASSIFIER, Backbone
from tinymim.vit.taps import LOGITS, Tap

WEIGHTS = "model.safetensors"  # the weights in an exported folder, as timm and Hugging Face look for them
KEPT = ("teacher", "start", "deit", "ema", "init")  # fields of a checkpoint's record that say where a network came from


@dataclass
class Source:
    """A loaded network."""

    name: str  # for people and for names of folders
    backbone: Backbone  # in eval mode; with its classifier, where that is wanted
    provenance: Provenance  # where its weights came from
    record: dict[str, Any]  # what its checkpoint says besides the backbone; empty for a card's
    card: cards.Card | None  # of a teacher named by its card
    left_out: str = ""  # what :func:`cut` took away, for the model card

    @property
    def run(self) -> Path | None:
        """The run folder that its checkpoint lies in, if it lies in one."""
        return None if self.card else run_of(Path(self.provenance.path))

    @property
    def classes(self) -> list[str] | None:
        """Names of its classes, where it has a classifier and there is one for each."""
        names = self.record.get("classes") or []
        return names if len(names) == self.backbone.classes else None

    def kept(self) -> dict[str, Any]:
        """Fields of its record that every export keeps."""
        named = {"classes": self.classes} if self.classes else {}
        return (
            {"licence": self.provenance.licence} | {key: self.record[key] for key in KEPT if key in self.record} | named
        )


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, if it lies in one."""
    folder = checkpoint.resolve().parent.parent
    return folder if checkpoint.is_file() and (folder / RECIPE).is_file() else None


def load(source: str, classifier: bool | None = None) -> Source:
    """Load what :func:`tinymim.teachers.locate.locate` takes: a checkpoint's path, an exported folder, a card; with its
    classifier, where it has one and ``None`` is asked.

    Raises:
        TinymimError: nothing to read, or a classifier asked of a network without one.
    """
    located = locate.locate(source)
    if classifier and not located.classes:
        raise TinymimError(f"{source} {NO_CLASSIFIER}")
    backbone, provenance = located.load(bool(located.classes) if classifier is None else classifier)
    loaded = Source("", backbone, provenance, located.record or {}, located.card)
    folder = loaded.run or Path(source).resolve()
    loaded.name = located.card.name if located.card else folder.name if folder.is_dir() else folder.stem
    return loaded


def cut(source: Source, blocks: str) -> None:
    """Drop blocks from the end, in place: ``trained`` keeps those up to the output block, ``all`` all of them, or a
    number.

    Raises:
        TinymimError: a number outside the network, or one that takes the block its classifier reads.
    """
    backbone = source.backbone
    depth, output = backbone.depth, backbone.output_block
    kept = {"trained": output, "all": depth}.get(blocks, int(blocks) if blocks.isdecimal() else 0)
    if not 1 <= kept <= depth:
        raise TinymimError(
            f"blocks: {blocks} is neither trained, nor all, nor a number from 1 to {depth}, the depth of "
            f"{backbone.architecture.arch}"
        )
    if kept == depth:
        return
    if backbone.classes:
        raise TinymimError(f"blocks: {blocks} takes block {depth}, which the classifier reads; add --no-classifier")
    # What is read stays the same: features come from the output block, or the last one that is kept.
    backbone.vit.blocks = backbone.vit.blocks[:kept]
    backbone.output_block = min(output, kept)
    some = f", of which no more was trained than {', '.join(backbone.trained_qkv)}" if backbone.trained_qkv else ""
    gone = (
        f"Block {depth} of the network is" if kept == depth - 1 else f"Blocks {kept + 1} to {depth} of the network are"
    )
    source.left_out = f"{gone} left out{some if kept == output else ''}."


def resized_side(size: int) -> int:
    """Pixels that the shorter side of an image is resized to before a square of ``size`` is cropped from it."""
    return PlainView(size).shorter


def sample(backbone: Backbone, count: int) -> Tensor:
    """Images to compare two forms of a network on, ``(count, 3, H, W)`` in [0, 1]; always the same."""
    return torch.rand(count, 3, *backbone.image_size, generator=torch.Generator().manual_seed(0))


class Outputs(torch.nn.Module):
    """The function that an export must compute of images, read at the backbone's output block."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone
        self.names = ["features", "tokens"] + ["logits"] * bool(backbone.classes)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Read ``(B, 3, H, W)`` images in [0, 1]: features ``(B, D)``, the mean patch token of the output block; its
        tokens ``(B, prefix + N, D)``; and logits ``(B, classes)`` where there is a classifier."""
        tap = Tap(self.backbone.output_block, "ffn_post")
        taps = [tap] + [Tap(self.backbone.depth, LOGITS)] * bool(self.backbone.classes)
        read = self.backbone.read(images, taps)
        return (read[tap][:, self.backbone.prefix :].mean(dim=1), *(read[output] for output in taps))


def difference(got: Tensor, expected: Tensor, most: float, what: str) -> float:
    """The largest difference of two tensors, what a written file gives and what its network does.

    Raises:
        TinymimError: it is more than ``most`` times the largest value, or than ``most`` where that is below 1 (float32
            has about 7 digits), or not a number.
    """
    largest = float((got.float() - expected.float()).abs().max())
    allowed = most * max(1.0, float(expected.abs().max()))
    if not largest <= allowed:
        raise TinymimError(
            f"{what}: as written they differ from the network's own by {largest:.1e}, and {allowed:.1e} is allowed; "
            "nothing is written"
        )
    return largest
