"""Base of supervised tasks: build the backbone from a checkpoint or from scratch, truncate it, regroup its heads."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

from tinymim.argument_types import check_types
from tinymim.errors import TinymimError
from tinymim.methods.base import Errors, Method, find
from tinymim.methods.optim import configure
from tinymim.teachers.provenance import SCRATCH
from tinymim.teachers.weights import from_record
from tinymim.vit.architecture import Architecture, set_heads
from tinymim.vit.backbone import Backbone, on_meta, skeleton
from tinymim.vit.initialise import Init, initialise
from tinymim.vit.taps import Tap

Blocks = Literal["auto", "all", "trained"] | int
"""Blocks of a backbone that are kept: ``all``, ``trained`` (up to its output block), a number, or ``auto``: all, or
trained where the backbone is frozen."""

HeadLayout = Literal["kept", "uniform", "published"]


class SupervisedTask(Method):
    """Base of the modules that are trained on labels.

    Args:
        weights: a checkpoint or export of this project, or a teacher card's name; ``None`` starts from scratch.
        architecture: needed from scratch. With ``weights`` their own record is followed, head layout included; of this,
            ``heads`` alone is compared with it, if given.
        init: first weights of a backbone from scratch: the ``published`` ones of TinyMIM and MAE or ``timm``'s, see
            ``tinymim/vit/initialise.py``.
    """

    slot = "network"
    """The attribute that holds the network: the backbone and what is trained on it."""
    frozen = False
    """Whether the backbone is left as it is."""
    classes_of = ""
    """The data's attribute that counts its classes."""
    lacking = ""
    """Remedy for data that has none."""
    num_classes: int | None = None
    batch_norm = False
    """Whether training normalises over the images of a step, of which it then needs two."""

    def __init__(self, weights: str | None, architecture: Architecture | None, init: Init = "published"):
        check_types(SupervisedTask, locals())
        super().__init__()
        self.source, self.architecture, self.init = weights, architecture, init
        self.knn = None
        setattr(self, self.slot, None)

    @property
    def net(self) -> Any:
        """The network."""
        network = getattr(self, self.slot)
        assert network is not None, "build comes first"
        return network

    @property
    def backbone(self) -> Backbone:
        """The network without what is trained on it."""
        return self.net.backbone

    @property
    def licence(self) -> str:
        """Combined licence of all source weights."""
        return self.located.licence if self.located else SCRATCH

    def start(self) -> Backbone:
        """The network it starts from; on the meta device its sizes alone.

        Raises:
            TinymimError: neither weights nor architecture, weights that are not there, or in another head layout.
        """
        if self.source is None:
            if self.architecture is None:
                raise TinymimError("weights: none given, and no architecture to start from scratch; set one of the two")
            return initialise(Backbone(self.architecture), "timm" if on_meta() else self.init)
        self.located = self.located or find(self.source)
        if problem := self.located.problem():
            raise TinymimError(problem.replace("teacher:", "weights:"))
        if self.architecture and self.architecture.heads:
            _check_heads(self.architecture, self.located.skeleton, self.source)
        if on_meta():
            return copy.deepcopy(self.located.skeleton)
        backbone, self.provenance = self.located.load()
        return backbone

    def start_at(self, image_size: int | None) -> Backbone:
        """The network it starts from, for images of another size: from scratch it is built for them, else resized.

        Raises:
            TinymimError: there is none, or it cannot take them.
        """
        if self.source is None and self.architecture and image_size:
            options = {**self.architecture.options, "img_size": image_size}
            self.architecture = replace(self.architecture, options=options)
        backbone = self.start()
        return resized_backbone(backbone, image_size or backbone.image_size[0])

    def count_classes(self, data: Any, errors: Errors) -> int:
        """Classes of the recipe, else of the data; 1 where data that is not set up does not tell yet."""
        known = getattr(data, self.classes_of, None)
        predicting = self._trainer and self._trainer.state.fn == "predict"
        if self.num_classes and known and 0 < self.num_classes < known:
            errors.append(f"num_classes: {self.num_classes}, and the data has {known} classes; leave it out")
        why = getattr(data, "unlabelled", None) if self.classes_of == "num_classes" else None
        set_up = self._trainer and not predicting and data is not None
        if not known and (why or set_up or not (self.num_classes or not self._trainer)):
            errors.append(why or f"data: {self.lacking}")
        return max(self.num_classes or known or 1, 1)

    def choose_trained(self, backbone: Backbone, taps: Iterable[Tap]) -> None:
        """Train the parameters that a loss on ``taps`` reaches, or none of a frozen backbone."""
        reached = backbone.reached(taps)
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name in reached and not self.frozen)

    def train(self, mode: bool = True) -> SupervisedTask:
        """Change the mode of all but a frozen backbone, which stays in eval mode."""
        super().train(mode)
        if self.frozen and getattr(self, self.slot) is not None:
            self.backbone.eval()
        return self

    def on_fit_start(self) -> None:
        """Refuse steps of one image, where BatchNorm has a single value a channel."""
        data = getattr(self.trainer, "datamodule", None)
        batch = min(getattr(data, "batch_size", 2), len(getattr(data, "train", "--")))
        if self.batch_norm and self.trainer.world_size * batch < 2:
            raise TinymimError("data.batch_size: steps of 1 image, and BatchNorm over them needs 2 images or more")

    def configure_optimizers(self) -> Any:
        """AdamW with layer-wise decay of the learning rate."""
        return configure(self.net, self.optim, self.trainer)

    def checkpoint_record(self) -> dict[str, Any]:
        """Record of a checkpoint; the rule of first weights only where it starts from scratch."""
        record = super().checkpoint_record()
        if self.source is not None:
            record.pop("init")
        return record

    def summary(self) -> list[tuple[str, str]]:
        """The backbone and what it starts from, for people."""
        start = str(self.provenance) if self.provenance else f"from scratch: first weights {self.init}"
        lines = [("backbone", self.backbone.describe()), ("", start)]
        if self.backbone.resampled_from:
            lines.append(("positions", resampling(self.backbone)))
        return lines


