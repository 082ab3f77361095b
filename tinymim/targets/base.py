"""Base of the targets: which taps are read of teacher and student, and the loss of each pair of blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from tinymim.argument_types import checked
from tinymim.errors import TinymimError
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Readings, Tap

Blocks = int | float | list[int | float]
"""Blocks as a recipe names them: a number from 1, a fraction of the depth such as 0.75 (1.0 is the last block, 1 the
first), or a list of them."""


@checked
class Target(nn.Module):
    """One thing to distil. A subclass names the taps it reads and the loss of a pair of blocks, and a recipe names it::

        class MeanToken(Target):
            reads = ("ffn_post",)

            def setup_pair(self, teacher, student):
                self.projection = nn.Linear(student.width, teacher.width)

            def pair_loss(self, teacher, student, pair):
                seen = self.projection(student["ffn_post"].mean(dim=1))
                return (seen - teacher["ffn_post"].mean(dim=1)).square().mean()

    Args:
        weight: factor of this target's loss in the sum, above 0.
        teacher_block: block or blocks of the teacher to read (see :data:`Blocks`); ``None`` takes the teacher card's,
            else the last when both networks are equally deep, else ``round(0.75 x depth)`` (18 of 24; TinyMIM Table
            10). A list is read block by block beside the student's, and the losses are averaged over it.
        student_block: block or blocks of the student, as many; ``None`` is its last.
    """

    reads: Sequence[str] = ("ffn_post",)  # names of the taps (see ``tinymim/vit/taps.py``) that are read in each block
    teacher_reads: Sequence[str] | None = None  # names of the teacher's taps, where they are others than the student's
    mean_of = 1  # number of losses of a pair of blocks that are averaged instead of added
    first_only = False
    """Whether only the teacher's first token, CLS, is looked at; no more is then stored in a teacher cache."""

    def __init__(self, weight: float = 1.0, teacher_block: Blocks | None = None, student_block: Blocks | None = None):
        super().__init__()
        self.weight = weight
        self.teacher_block = teacher_block
        self.student_block = student_block
        self.blocks: list[tuple[int, int]] = []  # the teacher's and the student's block of each pair, once bound

    @property
    def name(self) -> str:
        """Name of the loss in logs, ``loss_NAME``."""
        return type(self).__name__.lower()

    def bind(self, teacher: Backbone, student: Backbone, target_block: int) -> None:
        """Pair the blocks, check that the two networks fit, and build projections. Sizes only: weights may be missing.
        ``target_block`` of the teacher is read where the recipe names none.

        Raises:
            TinymimError: the networks do not fit this target; the message names the field.
        """
        if type(self).pair_loss is Target.pair_loss and type(self).forward is Target.forward:
            raise TinymimError(
                f"{type(self).__name__}: this target has no loss; define pair_loss(self, teacher, student, pair), "
                "which takes readings by the tap names in `reads` (see tinymim/targets/base.py)"
            )
        if not 0 < self.weight < math.inf:
            raise TinymimError(f"{self.name}.weight: {self.weight} is not a number above 0; or leave it out")
        self.blocks = compared_blocks(self.name, self.teacher_block, self.student_block, teacher, student, target_block)
        # targets that users wrote before there was setup_pair call it fit, and name taps and losses themselves
        getattr(self, "fit", self.setup_pair)(teacher, student)
        untrained = [tap for tap in self.teacher_taps() if not teacher.trained(tap)]
        if untrained:
            raise TinymimError(_untrained(self.name, untrained, teacher))

    def setup_pair(self, teacher: Backbone, student: Backbone) -> None:
        """Check what is particular to this target and build its projections; ``self.blocks`` is known."""

    def pair_loss(
        self, teacher: dict[str, Tensor], student: dict[str, Tensor], pair: int
    ) -> Tensor | dict[str, Tensor]:
        """Loss of one pair of blocks: a scalar, or several by name (``qk``), which are added.

        Args:
            teacher: readings by tap name, ``(B, N, D_t)`` each; ``(B, classes)`` for ``logits``.
            student: readings by tap name, ``(B, N, D_s)`` each.
            pair: its place in ``self.blocks``.
        """
        raise NotImplementedError

    def teacher_taps(self) -> list[Tap]:
        """Places to read in the teacher."""
        return [Tap(block, name) for block, _ in self.blocks for name in self.teacher_reads or self.reads]

    def student_taps(self) -> list[Tap]:
        """Places to read in the student."""
        return [Tap(block, name) for _, block in self.blocks for name in self.reads]

    def forward(self, teacher: Readings, student: Readings) -> dict[str, Tensor]:
        """Scalar losses by name (``{}`` and up); the target's loss is their sum, before ``weight``."""
        losses = {}
        for pair, blocks in enumerate(self.blocks):
            t = {name: teacher[Tap(blocks[0], name)] for name in self.teacher_reads or self.reads}
            s = {name: student[Tap(blocks[1], name)] for name in self.reads}
            parts = self.pair_loss(t, s, pair)
            for part, loss in (parts if isinstance(parts, dict) else {"": parts}).items():
                losses[self.loss_name(part, blocks)] = loss / (len(self.blocks) * self.mean_of)
        return losses

    def describe(self) -> str:
        """One line for people: what is read where, and how the two sides are aligned."""
        return self.describe_blocks()

    def aligned_heads(self) -> dict[int, int]:
        """Heads by student block, where this target regroups the student's channels into the teacher's heads."""
        return {}

    def loss_name(self, part: str, blocks: tuple[int, int]) -> str:
        """Name of a partial loss: ``part`` alone, with the teacher's and student's block where there are several."""
        several = [f"{blocks[0]}to{blocks[1]}"] if len(self.blocks) > 1 else []
        return "_".join(filter(None, (part, *several)))

    part = loss_name  # its name in targets that users wrote before

    def describe_blocks(self) -> str:
        """The pairs of blocks, for people."""
        return "block " + ", ".join(f"{teacher} -> {student}" for teacher, student in self.blocks)


