"""One transformer block, and the places in it that can be read.

Blocks are numbered from 1, as papers do. The taps are those of TinyMIM section 3.1 (arXiv 2301.01296): for block i with
input F(i-1), H = Attn(LN(F(i-1))), Ĥ = H + F(i-1), H~ = FFN(LN(Ĥ)) and F(i) = Ĥ + H~:

    q, k, v     the projections of LN(F(i-1)), heads concatenated
    attn_pre    H, attention output before the residual
    attn_post   Ĥ, after it
    ffn_pre     H~, MLP output before the residual
    ffn_post    F(i), the block's output

One tap lies after the last block, and has ``(B, classes)`` instead of tokens:

    logits      the final norm, pooling and classifier of a network that has one (a teacher; students have none)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

QKV = ("q", "k", "v")
ATTENTION = ("attn_pre", "attn_post")
FFN = ("ffn_pre", "ffn_post")
TOKENS = QKV + ATTENTION + FFN
LOGITS = "logits"
TAPS = (*TOKENS, LOGITS)


class Tap(NamedTuple):
    """A place to read: ``block`` from 1 to the depth, ``name`` one of :data:`TAPS`."""

    block: int
    name: str


Readings = dict[Tap, Tensor]
"""What a read gives: ``(B, N, D)`` for each tap, prefix tokens (CLS) first; ``(B, classes)`` for ``logits``."""


def kept_tokens(tokens: Tensor, keep: Tensor, prefix: int) -> Tensor:
    """The prefix and the kept patches, ``(B, prefix + K, D)``, of ``(B, prefix + N, D)`` tokens.

    Args:
        tokens: prefix first.
        keep: ``(B, K)`` indices of patches.
        prefix: tokens before the patches.
    """
    patches = tokens[:, prefix:]
    patches = patches.gather(1, keep.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
    return torch.cat([tokens[:, :prefix], patches], dim=1)


def choose_attention(blocks: Iterable[Any], tokens: Tensor) -> None:
    """Fused or explicit attention, whichever was measured faster for these ``(B, N, D)`` tokens.

    On CPUs PyTorch's fused attention is up to 4x slower than the explicit products under bfloat16, but for wide
    networks in inference; in float32 and on GPUs it is the faster.
    """
    explicit = tokens.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    explicit &= torch.is_grad_enabled() or tokens.shape[-1] < 512
    for block in blocks:
        block.attn.fused_attn = not explicit


def run_block(block: Any, x: Tensor, names: set[str], stop: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """One pre-norm block, keeping the parts in ``names``; with ``stop``, nothing beyond them is computed."""
    parts: dict[str, Tensor] = {}
    normed = block.norm1(x)
    if names & {*QKV}:
        parts.update(zip(QKV, _project(block.attn, normed), strict=True))
        if stop and names <= {*QKV}:
            return x, parts
    parts["attn_pre"] = block.ls1(block.attn(normed))
    parts["attn_post"] = x = x + block.drop_path1(parts["attn_pre"])
    if stop and not names & {*FFN, LOGITS}:
        return x, parts
    parts["ffn_pre"] = block.ls2(block.mlp(block.norm2(x)))
    parts["ffn_post"] = x = x + block.drop_path2(parts["ffn_pre"])
    return x, parts


def _project(attn: Any, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v as attention uses them, heads concatenated: three ``(B, N, D)``."""
    q, k, v = attn.qkv(normed).chunk(3, dim=-1)
    if not isinstance(attn.q_norm, nn.Identity):
        q = attn.q_norm(q.unflatten(-1, (attn.num_heads, -1))).flatten(-2)
        k = attn.k_norm(k.unflatten(-1, (attn.num_heads, -1))).flatten(-2)
    return q, k, v
