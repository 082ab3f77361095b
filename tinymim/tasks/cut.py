"""How much of a pre-trained backbone is used, and in which heads."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from tinymim.errors import TinymimError
from tinymim.vit.architecture import set_heads
from tinymim.vit.backbone import Backbone, skeleton

Blocks = Literal["auto", "all", "trained"] | int
HeadLayout = Literal["kept", "uniform", "published"]


def cut(backbone: Backbone, blocks: Blocks, frozen: bool) -> None:
    """Drop what comes after the last block that is used, in place.

    Args:
        backbone: whose output block is the last that pre-training trained whole.
        blocks: ``all``, ``trained`` (up to its output block), a number, or ``auto``: all, or trained if ``frozen``.
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


def lay_out(backbone: Backbone, layout: HeadLayout) -> str:
    """Regroup the heads where asked, in place; what was done, for people."""
    if layout == "kept":
        return layout
    own = backbone.heads[0] if layout == "uniform" else skeleton(replace(backbone.architecture, heads=None)).heads[0]
    before = ", ".join(map(str, backbone.heads))
    for block in range(1, backbone.depth + 1):
        set_heads(backbone.vit, block, own)
    return f"{layout}, {own} in every block; the weights come with {before}"
