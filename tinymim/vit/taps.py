"""One transformer block, and the places in it that can be read.

Blocks are numbered from 1, as papers do. The taps are those of TinyMIM section 3.1 (arXiv 2301.01296): for block i with
input F(i-1), H = Attn(LN(F(i-1))), Ĥ = H + F(i-1), H~ = FFN(LN(Ĥ)) and F(i) = Ĥ + H~:

    q, k, v     the projections of LN(F(i-1)) as attention multiplies them: q and k after their norms and after rope,
                where a network has these; heads concatenated
    attn_pre    H, attention output before the residual
    attn_post   Ĥ, after it
    ffn_pre     H~, MLP output before the residual
    ffn_post    F(i), the block's output
    normed      LN(F(i-1)), from which q, k and v are one small product away (:func:`projected`)

H and H~ are taken after layer scale, where a network has it. So softmax(q kᵀ / sqrt(d)) is the network's own attention
map, but in a BEiT, which adds its relative position bias before the softmax (``tinymim/vit/positions.py``).

One tap lies after the last block, and has ``(B, classes)`` instead of tokens:

    logits      the final norm, pooling and classifier of a network that has one (a teacher; students have none)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn

from tinymim.errors import TinymimError
from tinymim.precision import cpu_ratio
from tinymim.vit.positions import Positions

QKV = ("q", "k", "v")
ATTENTION = ("attn_pre", "attn_post")
FFN = ("ffn_pre", "ffn_post")
NORMED = "normed"
TOKENS = QKV + ATTENTION + FFN + (NORMED,)
LOGITS = "logits"
TAPS = (*TOKENS, LOGITS)


STEM = ("cls_token", "dist_token", "reg_token", "pos_embed", "patch_embed.", "norm_pre.")
"""The parts of a timm ViT before its first block."""

CLASSIFIER = ("norm.", "fc_norm.", "attn_pool.", "head.", "head_dist.")  # the parts of a timm ViT after its last block


class Tap(NamedTuple):
    """A place to read: ``block`` from 1 to the depth, ``name`` one of :data:`TAPS`."""

    block: int
    name: str


def as_taps(taps: Iterable[Tap]) -> set[Tap]:
    """``taps`` as a set, pairs of a number and a name among them as taps.

    Raises:
        TinymimError: one tap alone, or what is none.
    """
    if isinstance(taps, Tap | str) or not isinstance(taps, Iterable):
        raise TinymimError(f"taps: {taps!r} is no list; give one, such as [tinymim.Tap(6, 'q')]")
    wanted = set()
    for tap in taps:
        if not (isinstance(tap, tuple) and len(tap) == 2 and hasattr(tap[0], "__index__") and isinstance(tap[1], str)):
            raise TinymimError(f"taps: {tap!r} is no number of a block with a name; give such as tinymim.Tap(6, 'q')")
        wanted.add(Tap(*tap))
    return wanted


Readings = dict[Tap, Tensor]
"""Output of :meth:`tinymim.vit.backbone.Backbone.read`: ``(B, N, D)`` for each tap, prefix tokens (CLS) first;
``(B, classes)`` for ``logits``."""


def kept_tokens(tokens: Tensor, keep: Tensor, prefix: int) -> Tensor:
    """The prefix and the kept patches, ``(B, prefix + K, D)``, of ``(B, prefix + N, D)`` tokens, by ``(B, K)``
    indices."""
    patches = tokens[:, prefix:]
    patches = patches.gather(1, keep.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
    return torch.cat([tokens[:, :prefix], patches], dim=1)


def choose_attention(blocks: Iterable[Any], tokens: Tensor) -> None:
    """Fused or explicit attention, whichever was measured faster for these ``(B, N, D)`` tokens.

    On CPUs with units for bfloat16 PyTorch's fused attention is up to 4x slower than the explicit products in it, but
    for wide networks in inference; without them the explicit ones are 30x slower. In float32 and on GPUs fused is the
    faster.
    """
    explicit = tokens.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    explicit &= torch.is_grad_enabled() or tokens.shape[-1] < 512
    explicit = explicit and cpu_ratio(torch.get_autocast_dtype("cpu")) < 1
    for block in blocks:
        block.attn.fused_attn = not explicit


def run_block(
    block: Any, x: Tensor, names: set[str], stop: bool, positions: Positions
) -> tuple[Tensor, dict[str, Tensor]]:
    """One pre-norm block, keeping the parts in ``names``; with ``stop``, nothing beyond them is computed."""
    parts: dict[str, Tensor] = {}
    normed = block.norm1(x)
    if NORMED in names:
        parts[NORMED] = normed
    if names & {*QKV}:
        parts.update(zip(QKV, projected(block.attn, normed, positions), strict=True))
    if stop and names <= {*QKV, NORMED}:
        return x, parts
    parts["attn_pre"] = _scaled(block, 1, block.attn(normed, **positions))
    parts["attn_post"] = x = x + block.drop_path1(parts["attn_pre"])
    if stop and not names & {*FFN, LOGITS}:
        return x, parts
    parts["ffn_pre"] = _scaled(block, 2, block.mlp(block.norm2(x)))
    parts["ffn_post"] = x = x + block.drop_path2(parts["ffn_pre"])
    return x, parts


def routes(taps: Iterable[Tap]) -> list[str]:
    """Prefixes of the names of a timm ViT's parameters on which a read of ``taps`` depends."""
    last = max(tap.block for tap in taps)
    names = {tap.name for tap in taps if tap.block == last}
    attended = bool(names & {*ATTENTION, *FFN, LOGITS})
    parts = ["norm1."]
    parts += ["attn.qkv.", "attn.q_bias", "attn.v_bias"] if names - {NORMED} else []
    parts += [f"attn.{name}_{part}." for name in QKV if name in names for part in ("proj", "norm")]
    if attended:
        parts += ["attn.", "ls1.", "gamma_1"]
    if names & {*FFN, LOGITS}:
        parts += ["norm2.", "mlp.", "ls2.", "gamma_2"]
    prefixes = [*STEM, *(f"blocks.{number}." for number in range(last - 1))]
    prefixes += [f"blocks.{last - 1}.{part}" for part in parts]
    if attended or last > 1:
        prefixes += ["rel_pos_bias."]
    if attended or last > 1 or names & {"q", "k"}:
        prefixes += ["rope."]
    return prefixes


