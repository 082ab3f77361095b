"""The CLS token (TinyMIM section 3.1.2, Eq. 6)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from tinymim.backbones import Backbone, Readings, Tap
from tinymim.errors import TinymimError
from tinymim.targets.base import Target, whiten


class CLS(Target):
    """The teacher's CLS token, through a linear projection of the student's.

    The paper writes KL(c_t ‖ c_s) without saying how tokens of different widths become comparable distributions. Here
    the teacher's token is whitened, the student's projected to the teacher's width, and both pass a softmax.

    Args:
        loss: ``cross_entropy`` (soft, with temperature), ``cosine`` or ``smooth_l1``.
        temperature: of both softmaxes; for ``cross_entropy`` alone.
        weight: factor of this target's loss in the sum.
        teacher_block: see :class:`Target`.
        student_block: see :class:`Target`.
    """

    def __init__(
        self,
        loss: Literal["cross_entropy", "cosine", "smooth_l1"] = "cross_entropy",
        temperature: float = 1.0,
        weight: float = 1.0,
        teacher_block: int | None = None,
        student_block: int | None = None,
    ):
        super().__init__(weight, teacher_block, student_block)
        self.loss = loss
        self.temperature = temperature

    def fit(self, teacher: Backbone, student: Backbone) -> None:
        """Build the projection; both networks need a CLS token."""
        for network in (teacher, student):
            if not network.vit.has_class_token:
                raise TinymimError(
                    f"cls: {network.architecture.arch} has no CLS token; use a feature or relation target"
                )
        self.projection = nn.Linear(student.width, teacher.width)

    def teacher_taps(self) -> list[Tap]:
        """The output of the target block."""
        return [Tap(self.blocks[0], "ffn_post")]

    def student_taps(self) -> list[Tap]:
        """The output of the student's block."""
        return [Tap(self.blocks[1], "ffn_post")]

    def forward(self, teacher: Readings, student: Readings) -> dict[str, Tensor]:
        """The loss between the first tokens of ``(B, N, D_t)`` and ``(B, N, D_s)``."""
        t = whiten(teacher[self.teacher_taps()[0]][:, 0])
        s = self.projection(student[self.student_taps()[0]][:, 0]).float()
        if self.loss == "cosine":
            return {"": 1 - F.cosine_similarity(s, t, dim=-1).mean()}
        if self.loss == "smooth_l1":
            return {"": F.smooth_l1_loss(s, t)}
        return {"": F.cross_entropy(s / self.temperature, (t / self.temperature).softmax(-1))}

    def describe(self) -> str:
        """Loss, blocks and the projection."""
        into = f"{self.projection.in_features} -> {self.projection.out_features}"
        return f"{self.loss}: block {self.teacher_block} -> block {self.student_block}, student projected {into}"
