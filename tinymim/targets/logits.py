"""A teacher's logits, the classic of distillation (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from tinymim.argument_types import checked
from tinymim.errors import TinymimError
from tinymim.targets.base import Target
from tinymim.vit.backbone import NO_CLASSIFIER, Backbone
from tinymim.vit.taps import LOGITS


@checked
class Logits(Target):
    """KL(teacher ‖ student) of softened class probabilities; needs a teacher with a classifier.

    The student's logits come from one linear layer on the mean of its patch tokens. The layer is this target's
    projection: it trains with the student and is not part of it.

    Args:
        temperature: T, that both sides' logits are divided by (3 as in DeiT's soft distillation).
        t_squared: multiply the loss by T², so that the gradients keep their size whatever T is (section 2 there).
        cls: read the student's CLS token in place of the mean patch token.
        weight: factor of this target's loss in the sum, above 0.
        student_block: see :class:`Target`; the teacher's logits always come after its last block.
    """

    teacher_reads = (LOGITS,)

    def __init__(
        self,
        temperature: float = 3.0,
        t_squared: bool = True,
        cls: bool = False,
        weight: float = 1.0,
        student_block: int | float | None = None,
    ):
        super().__init__(weight, student_block=student_block)
        self.temperature, self.t_squared, self.cls = temperature, t_squared, cls

    def setup_pair(self, teacher: Backbone, student: Backbone) -> None:
        """Build the student's classifier."""
        if not 0 < self.temperature < math.inf:
            raise TinymimError(f"logits.temperature: {self.temperature} is not a number above 0")
        if not teacher.classes:
            raise TinymimError(f"logits: the teacher, {teacher.architecture.arch}, {NO_CLASSIFIER}")
        if self.cls and not student.has_cls:
            raise TinymimError(f"logits.cls: {student.architecture.arch} has no CLS token; leave cls out")
        self.blocks = [(teacher.depth, block) for _, block in self.blocks]
        self._prefix = student.prefix
        self.projection = nn.Linear(student.width, teacher.classes)

    def pair_loss(self, teacher: dict[str, Tensor], student: dict[str, Tensor], pair: int) -> Tensor:
        """The loss between ``(B, classes)`` logits and those of the student's tokens."""
        tokens = student["ffn_post"]
        s = self.projection(tokens[:, 0] if self.cls else tokens[:, self._prefix :].mean(dim=1))
        return soft_kl(teacher[LOGITS], s, self.temperature, self.t_squared)

    def describe(self) -> str:
        """Classes, temperature and where the student is read."""
        token = "CLS token" if self.cls else "mean patch token"
        return (
            f"{self.projection.out_features} classes, temperature {self.temperature:g}"
            f"{' (loss x T²)' if self.t_squared else ''}: logits -> {token} of block {self.blocks[0][1]}, linear"
        )


def soft_kl(teacher: Tensor, student: Tensor, temperature: float, t_squared: bool = True) -> Tensor:
    """KL(softmax(teacher / T) ‖ softmax(student / T)) of ``(B, classes)`` logits, mean over the batch, in float32;
    times T² with ``t_squared``, as in Hinton et al. and in DeiT's Eq. 2."""
    t = (teacher.float() / temperature).log_softmax(-1)
    s = (student.float() / temperature).log_softmax(-1)
    return F.kl_div(s, t, reduction="batchmean", log_target=True) * (temperature**2 if t_squared else 1.0)
