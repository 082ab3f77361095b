"""Attention maps, the classic baseline: what relations were before heads were aligned (arXiv 1612.03928)."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from tinymim.ops.relation_kl import relation_logits
from tinymim.targets.base import Blocks, Target
from tinymim.targets.tokens import Tokens
from tinymim.vit.backbone import Backbone
from tinymim.vit.blocks import Readings, Tap


class AttentionMap(Target):
    """Attention maps softmax(Q Kᵀ / sqrt(d)), each network in its own heads.

    Equally many heads are compared one by one; otherwise each side's maps are first averaged over its heads, as
    attention transfer does (Zagoruyko and Komodakis, arXiv 1612.03928). q and k are those after rope; the relative
    position bias of a BEiT is left out, as in :class:`Relation`.

    Args:
        loss: ``kl``, from the teacher's map to the student's, summed over keys and averaged over the rest; or ``mse``.
        average_heads: ``True`` averages over heads even where their numbers agree.
        cls: keep the row and column of the CLS token; tokens are left out before the softmax.
        weight: factor of this target's loss in the sum.
        teacher_block: see :class:`Target`.
        student_block: see :class:`Target`.
    """

    def __init__(
        self,
        loss: Literal["kl", "mse"] = "kl",
        average_heads: bool = False,
        cls: bool = True,
        weight: float = 1.0,
        teacher_block: Blocks | None = None,
        student_block: Blocks | None = None,
    ):
        super().__init__(weight, teacher_block, student_block)
        self.loss = loss
        self.average_heads = average_heads
        self.cls = cls

    def fit(self, teacher: Backbone, student: Backbone) -> None:
        """Note both head layouts."""
        self._tokens = Tokens.match(teacher, student, self.cls, self.name)
        self._heads = [(teacher.heads[t - 1], student.heads[s - 1]) for t, s in self.blocks]

    def teacher_taps(self) -> list[Tap]:
        """q and k of the target blocks."""
        return [Tap(block, name) for block, _ in self.blocks for name in "qk"]

    def student_taps(self) -> list[Tap]:
        """q and k of the student's blocks."""
        return [Tap(block, name) for _, block in self.blocks for name in "qk"]

    def forward(self, teacher: Readings, student: Readings) -> dict[str, Tensor]:
        """The loss between maps of ``(B, N, D_t)`` and ``(B, N, D_s)`` queries and keys."""
        losses = {}
        for blocks, heads in zip(self.blocks, self._heads, strict=True):
            average = self.average_heads or heads[0] != heads[1]
            t, s = {}, {}
            for name in "qk":
                t[name], s[name] = self._tokens(teacher[Tap(blocks[0], name)], student[Tap(blocks[1], name)])
            maps = [log_attention(side["q"], side["k"], count) for side, count in zip((t, s), heads, strict=True)]
            if average:
                maps = [side.logsumexp(1, keepdim=True) - math.log(side.shape[1]) for side in maps]
            losses[self.part("", blocks)] = self._loss(*maps) / len(self.blocks)
        return losses

    def _loss(self, teacher: Tensor, student: Tensor) -> Tensor:
        if self.loss == "mse":
            return F.mse_loss(student.exp(), teacher.exp())
        return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1).mean()

    def describe(self) -> str:
        """Loss, blocks and heads."""
        how = [
            "head by head" if t == s and not self.average_heads else f"means of {t} and {s} heads"
            for t, s in self._heads
        ]
        return f"{self.loss}: {self.describe_blocks()}, {'; '.join(dict.fromkeys(how))}{self._tokens.describe()}"


def log_attention(q: Tensor, k: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Logarithm of the attention maps ``(B, H, N, N)`` of ``(B, N, D)`` queries and keys, in float32; ``bias`` is added
    to their products (see :func:`tinymim.vit.blocks.attention_bias`)."""
    q, k = (tokens.unflatten(-1, (heads, -1)).transpose(1, 2) for tokens in (q, k))
    logits = relation_logits(q, k)
    return F.log_softmax(logits if bias is None else logits + bias, dim=-1)
