"""Sizes of a ViT that can be read, and what its tokens are: all that is known of a network before it has weights."""

from __future__ import annotations

from typing import Any, cast

from timm.models import VisionTransformer
from timm.models.deit import VisionTransformerDistilled

from tinymim.vit.architecture import Architecture
from tinymim.vit.positions import ViT, relative, rotary


class Geometry:
    """Base of :class:`tinymim.vit.backbone.Backbone`: blocks, heads, tokens and patches of its timm network."""

    vit: ViT
    architecture: Architecture

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.vit.blocks)

    @property
    def width(self) -> int:
        """Channels of a token, D."""
        return self.vit.embed_dim

    @property
    def heads(self) -> list[int]:
        """Attention heads of each block: the head layout."""
        return [block.attn.num_heads for block in self._blocks]

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along height and width."""
        return cast(tuple[int, int], tuple(self.vit.patch_embed.grid_size))

    @property
    def patches(self) -> int:
        """Number of patches, N."""
        return self.grid[0] * self.grid[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images it takes, in pixels."""
        return cast(tuple[int, int], tuple(self.vit.patch_embed.img_size))

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width of a patch, in pixels."""
        return cast(tuple[int, int], tuple(self.vit.patch_embed.patch_size))

    @property
    def prefix(self) -> int:
        """Tokens before the patches: CLS, distillation token, registers."""
        return self.vit.num_prefix_tokens

    @property
    def has_cls(self) -> bool:
        """Whether its first token is a CLS token."""
        return self.vit.cls_token is not None

    @property
    def plain(self) -> bool:
        """Whether it is a plain ViT, whose blocks need nothing but tokens."""
        return isinstance(self.vit, VisionTransformer)

    @property
    def maskable(self) -> bool:
        """Whether it can be run on a part of the patches."""
        return not relative(self.vit)

    @property
    def distilled(self) -> bool:
        """Whether its second token is a distillation token."""
        return isinstance(self.vit, VisionTransformerDistilled)

    @property
    def _blocks(self) -> list[Any]:
        return list(self.vit.blocks)

    def describe(self) -> str:
        """One line for people: sizes and head layout."""
        heads = self.heads
        layout = str(heads[0]) if len(set(heads)) == 1 else ",".join(map(str, heads))
        (height, width), (grid_h, grid_w) = self.image_size, self.grid
        positions = ""
        if rotary(self.vit):
            positions = ", rotary positions"
        elif relative(self.vit):
            positions = ", relative position bias"
        return (
            f"{self.architecture.arch}: width {self.width}, depth {self.depth}, heads {layout}, "
            f"patch {self.patch[0]}, {height}x{width} px, {grid_h}x{grid_w} patches{positions}"
        )