def _scaled(block: Any, branch: int, x: Tensor) -> Tensor:
    """Layer scale: a module in plain ViTs, a parameter or nothing in the others."""
    if hasattr(block, "ls1"):
        return getattr(block, f"ls{branch}")(x)
    gamma = getattr(block, f"gamma_{branch}")
    return x if gamma is None else gamma * x


def projected(attn: Any, normed: Tensor, positions: Positions) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v as attention uses them, heads concatenated: three ``(B, N, D)`` of the ``(B, N, D)`` tokens that enter
    it."""
    q, k, v = project(attn, normed)
    return *place(attn, q, k, positions), v


def project(attn: Any, normed: Tensor) -> tuple[Tensor, ...]:
    """q, k and v before norms and rope: three ``(B, N, D)``."""
    if attn.qkv is None:
        return attn.q_proj(normed), attn.k_proj(normed), attn.v_proj(normed)
    if getattr(attn, "q_bias", None) is None:  # else what ``attn.qkv`` gives out is but a part of how they are made
        return attn.qkv(normed).chunk(3, dim=-1)
    bias = torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
    return F.linear(normed, attn.qkv.weight, bias).chunk(3, dim=-1)


def place(attn: Any, q: Tensor, k: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
    """``(B, N, D)`` queries and keys after norms and rope, where the network has these."""
    rope = positions.get("rope")
    if rope is None and isinstance(getattr(attn, "q_norm", None), nn.Identity | None):  # BEiT knows no norm of them
        return q, k
    projected = q.dtype
    q, k = (x.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for x in (q, k))
    q, k = attn.q_norm(q), attn.k_norm(k)
    if rope is not None:
        prefix, half = attn.num_prefix_tokens, attn.rotate_half
        q, k = (
            torch.cat([x[:, :, :prefix], apply_rot_embed_cat(x[:, :, prefix:], rope, half=half)], dim=2).to(projected)
            for x in (q, k)
        )
    return q.transpose(1, 2).flatten(2), k.transpose(1, 2).flatten(2)
