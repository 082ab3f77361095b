"""The protocol of a target: which taps it reads on each side, and the loss between them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from tinymim.backbones import QKV, Backbone, Readings, Tap
from tinymim.errors import TinymimError


class Target(nn.Module, ABC):
    """One thing to distil. Subclass it, implement the five methods, and name the class in a recipe.

    Args:
        weight: factor of this target's loss in the sum.
        teacher_block: block of the teacher to read, from 1; ``None`` takes the teacher card's, else the last when both
            networks are equally deep, else ``round(0.75 x depth)`` (18 of 24; TinyMIM Table 10).
        student_block: block of the student to read; ``None`` is its last.
    """

    def __init__(self, weight: float = 1.0, teacher_block: int | None = None, student_block: int | None = None):
        super().__init__()
        self.weight = weight
        self.teacher_block = teacher_block
        self.student_block = student_block

    @property
    def name(self) -> str:
        """Name of the loss in logs, ``loss_NAME``."""
        return type(self).__name__.lower()

    def bind(self, teacher: Backbone, student: Backbone, target_block: int) -> None:
        """Settle blocks, check that the two networks fit, and build projections. Sizes only: weights may be missing.

        Args:
            teacher: may be a skeleton.
            student: may be a skeleton.
            target_block: the teacher block to read where the recipe names none.

        Raises:
            TinymimError: the networks do not fit this target; the message names the field.
        """
        self.teacher_block = target_block if self.teacher_block is None else self.teacher_block
        self.student_block = student.depth if self.student_block is None else self.student_block
        _in_range(f"{self.name}.teacher_block", self.teacher_block, teacher)
        _in_range(f"{self.name}.student_block", self.student_block, student)
        if teacher.grid != student.grid:
            raise TinymimError(
                f"{self.name}: the teacher sees {_by(teacher.grid)} patches and the student {_by(student.grid)}; "
                f"give the student patch_size and img_size with the teacher's grid"
            )
        self.fit(teacher, student)
        for tap in self.teacher_taps():
            if tap.block > teacher.output_block and tap.name not in QKV:
                raise TinymimError(
                    f"{self.name}.teacher_block: {tap.block} gives out what nobody trained: the teacher's last wholly "
                    f"trained block is {teacher.output_block}; read that, or distil relations"
                )

    @property
    def blocks(self) -> tuple[int, int]:
        """The teacher's and the student's block, once bound."""
        assert self.teacher_block is not None, "bind comes first"
        assert self.student_block is not None, "bind comes first"
        return self.teacher_block, self.student_block

    @abstractmethod
    def fit(self, teacher: Backbone, student: Backbone) -> None:
        """Check what is particular to this target and build its projections."""

    @abstractmethod
    def teacher_taps(self) -> list[Tap]:
        """Where to read the teacher."""

    @abstractmethod
    def student_taps(self) -> list[Tap]:
        """Where to read the student."""

    @abstractmethod
    def forward(self, teacher: Readings, student: Readings) -> dict[str, Tensor]:
        """Scalar losses by name (``{}`` and up; the target's loss is their sum, before ``weight``)."""

    @abstractmethod
    def describe(self) -> str:
        """One line for people: what is read where, and how the two sides are aligned."""


def target_block(teacher: Backbone, student: Backbone) -> int:
    """The teacher block to distil from by rule: its last when depths are equal, else ``round(0.75 x depth)``."""
    return teacher.depth if teacher.depth == student.depth else round(0.75 * teacher.depth)


def whiten(tokens: Tensor) -> Tensor:
    """LayerNorm without affine over the channels of ``(..., D)``, in float32 (TinyMIM Eq. 8; arXiv 2205.14141)."""
    tokens = tokens.float()
    return F.layer_norm(tokens, tokens.shape[-1:])


def _in_range(field: str, block: int, network: Backbone) -> None:
    if not 1 <= block <= network.depth:
        raise TinymimError(
            f"{field}: {block} is out of range; {network.architecture.arch} has blocks 1 to {network.depth}"
        )


def _by(grid: tuple[int, int]) -> str:
    return f"{grid[0]}x{grid[1]}"
