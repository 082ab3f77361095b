"""Pairs of blocks: which block of the teacher is compared with which of the student."""

from __future__ import annotations

from tinymim.errors import TinymimError
from tinymim.vit.backbone import Backbone

Blocks = int | float | list[int | float]
"""Blocks as a recipe names them: a number from 1, a fraction of the depth such as 0.75 (1.0 is the last block, 1 the
first), or a list of them."""


def compared_blocks(
    name: str,
    teacher_block: Blocks | None,
    student_block: Blocks | None,
    teacher: Backbone,
    student: Backbone,
    target_block: int,
) -> list[tuple[int, int]]:
    """The teacher's and the student's block of each pair of a target.

    Args:
        name: of the target, for the error.
        teacher_block: as the recipe has it; ``None`` is ``target_block``.
        student_block: as the recipe has it; ``None`` is the last.
        teacher: may be a skeleton.
        student: may be a skeleton.
        target_block: the teacher block to read where the recipe names none.

    Raises:
        TinymimError: blocks that a network does not have, lists of other lengths, or a pair named twice.
    """
    read = target_block if teacher_block is None else teacher_block
    trained = student.depth if student_block is None else student_block
    teachers = block_numbers(read, teacher, f"{name}.teacher_block")
    students = block_numbers(trained, student, f"{name}.student_block")
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


def block_numbers(blocks: Blocks, network: Backbone, field: str) -> list[int]:
    """Block numbers, from 1, that a recipe means; a fraction is rounded to the nearest block.

    Raises:
        TinymimError: a number outside the network, or an empty list; the message names ``field``.
    """
    numbers = []
    for block in blocks if isinstance(blocks, list) else [blocks]:
        number = max(round(block * network.depth), 1) if isinstance(block, float) and 0 < block <= 1 else block
        if isinstance(number, float | bool) or not 1 <= number <= network.depth:
            raise _out_of_range(block, network, field)
        numbers.append(number)
    if not numbers:
        raise _out_of_range(blocks, network, field)
    return numbers


def _out_of_range(block: object, network: Backbone, field: str) -> TinymimError:
    return TinymimError(
        f"{field}: {block} is out of range; {network.architecture.arch} has blocks 1 to {network.depth}, or give a "
        "fraction of the depth, such as 0.75; 1.0 is the last"
    )