def _untrained(name: str, taps: list[Tap], teacher: Backbone) -> str:
    block, output = taps[0].block, teacher.output_block
    read = ", ".join(dict.fromkeys(tap.name for tap in taps if tap.block == block))
    text = (
        f"{name}.teacher_block: block {block}'s {read} were not trained; the teacher's last wholly trained block is "
        f"{output}"
    )
    if not teacher.trained_qkv or output == teacher.depth:
        return f"{text}; read that (teacher_block: {output})"
    reached = ", ".join(teacher.trained_qkv)
    return (
        f"{text}, and of block {output + 1} only {reached} were (a relation stops there). Read block {output} "
        f"(teacher_block: {output}), distil relations of {reached}, or train the teacher with a target that goes on "
        "to the end of the block, such as Feature, beside its own"
    )


def first_only_taps(targets: Iterable[Target]) -> list[Tap]:
    """The teacher's taps of which no target looks at more than the first token."""
    taps: dict[Tap, bool] = {}
    for target in targets:
        # a method in targets that users wrote before
        first_only = target.first_only() if callable(target.first_only) else target.first_only
        for tap in target.teacher_taps():
            taps[tap] = taps.get(tap, True) and first_only
    return [tap for tap, first_only in taps.items() if first_only]


def target_block(teacher: Backbone, student: Backbone) -> int:
    """The teacher block to distil from by rule: its last when depths are equal, else ``round(0.75 x depth)``."""
    return teacher.depth if teacher.depth == student.depth else round(0.75 * teacher.depth)


def token_loss(kind: str, s: Tensor, t: Tensor, beta: float = 1.0) -> Tensor:
    """Loss of ``(..., D)`` tokens: ``cosine``, ``mse``, ``l1``, or ``smooth_l1`` that turns straight at ``beta``."""
    if kind == "cosine":
        return 1 - F.cosine_similarity(s, t, dim=-1).mean()
    if kind == "smooth_l1":
        return F.smooth_l1_loss(s, t, beta=beta)
    return (F.mse_loss if kind == "mse" else F.l1_loss)(s, t)


def whiten(tokens: Tensor) -> Tensor:
    """LayerNorm without affine over the channels of ``(..., D)``, in float32 (TinyMIM Eq. 8; arXiv 2205.14141)."""
    tokens = tokens.float()
    return F.layer_norm(tokens, tokens.shape[-1:])


def compared_blocks(
    name: str,
    teacher_block: Blocks | None,
    student_block: Blocks | None,
    teacher: Backbone,
    student: Backbone,
    target_block: int,
) -> list[tuple[int, int]]:
    """The teacher's and the student's block of each pair of the target ``name``, as its recipe has them: ``None`` is
    ``target_block`` for the teacher, and the last for the student. Sizes of the networks are enough.

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
