"""timm's Swin Transformers, v1 and v2, whose heads look inside windows: for analysis only, nothing here is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import timm
import torch
from timm.models import swin_transformer, swin_transformer_v2
from torch import Tensor, nn

from tinymim import files
from tinymim.analysis.layers import Layer, distances
from tinymim.errors import TinymimError
from tinymim.teachers import timm_hub, weights
from tinymim.teachers.card import Card
from tinymim.teachers.learned import check_values
from tinymim.teachers.locate import is_published
from tinymim.teachers.weights import Provenance
from tinymim.vit.architecture import Architecture
from tinymim.vit.attention_maps import watched
from tinymim.vit.images import resized

FAMILIES: dict[type[nn.Module], Any] = {
    swin_transformer.SwinTransformer: swin_transformer,
    swin_transformer_v2.SwinTransformerV2: swin_transformer_v2,
}
"""Swin's two versions, and timm's module of each."""

HEAD = ("head.", "norm.")
"""A Swin's parts after its last block."""


class Swin(nn.Module):
    """A Swin Transformer, frozen, with its input normalisation; ``image_size`` is height and width in pixels, ``depth``
    the number of blocks of all stages, ``heads`` those of each block.

    Raises:
        TinymimError: no Swin, an unknown option, or windows that do not tile the tokens of a stage: timm fills those
            up with zeros, and what attends to a zero looks nowhere.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        options = {**architecture.options, "num_classes": 0}
        try:
            vit: Any = timm.create_model(architecture.arch, pretrained=False, **options)
        except (TypeError, AssertionError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
            raise TinymimError(f"options: timm cannot build {architecture.arch} with {options}: {error}") from None
        if type(vit) not in FAMILIES:
            raise TinymimError(f"arch: {architecture.arch} is no Swin Transformer; timm's are swin_* and swinv2_*")
        self.vit, self.architecture = vit, architecture
        self.image_size: tuple[int, int] = tuple(vit.patch_embed.img_size)
        self._blocks = [block for stage in vit.layers for block in stage.blocks]
        self.depth, self.heads = len(self._blocks), [block.attn.num_heads for block in self._blocks]
        self.register_buffer("mean", torch.tensor(architecture.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(architecture.std).view(1, -1, 1, 1), persistent=False)
        for block in self._blocks:
            grid, window = block.input_resolution, block.window_size
            if any(tokens % side for tokens, side in zip(grid, window, strict=True)):
                raise TinymimError(
                    f"img_size: windows of {window[0]}x{window[1]} do not tile the {grid[0]}x{grid[1]} tokens of a "
                    f"stage of {architecture.arch}; choose img_size and window_size so that they do"
                )
        self.requires_grad_(False).eval()

    def layers(self, images: Tensor) -> Iterator[Layer]:
        """Its blocks one by one, see :func:`tinymim.analysis.layers.layers`: from stage to stage the tokens get fewer,
        and their sides twice as long."""
        side = float(self.vit.patch_embed.patch_size[0])
        mean, std = cast(Tensor, self.mean), cast(Tensor, self.std)
        x = self.vit.patch_embed((resized(images, self.image_size) - mean) / std)
        number = 0
        with watched(block.attn for block in self._blocks) as last:
            for stage in self.vit.layers:
                x = stage.downsample(x)
                side *= 1 if isinstance(stage.downsample, nn.Identity) else 2
                for block in stage.blocks:
                    number += 1
                    x = block(x)
                    maps, grid = last.maps(len(x)), (x.shape[1], x.shape[2])
                    mask = maps.options["mask"]
                    allowed = None if mask is None else mask == 0
                    between = distances(block.window_size, (side, side)).to(x.device)
                    yield Layer(
                        number, block.attn.num_heads, 0, grid, side, x.flatten(1, 2), between, maps.log, allowed
                    )

    def describe(self) -> str:
        """One line for people."""
        depths = ",".join(str(len(stage.blocks)) for stage in self.vit.layers)
        windows = dict.fromkeys("x".join(map(str, block.window_size)) for block in self._blocks)
        height, width = self.image_size
        return f"{self.architecture.arch}: depths {depths}, windows {', '.join(windows)}, {height}x{width} px"


def is_swin(source: str) -> bool:
    """Whether ``source`` is ``timm:NAME`` of a Swin Transformer. Nothing is fetched."""
    arch = source.removeprefix(timm_hub.PREFIX).partition(".")[0]
    if not is_published(source) or not timm.is_model(arch):
        return False
    return timm.model_entrypoint(arch).__module__ in {module.__name__ for module in FAMILIES.values()}


def load(card: Card) -> tuple[Swin, Provenance]:
    """A Swin Transformer with its published weights, which are fetched where they are not here; its card is that of
    :func:`tinymim.teachers.timm_hub.card`.

    Raises:
        TinymimError: the weights cannot be had, or the file does not fit.
    """
    path = card.weights_path() or timm_hub.fetch(card)
    network = Swin(card.architecture)
    expected = {key: value for key, value in network.vit.state_dict().items() if not key.startswith(HEAD)}
    # timm's own filter: some files have the names of its first versions, and buffers
    stored = FAMILIES[type(network.vit)].checkpoint_filter_fn(weights.read(path).state, network.vit)
    state = {key: value for key, value in stored.items() if key in expected and value.shape == expected[key].shape}
    left_over = sorted(stored.keys() - state.keys())
    strange = [key for key in left_over if not key.startswith(HEAD)]
    if wrong := sorted(expected.keys() - state.keys()) or strange:
        raise TinymimError(
            f"{path} does not hold the weights of {network.describe()}: {len(expected) - len(state)} of its "
            f"{len(expected)} are missing or of another shape, and {len(strange)} are left over; among them "
            f"{', '.join(wrong[:4])}"
        )
    network.vit.load_state_dict(state, strict=False)
    check_values(path, [(network.vit, state)])
    sha256 = files.sha256(path)
    return network, Provenance(
        card.name, str(path), sha256, "", len(state), [], left_over, card.licence, "Swin Transformer"
    )
