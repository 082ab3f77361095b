"""Features of a block (TinyMIM section 3.1.2, Eq. 7 and 8)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from tinymim.errors import TinymimError
from tinymim.targets.base import Blocks, Target, whiten
from tinymim.targets.tokens import Tokens
from tinymim.vit.backbone import Backbone
from tinymim.vit.blocks import Readings, Tap

Place = Literal["ffn_post", "ffn_pre", "attn_post", "attn_pre", "q", "k", "v"]


class Feature(Target):
    """Tokens at one tap or several: the teacher's whitened by LayerNorm without affine, the student's through a linear
    projection.

    Args:
        tap: what to read on both sides (see ``tinymim/vit/backbone.py``): before or after the residual matters by 2.5
            points (TinyMIM Table 6). Of a list, such as ``[q, k, v]``, the losses are averaged.
        loss: ``smooth_l1`` (the paper's), ``mse``, ``l1`` or ``cosine``.
        beta: where smooth-L1 turns from square to straight; 2 in the paper.
        whiten: of the teacher's tokens; ``False`` compares them as they are.
        cls: include the CLS token; by default only patches count.
        weight: factor of this target's loss in the sum.
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
        self.taps: list[str] = [*tap] if isinstance(tap, list) else [tap]
        self.loss = loss
        self.beta = beta
        self.whiten = whiten
        self.cls = cls

    def fit(self, teacher: Backbone, student: Backbone) -> None:
        """Build the projections from the student's width to the teacher's."""
        if not self.taps:
            raise TinymimError("feature.tap: an empty list; name at least one tap, such as ffn_post")
        if len(set(self.taps)) < len(self.taps):
            raise TinymimError(f"feature.tap: {self.taps} names a tap twice; name each once")
        if not self.beta > 0:
            raise TinymimError(f"feature.beta: {self.beta} is not above 0; the paper's is 2, and l1 is the limit at 0")
        self._tokens = Tokens.match(teacher, student, self.cls, self.name)
        self._widths = (student.width, teacher.width)
        self.projections = nn.ModuleList(nn.Linear(student.width, teacher.width) for _ in self._places())

    def _places(self) -> list[tuple[tuple[int, int], str]]:
        """Blocks and tap of each comparison."""
        return [(blocks, tap) for blocks in self.blocks for tap in self.taps]

    def teacher_taps(self) -> list[Tap]:
        """The taps, in the teacher's target blocks."""
        return [Tap(block, tap) for (block, _), tap in self._places()]

    def student_taps(self) -> list[Tap]:
        """The same taps in the student's blocks."""
        return [Tap(block, tap) for (_, block), tap in self._places()]

    def forward(self, teacher: Readings, student: Readings) -> dict[str, Tensor]:
        """The loss between ``(B, N, D_t)`` and ``(B, N, D_s)`` tokens, by tap and block where there are several."""
        losses = {}
        for (blocks, tap), project in zip(self._places(), self.projections, strict=True):
            t, s = self._tokens(teacher[Tap(blocks[0], tap)], student[Tap(blocks[1], tap)])
            t, s = whiten(t) if self.whiten else t.float(), project(s).float()
            name = self.part(tap if len(self.taps) > 1 else "", blocks)
            losses[name] = self._loss(t, s) / len(self.projections)
        return losses

    def _loss(self, t: Tensor, s: Tensor) -> Tensor:
        if self.loss == "cosine":
            return 1 - F.cosine_similarity(s, t, dim=-1).mean()
        if self.loss == "mse":
            return F.mse_loss(s, t)
        if self.loss == "l1":
            return F.l1_loss(s, t)
        return F.smooth_l1_loss(s, t, beta=self.beta)

    def describe(self) -> str:
        """Taps, loss, blocks and the projection."""
        into = f"{self._widths[0]} -> {self._widths[1]}"
        raw = "" if self.whiten else ", not whitened"
        taps = "+".join(self.taps)
        return f"{taps}, {self.loss}{raw}: {self.describe_blocks()}, student projected {into}{self._tokens.describe()}"
