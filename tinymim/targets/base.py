"""Base of the targets: which taps are read of teacher and student, and the loss of each pair of blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from tinymim.errors import TinymimError
from tinymim.targets.block_pairs import Blocks, compared_blocks
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Readings, Tap


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
        weight: factor of this target's loss in the sum.
        teacher_block: block or blocks of the teacher to read (see :data:`Blocks`); ``None`` takes the teacher card's,
            else the last when both networks are equally deep, else ``round(0.75 x depth)`` (18 of 24; TinyMIM Table
            10). A list is read block by block beside the student's, and the losses are averaged over it.
        student_block: block or blocks of the student, as many; ``None`` is its last.
    """

    reads: Sequence[str] = ("ffn_post",)
    """Names of the taps (see ``tinymim/vit/taps.py``) that are read in each block."""
    teacher_reads: Sequence[str] | None = None
    """Names of the teacher's taps, where they are others than the student's."""
    mean_of = 1
    """Number of losses of a pair of blocks that are averaged instead of added."""
    first_only = False
    """Whether only the teacher's first token, CLS, is looked at; no more is then stored in a teacher cache."""

    def __init__(self, weight: float = 1.0, teacher_block: Blocks | None = None, student_block: Blocks | None = None):
        super().__init__()
        self.weight = weight
        self.teacher_block = teacher_block
        self.student_block = student_block
        self.blocks: list[tuple[int, int]] = []
        """The teacher's and the student's block of each pair, once bound."""

    @property
    def name(self) -> str:
        """Name of the loss in logs, ``loss_NAME``."""
        return type(self).__name__.lower()

    def bind(self, teacher: Backbone, student: Backbone, target_block: int) -> None:
        """Pair the blocks, check that the two networks fit, and build projections. Sizes only: weights may be missing.

        Args:
            teacher: may be a skeleton.
            student: may be a skeleton.
            target_block: the teacher block to read where the recipe names none.

        Raises:
            TinymimError: the networks do not fit this target; the message names the field.
        """
        if type(self).pair_loss is Target.pair_loss and type(self).forward is Target.forward:
            raise TinymimError(
                f"{type(self).__name__}: this target has no loss; define pair_loss(self, teacher, student, pair), "
                "which takes readings by the tap names in `reads` (see tinymim/targets/base.py)"
            )
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
        """Loss of one pair of blocks.

        Args:
            teacher: readings by tap name, ``(B, N, D_t)`` each; ``(B, classes)`` for ``logits``.
            student: readings by tap name, ``(B, N, D_s)`` each.
            pair: its place in ``self.blocks``.

        Returns:
            A scalar, or several by name (``qk``), which are added.
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
    """Why a target cannot read ``taps``, and what can be done."""
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


def whiten(tokens: Tensor) -> Tensor:
    """LayerNorm without affine over the channels of ``(..., D)``, in float32 (TinyMIM Eq. 8; arXiv 2205.14141)."""
    tokens = tokens.float()
    return F.layer_norm(tokens, tokens.shape[-1:])
