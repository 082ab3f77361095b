"""Token relations, TinyMIM's default target (section 3.1.2, Eq. 9)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from tinymim.argument_types import checked
from tinymim.errors import TinymimError
from tinymim.ops import relation_kl
from tinymim.ops.relation_kl import relation_logits
from tinymim.targets.base import Blocks, Target
from tinymim.targets.head_alignment import HeadAlignment
from tinymim.targets.tokens import Tokens
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import QKV


@checked
class Relation(Target):
    """Relations R_ab = softmax(A Bᵀ / sqrt(d)) of each head, A and B among q, k, v.

    The teacher keeps its heads; the *student's* channels are regrouped into as many, so nothing is added to the
    student. With softmax the loss is KL(R_teacher ‖ R_student) summed over keys and averaged over batch, heads and
    queries; without, ``raw_loss`` of the scaled products (the paper does not state one).

    A teacher's q and k are taken after rope, so ``qk`` is its attention map. A BEiT's is not quite: the relative
    position bias that it adds to the products belongs to no token, and a relation, made of q and k alone, leaves it
    out.

    Args:
        pairs: the relations, two of the letters q, k, v each; their losses are added.
        heads: ``auto`` is the teacher's number in its block; a number regroups both sides into it.
        softmax: ``False`` compares raw relations.
        raw_loss: ``mse`` or ``smooth_l1``, for raw relations.
        temperature: divides the products of both sides before the softmax; the paper has none, and neither have raw
            relations.
        cls: keep the row and column of the CLS token, as the published code does.
        form: of the operation, see :func:`tinymim.ops.relation_kl`.
        weight: factor of this target's loss in the sum, above 0.
        teacher_block: see :class:`Target`.
        student_block: see :class:`Target`.
    """

    def __init__(
        self,
        pairs: Sequence[str] = ("qk", "vv"),
        heads: Literal["auto"] | int = "auto",
        softmax: bool = True,
        raw_loss: Literal["mse", "smooth_l1"] = "mse",
        temperature: float = 1.0,
        cls: bool = True,
        form: Literal["auto", "reference", "blocked", "triton"] = "auto",
        weight: float = 1.0,
        teacher_block: Blocks | None = None,
        student_block: Blocks | None = None,
    ):
        super().__init__(weight, teacher_block, student_block)
        self.pairs, self.heads = list(pairs), heads
        self.reads = [name for name in QKV if any(name in pair for pair in pairs)]
        self.softmax, self.raw_loss, self.temperature = softmax, raw_loss, temperature
        self.cls, self.form = cls, form

    def setup_pair(self, teacher: Backbone, student: Backbone) -> None:
        """Align heads and tokens of each pair of blocks."""
        check_pairs(self.pairs, "relation.pairs")
        check_temperature(self.temperature, "relation.temperature")
        if not self.softmax and self.temperature != 1:
            raise TinymimError(
                f"relation.temperature: {self.temperature} would do nothing, as softmax is false; leave it out"
            )
        heads = [teacher.heads[block - 1] if self.heads == "auto" else self.heads for block, _ in self.blocks]
        self._aligned = [HeadAlignment.match(teacher, student, count) for count in heads]
        self._tokens = Tokens.match(teacher, student, self.cls, self.name)

    def pair_loss(self, teacher: dict[str, Tensor], student: dict[str, Tensor], pair: int) -> dict[str, Tensor]:
        """The loss of each relation of a pair of blocks."""
        t, s = {}, {}
        for name in self.reads:
            both = self._tokens(teacher[name], student[name])
            t[name], s[name] = (self._aligned[pair].split(tokens) for tokens in both)
        compare = F.mse_loss if self.raw_loss == "mse" else F.smooth_l1_loss
        losses = {}
        for relation in self.pairs:
            a, b = relation[0], relation[1]
            if self.softmax:
                loss = relation_kl(t[a], t[b], s[a], s[b], temperature=self.temperature, form=self.form)
            else:
                loss = compare(relation_logits(s[a], s[b]), relation_logits(t[a], t[b]))
            losses[relation] = loss
        return losses

    def aligned_heads(self) -> dict[int, int]:
        """The student's blocks and the teacher's number of heads there."""
        return {block: aligned.heads for (_, block), aligned in zip(self.blocks, self._aligned, strict=True)}

    def describe(self) -> str:
        """Pairs, blocks and the alignment of heads."""
        form = "" if self.softmax else f", raw, {self.raw_loss}"
        form += f", temperature {self.temperature:g}" if self.temperature != 1 else ""
        heads = "; ".join(dict.fromkeys(aligned.describe() for aligned in self._aligned))
        cls = "" if self.cls else ", without CLS"
        return f"{'+'.join(self.pairs)}{form}: {self.describe_blocks()}, {heads}{cls}{self._tokens.describe()}"


def check_pairs(pairs: Sequence[str], field: str) -> None:
    """Raise unless ``pairs`` are some of two of the letters q, k, v, each once; the message names ``field``."""
    wrong = [pair for pair in pairs if not re.fullmatch("[qkv]{2}", pair)]
    if wrong or not pairs:
        raise TinymimError(f"{field}: {wrong or 'an empty list'} is not pairs of q, k, v such as [qk, vv]")
    if len(set(pairs)) < len(pairs):
        raise TinymimError(f"{field}: {list(pairs)} names a pair twice; name each once")


def check_temperature(temperature: float, field: str) -> None:
    """Raise unless relations can be divided by it; the message names ``field``."""
    if not 0 < temperature < math.inf:
        raise TinymimError(f"{field}: {temperature} is not a number above 0; the paper's is 1")
