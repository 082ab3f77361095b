"""The protocol of a target: which taps it reads on each side, and the loss between them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from tinymim.errors import TinymimError
from tinymim.vit.backbone import Backbone
from tinymim.vit.blocks import Readings, Tap

Blocks = int | float | list[int | float]
"""Blocks as a recipe names them: a number from 1, a fraction of the depth such as 0.75 (1.0 is the last block, 1 the
first), or a list of them."""


class Target(nn.Module, ABC):
    """One thing to distil. Subclass it, implement the five methods, and name the class in a recipe.

    Args:
        weight: factor of this target's loss in the sum.
        teacher_block: block or blocks of the teacher to read (see :data:`Blocks`); ``None`` takes the teacher card's,
            else the last when both networks are equally deep, else ``round(0.75 x depth)`` (18 of 24; TinyMIM Table
            10). A list is read block by block beside the student's, and the losses are averaged over it.
        student_block: likewise of the student; ``None`` is its last.
    """

    def __init__(self, weight: float = 1.0, teacher_block: Blocks | None = None, student_block: Blocks | None = None):
        super().__init__()
        self.weight = weight
        self.teacher_block = teacher_block
        self.student_block = student_block
        self.blocks: list[tuple[int, int]] = []
        """The teacher's and the student's block of each comparison, once bound."""

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
        self.blocks = compared_blocks(self.name, self.teacher_block, self.student_block, teacher, student, target_block)
        self.fit(teacher, student)
        untrained = [tap for tap in self.teacher_taps() if not teacher.trained(tap)]
        if untrained:
            raise TinymimError(_untrained(self.name, untrained, teacher))

    @abstractmethod
    def fit(self, teacher: Backbone, student: Backbone) -> None:
        """Check what is particular to this target and build its projections; ``self.blocks`` is settled."""

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

    def first_only(self) -> bool:
        """Whether only the first token, CLS, is looked at of what the teacher's taps give; no more is then stored."""
        return False

    def aligned_heads(self) -> dict[int, int]:
        """Heads by student block, where this target regroups the student's channels into the teacher's heads."""
        return {}

    def part(self, name: str, blocks: tuple[int, int]) -> str:
        """Name of a partial loss: ``name`` alone, with the student's and teacher's block where there are several."""
        several = [f"{blocks[0]}to{blocks[1]}"] if len(self.blocks) > 1 else []
        return "_".join(filter(None, (name, *several)))

    def describe_blocks(self) -> str:
        """Where both sides are read, for people."""
        return "block " + ", ".join(f"{teacher} -> {student}" for teacher, student in self.blocks)


def compared_blocks(
    name: str,
    teacher_block: Blocks | None,
    student_block: Blocks | None,
    teacher: Backbone,
    student: Backbone,
    target_block: int,
) -> list[tuple[int, int]]:
    """The teacher's and the student's block of each comparison of a target.

    Args:
        name: of the target, for the error.
        teacher_block: as the recipe has it; ``None`` is ``target_block``.
        student_block: likewise; ``None`` is the last.
        teacher: may be a skeleton.
        student: may be a skeleton.
        target_block: the teacher block to read where the recipe names none.

    Raises:
        TinymimError: blocks that a network does not have, lists of other lengths, or a pair named twice.
    """
    read = target_block if teacher_block is None else teacher_block
    trained = student.depth if student_block is None else student_block
    teachers = settle_blocks(read, teacher, f"{name}.teacher_block")
    students = settle_blocks(trained, student, f"{name}.student_block")
    if len(teachers) != len(students) and 1 not in (len(teachers), len(students)):
        raise TinymimError(
            f"{name}.student_block: {len(students)} blocks beside {len(teachers)} of the teacher; "
            "give equally many, or one for all"
        )
    count = max(len(teachers), len(students))
    blocks = list(zip(teachers * (count // len(teachers)), students * (count // len(students)), strict=True))
    if twice := [pair for number, pair in enumerate(blocks) if pair in blocks[:number]]:
        raise TinymimError(
            f"{name}: teacher block {twice[0][0]} beside student block {twice[0][1]} is named twice "
            f"(of {blocks}); name each once"
        )
    return blocks


def first_only_taps(targets: Iterable[Target]) -> list[Tap]:
    """The teacher's taps of which no target looks at more than the first token."""
    taps: dict[Tap, bool] = {}
    for target in targets:
        for tap in target.teacher_taps():
            taps[tap] = taps.get(tap, True) and target.first_only()
    return [tap for tap, alone in taps.items() if alone]


def settle_blocks(given: Blocks, network: Backbone, field: str) -> list[int]:
    """Block numbers, from 1, that a recipe means; a fraction is rounded to the nearest block.

    Raises:
        TinymimError: a number outside the network, or an empty list; the message names ``field``.
    """
    listed = given if isinstance(given, list) else [given]
    blocks = [_settled(block, network.depth) for block in listed]
    wrong = [block for block, number in zip(listed, blocks, strict=True) if not 1 <= number <= network.depth]
    if wrong or not blocks:
        raise TinymimError(
            f"{field}: {wrong[0] if wrong else given} is out of range; {network.architecture.arch} has blocks 1 to "
            f"{network.depth}, or give a fraction of the depth, such as 0.75; 1.0 is the last"
        )
    return blocks


def _settled(block: int | float, depth: int) -> int:
    """The block's number; 0 where it has none."""
    if isinstance(block, float):
        return max(round(block * depth), 1) if 0 < block <= 1 else 0
    return 0 if isinstance(block, bool) else block


def _untrained(name: str, taps: list[Tap], teacher: Backbone) -> str:
    """Why a target cannot read ``taps``, and what can be done."""
    block, output = taps[0].block, teacher.output_block
    read = ", ".join(dict.fromkeys(tap.name for tap in taps if tap.block == block))
    text = (
        f"{name}.teacher_block: {block} gives out what nobody trained: {read}; the teacher's last wholly trained block "
        f"is {output}"
    )
    if not teacher.beyond or output == teacher.depth:
        return f"{text}; read that (teacher_block: {output})"
    reached = ", ".join(teacher.beyond)
    return (
        f"{text}, and of block {output + 1} only {reached} were (a relation stops there). Read block {output} "
        f"(teacher_block: {output}), distil relations of {reached}, or train the teacher with a target that goes on "
        "to the end of the block, such as Feature, beside its own"
    )


def target_block(teacher: Backbone, student: Backbone) -> int:
    """The teacher block to distil from by rule: its last when depths are equal, else ``round(0.75 x depth)``."""
    return teacher.depth if teacher.depth == student.depth else round(0.75 * teacher.depth)


def whiten(tokens: Tensor) -> Tensor:
    """LayerNorm without affine over the channels of ``(..., D)``, in float32 (TinyMIM Eq. 8; arXiv 2205.14141)."""
    tokens = tokens.float()
    return F.layer_norm(tokens, tokens.shape[-1:])