def _check_heads(architecture: Architecture, start: Backbone, source: str) -> None:
    """Raise where the recipe's heads are not those that the weights were trained with."""
    recipe, adapted = skeleton(architecture).heads, start.output_block
    if len(recipe) != start.depth:
        raise TinymimError(
            f"architecture: {source} has {start.depth} blocks, and the recipe's network {len(recipe)}; "
            "--model.architecture null follows the weights"
        )
    expected = list(recipe)
    if isinstance(architecture.heads, int):  # of all blocks but the one that has its teacher's number
        expected[adapted : adapted + 1] = start.heads[adapted : adapted + 1]
    if expected != start.heads:
        raise TinymimError(
            f"head layout: {source} was trained with heads {start.heads}, and architecture.heads asks for {recipe}; "
            "--model.architecture null follows the weights"
        )


def resampling(backbone: Backbone) -> str:
    """Words for positions that were fitted to another grid than they were trained on."""
    assert backbone.resampled_from
    old, new = ("x".join(map(str, grid)) for grid in (backbone.resampled_from, backbone.grid))
    return f"resampled from {old} patches to {new}"


def size_errors(backbone: Backbone, image_size: int | None) -> list[str]:
    """Why a backbone does not take the data's images, which are not resized for it."""
    size = backbone.image_size
    if image_size is None or size == (image_size, image_size):
        return []
    return [
        f"data.image_size: {image_size}, but the backbone takes {size[0]}; make them equal, with "
        f"--model.architecture.options.img_size {image_size}"
    ]


def truncate(backbone: Backbone, blocks: Blocks, frozen: bool) -> None:
    """Drop the blocks after the last one that is used, in place.

    Args:
        backbone: whose output block is the last that pre-training trained whole.
        blocks: see :data:`Blocks`.
        frozen: its features are read as they are.

    Raises:
        TinymimError: a number that the backbone does not have.
    """
    if blocks == "auto":
        blocks = "trained" if frozen else "all"
    number = {"all": backbone.depth, "trained": backbone.output_block}.get(str(blocks), blocks)
    if not isinstance(number, int) or not 1 <= number <= backbone.depth:
        raise TinymimError(f"blocks: {blocks} is outside the backbone, which has blocks 1 to {backbone.depth}")
    backbone.output_block = number
    backbone.vit.blocks = backbone.vit.blocks[:number]


def regroup_heads(backbone: Backbone, layout: HeadLayout) -> str:
    """Regroup the attention heads where asked, in place, and describe the layout."""
    if layout == "kept":
        return layout
    published = skeleton(replace(backbone.architecture, heads=None)).heads[0]
    heads = backbone.heads[0] if layout == "uniform" else published
    before = ", ".join(map(str, backbone.heads))
    for block in range(1, backbone.depth + 1):
        set_heads(backbone.vit, block, heads)
    return f"{layout}, {heads} in every block; the weights come with {before}"


def resized_backbone(backbone: Backbone, size: int) -> Backbone:
    """The same weights with positions fitted to another grid; the backbone itself where the size is its own.

    Args:
        backbone: with weights, or on the meta device.
        size: side of square images in pixels, a multiple of the patch.

    Raises:
        TinymimError: ``size`` is none.
    """
    rows, columns = backbone.patch
    if size % rows or size % columns:
        raise TinymimError(f"data.image_size: {size} is no multiple of the backbone's {rows}x{columns} px patches")
    if backbone.image_size == (size, size):
        return backbone
    record = backbone.record()
    record["architecture"]["options"]["img_size"] = size
    with next(backbone.parameters()).device:
        other = from_record({"backbone": record})
    other.vit.load_state_dict(other.fit(backbone.vit.state_dict(), backbone.grid))
    return other
