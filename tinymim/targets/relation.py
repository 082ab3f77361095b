"""Token relations, TinyMIM's default target (section 3.1.2, Eq. 9)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from tinymim.architecture import check_divides
from tinymim.backbones import QKV, Backbone, Readings, Tap
from tinymim.errors import TinymimError
from tinymim.ops import relation_kl
from tinymim.ops.relation_kl import relation_logits
from tinymim.targets.base import Target


class Relation(Target):
    """Relations R_ab = softmax(A Bᵀ / sqrt(d)) of each head, A and B among q, k, v.

    The teacher keeps its heads; the *student's* channels are regrouped into as many, so nothing is added to the
    student. With softmax the loss is KL(R_teacher ‖ R_student) summed over keys and averaged over batch, heads and
    queries; without, the mean squared error of the raw scaled products (the paper does not state a loss for these).

    Args:
        pairs: the relations, two of the letters q, k, v each; their losses are added.
        heads: ``auto`` is the teacher's number in that block; a number regroups both sides into it.
        softmax: ``False`` compares raw relations.
        cls: keep the row and column of the CLS token (and other prefix tokens), as the published code does.
        weight: factor of this target's loss in the sum.
        teacher_block: see :class:`Target`.
        student_block: see :class:`Target`.
    """

    def __init__(
        self,
        pairs: Sequence[str] = ("qk", "vv"),
        heads: Literal["auto"] | int = "auto",
        softmax: bool = True,
        cls: bool = True,
        weight: float = 1.0,
        teacher_block: int | None = None,
        student_block: int | None = None,
    ):
        super().__init__(weight, teacher_block, student_block)
        self.pairs = list(pairs)
        self.heads = heads
        self.softmax = softmax
        self.cls = cls

    def fit(self, teacher: Backbone, student: Backbone) -> None:
        """Settle the number of heads; both widths must divide by it."""
        wrong = [pair for pair in self.pairs if not re.fullmatch("[qkv]{2}", pair)]
        if wrong or not self.pairs:
            raise TinymimError(f"relation.pairs: {wrong or 'an empty list'} is not pairs of q, k, v such as [qk, vv]")
        heads = teacher.heads[self.blocks[0] - 1] if self.heads == "auto" else self.heads
        check_divides(heads, teacher.width, f"the teacher, {teacher.architecture.arch}")
        check_divides(heads, student.width, f"the student, {student.architecture.arch}")
        if not self.cls and teacher.prefix != student.prefix:
            raise TinymimError("relation.cls: false needs equally many CLS tokens on both sides")
        self.heads = heads
        self._prefix = teacher.prefix
        self._widths = (teacher.width // heads, student.width // heads)

    def _taps(self, block: int) -> list[Tap]:
        return [Tap(block, name) for name in QKV if any(name in pair for pair in self.pairs)]

    def teacher_taps(self) -> list[Tap]:
        """Those of q, k, v that the pairs name, in the teacher's target block."""
        return self._taps(self.blocks[0])

    def student_taps(self) -> list[Tap]:
        """Likewise, in the student's."""
        return self._taps(self.blocks[1])

    def forward(self, teacher: Readings, student: Readings) -> dict[str, Tensor]:
        """One loss a pair, from ``(B, N, D_t)`` and ``(B, N, D_s)`` readings."""
        t = {tap.name: self._grouped(teacher[tap]) for tap in self.teacher_taps()}
        s = {tap.name: self._grouped(student[tap]) for tap in self.student_taps()}
        loss = relation_kl if self.softmax else raw_relation_mse
        return {pair: loss(t[pair[0]], t[pair[1]], s[pair[0]], s[pair[1]]) for pair in self.pairs}

    def _grouped(self, tokens: Tensor) -> Tensor:
        """``(B, N, D)`` to ``(B, H, N, D/H)``."""
        tokens = tokens if self.cls else tokens[:, self._prefix :]
        return tokens.unflatten(-1, (int(self.heads), -1)).transpose(1, 2)

    def describe(self) -> str:
        """Pairs, blocks and the alignment of heads."""
        form = "" if self.softmax else ", raw"
        return (
            f"{'+'.join(self.pairs)}{form}: block {self.teacher_block} -> block {self.student_block}, "
            f"{self.heads} heads of {self._widths[0]} -> {self.heads} heads of {self._widths[1]}"
        )


def raw_relation_mse(tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor) -> Tensor:
    """Mean squared error of scaled products without softmax; arguments as in :func:`tinymim.ops.relation_kl`."""
    return F.mse_loss(relation_logits(sq, sk), relation_logits(tq, tk))
