"""Features of a block (TinyMIM section 3.1.2, Eq. 7 and 8)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from tinymim.backbones import Backbone, Readings, Tap
from tinymim.targets.base import Target, whiten


class Feature(Target):
    """Tokens at one tap: the teacher's whitened by LayerNorm without affine, the student's through a linear projection.

    Args:
        tap: what to read on both sides (see ``tinymim/backbones.py``): before or after the residual matters by 2.5
            points (TinyMIM Table 6).
        loss: ``smooth_l1`` (the paper's), ``mse``, ``l1`` or ``cosine``.
        beta: where smooth-L1 turns from square to straight; 2 in the paper.
        cls: include the CLS (and other prefix) tokens; by default only patches count.
        weight: factor of this target's loss in the sum.
        teacher_block: see :class:`Target`.
        student_block: see :class:`Target`.
    """

    def __init__(
        self,
        tap: Literal["ffn_post", "ffn_pre", "attn_post", "attn_pre", "q", "k", "v"] = "ffn_post",
        loss: Literal["smooth_l1", "mse", "l1", "cosine"] = "smooth_l1",
        beta: float = 2.0,
        cls: bool = False,
        weight: float = 1.0,
        teacher_block: int | None = None,
        student_block: int | None = None,
    ):
        super().__init__(weight, teacher_block, student_block)
        self.tap = tap
        self.loss = loss
        self.beta = beta
        self.cls = cls

    def fit(self, teacher: Backbone, student: Backbone) -> None:
        """Build the projection from the student's width to the teacher's."""
        self._prefixes = (teacher.prefix, student.prefix)
        self.projection = nn.Linear(student.width, teacher.width)

    def teacher_taps(self) -> list[Tap]:
        """The one tap, in the teacher's target block."""
        return [Tap(self.blocks[0], self.tap)]

    def student_taps(self) -> list[Tap]:
        """The same tap in the student's block."""
        return [Tap(self.blocks[1], self.tap)]

    def forward(self, teacher: Readings, student: Readings) -> dict[str, Tensor]:
        """The loss between ``(B, N, D_t)`` and ``(B, N, D_s)`` tokens."""
        t, s = teacher[self.teacher_taps()[0]], student[self.student_taps()[0]]
        if not self.cls:
            t, s = t[:, self._prefixes[0] :], s[:, self._prefixes[1] :]
        t, s = whiten(t), self.projection(s).float()
        if self.loss == "cosine":
            return {"": 1 - F.cosine_similarity(s, t, dim=-1).mean()}
        if self.loss == "mse":
            return {"": F.mse_loss(s, t)}
        if self.loss == "l1":
            return {"": F.l1_loss(s, t)}
        return {"": F.smooth_l1_loss(s, t, beta=self.beta)}

    def describe(self) -> str:
        """Tap, loss, blocks and the projection."""
        into = f"{self.projection.in_features} -> {self.projection.out_features}"
        blocks = f"block {self.teacher_block} -> block {self.student_block}"
        return f"{self.tap}, {self.loss}: {blocks}, student projected {into}"
