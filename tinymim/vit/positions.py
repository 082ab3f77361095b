"""Positions of patches: how each family of networks tells its blocks, and how they are fitted to another grid.

Most add an embedding to the tokens that enter block 1. timm's Eva networks may rotate q and k in every block by the
patch's place (rope, arXiv 2104.09864), the prefix left as it is. BEiTs may add a bias, by the offset between two
patches, to the products of q and k: a table for each block, or one that all share.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from timm.models import Beit, Eva, VisionTransformer
from torch import Tensor

from tinymim.errors import TinymimError
from tinymim.vit.description import Resampling

ViT = VisionTransformer | Eva | Beit  # the families the reader knows

Positions = dict[str, Tensor]
"""Keyword arguments of a block beside its tokens: nothing in a plain ViT, ``rope`` in an Eva,
``shared_rel_pos_bias`` in a BEiT."""

TABLE = "relative_position_bias_table"


def embed_positions(vit: ViT, patches: Tensor, keep: Tensor | None = None) -> tuple[Tensor, list[Positions]]:
    """Tokens ``(B, prefix + N, D)`` that enter the blocks, and each block's keyword arguments for those it will see.

    Args:
        vit: whose patch embedding they come from.
        patches: as it gives them, ``(B, N, D)``.
        keep: ``(B, K)`` indices of the patches that the blocks will see; ``None`` is all of them.
    """
    depth = len(vit.blocks)
    if isinstance(vit, Beit):
        x = torch.cat([vit.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)
        x = vit.pos_drop(x if vit.pos_embed is None else x + vit.pos_embed)
        return x, [{} if vit.rel_pos_bias is None else {"shared_rel_pos_bias": vit.rel_pos_bias()}] * depth
    if isinstance(vit, Eva):
        x, rope = vit._pos_embed(patches)
        if rope is None:
            return vit.norm_pre(x), [{}] * depth
        rope = rope if keep is None else _kept(rope, keep)
        return vit.norm_pre(x), [{"rope": rope[block] if vit.rope_mixed else rope} for block in range(depth)]
    return vit.norm_pre(vit._pos_embed(patches)), [{}] * depth


def _kept(rope: Tensor, keep: Tensor) -> Tensor:
    """Rotations of the ``(B, K)`` patches: ``(B, 1, K, C)`` of ``(N, C)``, the same for all heads; or
    ``(depth, B, H, K, C)`` of ``(depth, H, N, C)``."""
    kept = rope[..., keep, :]
    return kept.unsqueeze(1) if rope.dim() == 2 else kept.transpose(1, 2)


def rotary(vit: ViT) -> bool:
    """Whether q and k are rotated by the places of their patches."""
    return isinstance(vit, Eva) and vit.rope is not None


def relative(vit: ViT) -> bool:
    """Whether the products of q and k get a bias by the offset between their patches."""
    tables = (getattr(block.attn, TABLE) for block in vit.blocks) if isinstance(vit, Beit) else ()
    return isinstance(vit, Beit) and (vit.rel_pos_bias is not None or any(table is not None for table in tables))


def fit_positions(
    vit: ViT,
    state: dict[str, Tensor],
    resampling: Resampling = "timm",
    trained_on: tuple[int, int] | None = None,
) -> tuple[dict[str, Tensor], tuple[int, int] | None]:
    """Fit the positions in a state dict to the grid of ``vit``, of which sizes are enough, where they were trained on
    another.

    Embeddings are resampled bicubically, antialiased as timm does, or as :func:`_without_antialias`; tables as BEiT's
    authors do, on a grid that is finer around the middle, by timm's linear interpolation; the prefix keeps its own. A
    fixed sine-cosine embedding is resampled like a learned one, as MAE's authors do: made anew for a larger grid it
    would hold positions that the weights have never seen. Rotations come from the grid alone and are in no file. What
    does not look like positions of another grid stays as it is.

    Args:
        vit: the network that is to have them.
        state: its weights, positions included.
        resampling: of an embedding.
        trained_on: rows and columns of the grid of ``state``, where they are known. Two grids may have one number of
            patches, as 14 x 14 and 7 x 28. Without it, positions of another number are taken to be square.

    Returns:
        ``state`` with its positions fitted, and the grid they were resampled from, if they were.

    Raises:
        TinymimError: tables of a grid that is not square are to be fitted to another.
    """
    grid, fitted, resampled_from = tuple(vit.patch_embed.grid_size), dict(state), None
    if trained_on == grid:
        return fitted, None
    for key, ours in vit.state_dict().items():
        stored = state.get(key, ours)
        alike = stored.shape == ours.shape and not trained_on
        if alike or stored.dim() != ours.dim() or stored.shape[-1] != ours.shape[-1]:
            continue
        if key == "pos_embed":
            prefix = ours.shape[1] - grid[0] * grid[1]
            count = stored.shape[1] - prefix
            if old := trained_on if trained_on and math.prod(trained_on) == count else square(count):
                if resampling == "timm":
                    fitted[key] = resample_abs_pos_embed(stored, list(grid), list(old), prefix)
                else:
                    fitted[key] = _without_antialias(stored, grid, old, prefix, 0.1 * (resampling == "dinov2"))
                resampled_from = old
        elif key.endswith(TABLE):
            if trained_on and trained_on[0] != trained_on[1]:
                raise TinymimError(
                    f"relative positions of {trained_on[0]}x{trained_on[1]} patches cannot be resampled to "
                    f"{grid[0]}x{grid[1]}: only a square grid's can; keep the img_size they were trained at"
                )
            if (offsets := square(len(stored) - 3)) and offsets[0] % 2:  # 3 rows are the prefix's
                with warnings.catch_warnings(action="ignore"):  # of how timm indexes
                    fitted[key] = resize_rel_pos_bias_table(stored, grid, tuple(ours.shape))
                resampled_from = ((offsets[0] + 1) // 2,) * 2
    return fitted, resampled_from


def square(count: int) -> tuple[int, int] | None:
    """Rows and columns of a square of ``count`` cells, if there is one."""
    side = math.isqrt(max(count, 0))
    return (side, side) if side and side * side == count else None


def _without_antialias(
    stored: Tensor, new: tuple[int, int], old: tuple[int, int], prefix: int, offset: float
) -> Tensor:
    """``(1, prefix + N, D)`` positions of ``old`` rows and columns of patches on another grid, as two read DINOv2
    without registers (arXiv 2304.07193, ``interpolate_pos_encoding``): its own code with an ``offset`` of a tenth of a
    patch in the scale, transformers without. For 37 x 37 patches taken to 16 x 16 its weights' differ by 7 % from each
    other, and by 22 % from timm's, which are antialiased."""
    patches = stored[:, prefix:].float().unflatten(1, old).permute(0, 3, 1, 2)
    scale = tuple((after + offset) / before for after, before in zip(new, old, strict=True))
    # the size is floor(side x scale), which rounding may bring one below what is meant; without an offset it is given
    sizes: dict[str, Any] = {"scale_factor": scale} if offset else {"size": new}
    patches = F.interpolate(patches, mode="bicubic", **sizes).permute(0, 2, 3, 1).flatten(1, 2)
    return torch.cat([stored[:, :prefix], patches.to(stored.dtype)], dim=1)
