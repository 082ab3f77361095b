"""Attention maps, the classic baseline: what relations were before heads were aligned (arXiv 1612.03928)."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from tinymim.argument_types import checked
from tinymim.ops.relation_kl import relation_logits
from tinymim.targets.base import Blocks, Target
from tinymim.targets.tokens import Tokens
from tinymim.vit.backbone import Backbone


@checked
class AttentionMap(Target):
    """Attention maps softmax(Q Kᵀ / sqrt(d)), each network in its own heads.

    Equally many heads are compared one by one; otherwise each side's maps are first averaged over its heads, as
    attention transfer does (Zagoruyko and Komodakis, arXiv 1612.03928). q and k are those after rope; the relative
    position bias of a BEiT is left out, as in :class:`Relation`.

    Args:
        loss: ``kl``, from the teacher's map to the student's, summed over keys and averaged over the rest; or ``mse``.
        average_heads: ``True`` averages over heads even where their numbers agree.
        cls: keep the row and column of the CLS token; tokens are left out before the softmax.
        weight: factor of this target's loss in the sum, above 0.
        teacher_block: see :class:`Target`.
        student_block: see :class:`Target`.
    """

    reads = ("q", "k")

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
        self.loss, self.average_heads, self.cls = loss, average_heads, cls

    def setup_pair(self, teacher: Backbone, student: Backbone) -> None:
        """Note both head layouts."""
        self._tokens = Tokens.match(teacher, student, self.cls, self.name)
        self._heads = [(teacher.heads[t - 1], student.heads[s - 1]) for t, s in self.blocks]

    def pair_loss(self, teacher: dict[str, Tensor], student: dict[str, Tensor], pair: int) -> Tensor:
        """The loss between the maps of a pair of blocks."""
        queries, keys = (self._tokens(teacher[name], student[name]) for name in self.reads)
        maps = []  # their logarithms, ``(B, H, N, N)``, the teacher's and the student's
        for side, heads in enumerate(self._heads[pair]):
            q, k = (tokens[side].unflatten(-1, (heads, -1)).transpose(1, 2) for tokens in (queries, keys))
            maps.append(F.log_softmax(relation_logits(q, k), dim=-1))
        if self.average_heads or self._heads[pair][0] != self._heads[pair][1]:
            maps = [side.logsumexp(1, keepdim=True) - math.log(side.shape[1]) for side in maps]
        t, s = maps
        if self.loss == "mse":
            return F.mse_loss(s.exp(), t.exp())
        return F.kl_div(s, t, reduction="none", log_target=True).sum(-1).mean()

    def describe(self) -> str:
        """Loss, blocks and heads."""
        how = [
            "head by head" if t == s and not self.average_heads else f"means of {t} and {s} heads"
            for t, s in self._heads
        ]
        return f"{self.loss}: {self.describe_blocks()}, {'; '.join(dict.fromkeys(how))}{self._tokens.describe()}"
