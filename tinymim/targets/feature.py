"""Features of a block (TinyMIM section 3.1.2, Eq. 7 and 8)."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from tinymim.argument_types import checked
from tinymim.errors import TinymimError
from tinymim.targets.base import Blocks, Target, token_loss, whiten
from tinymim.targets.tokens import Tokens
from tinymim.vit.backbone import Backbone

Place = Literal["ffn_post", "ffn_pre", "attn_post", "attn_pre", "q", "k", "v"]


@checked
class Feature(Target):
    """Tokens at one tap or several: the teacher's whitened by LayerNorm without affine, the student's through a linear
    projection.

    Args:
        tap: what to read on both sides (see ``tinymim/vit/taps.py``): before or after the residual matters by 2.5
            points (TinyMIM Table 6). Of a list, such as ``[q, k, v]``, the losses are averaged.
        loss: ``smooth_l1`` (the paper's), ``mse``, ``l1`` or ``cosine``.
        beta: where smooth-L1 turns from square to straight; 2 in the paper.
        whiten: the teacher's tokens; ``False`` compares them as they are.
        cls: include the CLS token; by default only patches count.
        weight: factor of this target's loss in the sum, above 0.
        teacher_block: see :class:`Target`. "Output feature" in the paper's Table 6 is the teacher's last block.
        student_block: see :class:`Target`.
    """

    def __init__(
        self,
        tap: Place | list[Place] = "ffn_post",
        loss: Literal["smooth_l1", "mse", "l1", "cosine"] = "smooth_l1",
        beta: float = 2.0,
        whiten: bool = True,
        cls: bool = False,
        weight: float = 1.0,
        teacher_block: Blocks | None = None,
        student_block: Blocks | None = None,
    ):
        super().__init__(weight, teacher_block, student_block)
        self.reads: list[str] = [*tap] if isinstance(tap, list) else [tap]
        self.mean_of = len(self.reads)
        self.loss, self.beta = loss, beta
        self.whiten, self.cls = whiten, cls

    def setup_pair(self, teacher: Backbone, student: Backbone) -> None:
        """Build a projection from the student's width to the teacher's for each tap of each pair of blocks."""
        if not self.reads:
            raise TinymimError("feature.tap: an empty list; name at least one tap, such as ffn_post")
        if len(set(self.reads)) < len(self.reads):
            raise TinymimError(f"feature.tap: {self.reads} names a tap twice; name each once")
        if not 0 < self.beta < math.inf:
            raise TinymimError(
                f"feature.beta: {self.beta} is not a number above 0; the paper's is 2, and l1 is the limit at 0"
            )
        self._tokens = Tokens.match(teacher, student, self.cls, self.name)
        self._widths = (student.width, teacher.width)
        count = len(self.blocks) * len(self.reads)
        self.projections = nn.ModuleList(nn.Linear(student.width, teacher.width) for _ in range(count))

    def pair_loss(self, teacher: dict[str, Tensor], student: dict[str, Tensor], pair: int) -> dict[str, Tensor]:
        """The loss of each tap of a pair of blocks."""
        losses = {}
        for place, tap in enumerate(self.reads, start=pair * len(self.reads)):
            t, s = self._tokens(teacher[tap], student[tap])
            t = whiten(t) if self.whiten else t.float()
            loss = token_loss(self.loss, self.projections[place](s).float(), t, self.beta)
            losses[tap if len(self.reads) > 1 else ""] = loss
        return losses

    def describe(self) -> str:
        """Taps, loss, blocks and the projection."""
        into = f"{self._widths[0]} -> {self._widths[1]}"
        raw = "" if self.whiten else ", not whitened"
        taps = "+".join(self.reads)
        return f"{taps}, {self.loss}{raw}: {self.describe_blocks()}, student projected {into}{self._tokens.describe()}"
