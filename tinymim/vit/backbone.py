"""The reader: run a timm ViT up to the deepest tap, and return the readings.

Blocks are numbered from 1, as papers do; what can be read of each is in ``tinymim/vit/taps.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import call
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tinymim.errors import TinymimError
from tinymim.near_names import near
from tinymim.vit.architecture import Architecture, build, set_heads
from tinymim.vit.classifier_head import Head
from tinymim.vit.geometry import Geometry
from tinymim.vit.images import check_images, check_values, resized
from tinymim.vit.positions import Positions, embed_positions, fit_positions
from tinymim.vit.taps import (
    ATTENTION,
    CLASSIFIER,
    FFN,
    LOGITS,
    QKV,
    TAPS,
    Readings,
    Tap,
    as_taps,
    choose_attention,
    kept_tokens,
    routes,
    run_block,
)

NO_CLASSIFIER = (
    "has no classifier, so it has no logits; use a checkpoint of fine-tuning (`tinymim fit --config finetune_digits`), "
    "or a card whose architecture.options say num_classes and global_pool"
)

NOT_MASKABLE = "cannot be run on a part of the patches, as its relative position bias is laid out for all of them"


class Backbone(Geometry, nn.Module):
    """A timm ViT with its input normalisation, its head layout and the block its features are read from.

    A teacher may have a classifier: timm's own, where the architecture's options say ``num_classes``, or a
    :class:`Head` of this project in ``classifier``.

    Args:
        architecture: what to build.
        output_block: the block (from 1) whose output :meth:`features` reads by default; ``None`` is the last.
        trained_qkv: those of q, k, v that were trained in the block after it.
        initialise: leave ``False`` when weights are loaded right after.

    Raises:
        TinymimError: unknown architecture or option, not a ViT that can be read, or heads that do not divide the width.
    """

    def __init__(
        self,
        architecture: Architecture,
        output_block: int | None = None,
        trained_qkv: Iterable[str] = QKV,
        initialise: bool = True,
    ):
        super().__init__()
        self.vit = build(architecture, initialise and not on_meta())
        self.architecture = architecture
        self.output_block = output_block or self.depth
        self.trained_qkv = list(trained_qkv)
        self.classifier: Head | None = None
        self.resampled_from: tuple[int, int] | None = None
        """The grid its positions were trained on, where they had to be resampled to this one's."""
        self.checkpointing = False
        """Recompute blocks in the backward pass instead of keeping what they computed: less memory, more time."""
        self.register_buffer("mean", torch.tensor(architecture.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(architecture.std).view(1, -1, 1, 1), persistent=False)

    @property
    def classes(self) -> int | None:
        """Outputs of its classifier; ``None`` where it has none."""
        return self.classifier.form.classes if self.classifier else self.vit.num_classes or None

    def normalise(self, images: Tensor) -> Tensor:
        """Images in [0, 1] to the values this network's weights expect."""
        return (images - cast(Tensor, self.mean)) / cast(Tensor, self.std)

    def denormalise(self, values: Tensor) -> Tensor:
        """Images in [0, 1] of what :meth:`normalise` made of them."""
        return values * cast(Tensor, self.std) + cast(Tensor, self.mean)

    def embed(
        self, images: Tensor, keep: Tensor | None = None, replace: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Tokens ``(B, prefix + N, D)`` that enter block 1, K patches of them with ``keep``.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1]; resized where the network takes another size.
            keep: ``(B, K)`` indices of the patches to keep; the others are dropped. ``None`` keeps all.
            replace: what to make of the ``(B, N, D)`` patches before they get their positions.

        Raises:
            TinymimError: other ``images``, see :func:`tinymim.vit.images.check_images`.
        """
        return self._embed(images, keep, replace)[0]

    def _embed(
        self, images: Tensor, keep: Tensor | None = None, replace: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, list[Positions]]:
        """Like :meth:`embed`, plus each block's keyword arguments."""
        if keep is not None and not self.maskable:
            raise TinymimError(f"{self.architecture.arch} {NOT_MASKABLE}")
        check_images(images, cast(Tensor, self.mean))
        x = self.vit.patch_embed(self.normalise(resized(images, self.image_size)))
        x, positions = embed_positions(self.vit, replace(x) if replace else x, keep)
        choose_attention(self._blocks, x)
        return x if keep is None else kept_tokens(x, keep, self.prefix), positions

    def read(self, images: Tensor, taps: Iterable[Tap], keep: Tensor | None = None) -> Readings:
        """Run as far as the deepest tap and no further; of its block, only the parts that the taps need.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1].
            taps: where to read.
            keep: as in :meth:`embed`.

        Returns:
            ``(B, prefix + N, D)`` for each tap, ``(B, classes)`` for ``logits``.

        Raises:
            TinymimError: other ``images``, a tap outside the network, or the logits of one without classifier.
        """
        return {
            Tap(number, name): part
            for number, parts, _ in self.walk(images, taps, keep)
            for name, part in parts.items()
        }

    def walk(
        self, images: Tensor, taps: Iterable[Tap], keep: Tensor | None = None
    ) -> Iterator[tuple[int, dict[str, Tensor], Positions]]:
        """Like :meth:`read`, block by block, so that activations of all need not be kept: of each block with a tap its
        number, its parts by name, and its keyword arguments."""
        wanted = self.check(taps)
        last = max(tap.block for tap in wanted)
        x, positions = self._embed(images, keep)
        run: Callable[..., Any] = partial(checkpoint, use_reentrant=False) if self.checkpointing else call
        for number, (block, kwargs) in enumerate(zip(self._blocks[:last], positions, strict=False), start=1):
            names = {tap.name for tap in wanted if tap.block == number}
            if not names:
                x = run(block, x, **kwargs)
                continue
            x, parts = run(run_block, block, x, names, number == last, kwargs)
            if LOGITS in names:
                parts[LOGITS] = self._classify(parts["ffn_post"])
            yield number, {name: parts[name] for name in names}, kwargs

    def block_kwargs(self) -> list[Positions]:
        """Each block's keyword arguments for whole images, which are the same for all of them."""
        weight = next(self.parameters())
        return self._embed(weight.new_zeros((1, 3, *self.image_size)))[1]

    def _classify(self, tokens: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of what the last block gives out, ``(B, prefix + N, D)``."""
        return self.classifier(tokens) if self.classifier else self.vit.forward_head(self.vit.norm(tokens))

    def features(self, images: Tensor, block: int | None = None) -> Tensor:
        """Mean of the patch tokens that ``block`` (default: the output block) gives out, ``(B, D)``.

        Args:
            images: as for :meth:`read`.
            block: from 1.

        Raises:
            TinymimError: as :meth:`read`; or values outside of [0, 1], on a CPU, see
                :func:`tinymim.vit.images.check_values`.
        """
        tap = Tap(self.output_block if block is None else block, "ffn_post")
        tokens = self.read(images, [tap])[tap]
        check_values(images)
        return tokens[:, self.prefix :].mean(dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """:meth:`features` of the output block, ``(B, D)``."""
        return self.features(images)

    def reached(self, taps: Iterable[Tap]) -> set[str]:
        """Names of the parameters on which a read of ``taps`` depends, known from the reader's own route."""
        wanted = self.check(taps)
        begin = [f"vit.{part}" for part in routes(wanted)]
        if any(tap.name == LOGITS for tap in wanted):
            begin += ["classifier."] if self.classifier else [f"vit.{part}" for part in CLASSIFIER]
        return {name for name, _ in self.named_parameters() if name.startswith(tuple(begin))}

    def last_trained_block(self, taps: Iterable[Tap]) -> int:
        """The deepest block all of whose parts a loss on ``taps`` trains; 0 when there is none."""
        wanted = self.check(taps)
        last = max(tap.block for tap in wanted)
        return last if any(tap.block == last and tap.name in (*FFN, LOGITS) for tap in wanted) else last - 1

    def set_output_block(self, taps: Iterable[Tap]) -> None:
        """Note how far a loss on ``taps`` trains this network: its output block, and q, k and v beyond it."""
        wanted = self.check(taps)
        whole = self.last_trained_block(wanted)
        names = {tap.name for tap in wanted if tap.block == whole + 1}
        self.output_block = max(whole, 1)
        self.trained_qkv = [name for name in QKV if whole and (name in names or names & {*ATTENTION})]

    def freeze_unreached(self, taps: Iterable[Tap]) -> int:
        """Freeze the parameters that no loss on ``taps`` reaches, and count them."""
        reached = self.reached(taps)
        unreached = [parameter for name, parameter in self.named_parameters() if name not in reached]
        return sum(parameter.requires_grad_(False).numel() for parameter in unreached)

    def with_weights(self) -> Backbone:
        """A network of these sizes, head layout and output block, with first weights; this one may be a skeleton."""
        network = Backbone(self.architecture, self.output_block, self.trained_qkv)
        for block, heads in enumerate(self.heads, start=1):
            set_heads(network.vit, block, heads)
        return network

    def trained(self, tap: Tap) -> bool:
        """Whether what ``tap`` reads was trained: up to the output block everything, and what lies beyond it."""
        return tap.block <= self.output_block or (tap.block == self.output_block + 1 and tap.name in self.trained_qkv)

    def check(self, taps: Iterable[Tap]) -> set[Tap]:
        """``taps`` as a set, or an error that names the one outside the network."""
        wanted = as_taps(taps)
        if not wanted:
            raise TinymimError("nothing to read: no tap is named")
        for block, name in wanted:
            if not 1 <= block <= self.depth:
                raise TinymimError(
                    f"block {block} is outside {self.architecture.arch}: it has blocks 1 to {self.depth}"
                )
            if name not in TAPS:
                raise TinymimError(f"unknown tap {name!r}{near(name, TAPS)}")
            if name == LOGITS and block != self.depth:
                raise TinymimError(f"logits come after the last block, {self.depth}; block {block} has none")
            if name == LOGITS and not self.classes:
                raise TinymimError(f"{self.architecture.arch} {NO_CLASSIFIER}")
        return wanted

    def compile_blocks(self) -> None:
        """Compile each block with ``torch.compile``, in place: names of weights stay, and equal blocks share code."""
        for block in self._blocks:
            block.compile()
            for part in (block.attn, block.mlp):  # a tapped block is run part by part
                part.compile()

    def describe_output(self) -> str:
        """The output block, for people, and why it is not the last."""
        text = f"block {self.output_block} of {self.depth}"
        if self.output_block < self.depth:
            text += f": the loss does not train all of block {self.output_block + 1}, so kNN and probes read before it"
        return text

    def fit(self, state: dict[str, Tensor], trained_on: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """``state`` with its positions resampled to this network's grid from the one they were ``trained_on`` (see
        :func:`fit_positions`); it is noted."""
        fitted, self.resampled_from = fit_positions(self.vit, state, self.architecture.resampling, trained_on)
        return fitted

    def record(self) -> dict[str, Any]:
        """Record of a checkpoint beside the weights, in plain types (see ``tinymim/teachers/weights.py``)."""
        architecture = self.architecture.record()
        options = {**architecture["options"], "depth": self.depth}  # blocks may have been cut off since it was built
        architecture |= {"options": options, "heads": self.heads}
        return {"architecture": architecture, "output_block": self.output_block, "beyond": self.trained_qkv}


def on_meta() -> bool:
    """Whether networks are built on the meta device: sizes alone."""
    return torch.get_default_device().type == "meta"


def skeleton(architecture: Architecture) -> Backbone:
    """The network on the meta device: all its sizes, no memory and no weights."""
    with torch.device("meta"):
        return Backbone(architecture, initialise=False)
