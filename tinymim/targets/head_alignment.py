"""Align attention heads: cut the student's channels into as many heads as the teacher has (TinyMIM section 3.1.2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tinymim.vit.architecture import check_divides
from tinymim.vit.backbone import Backbone


@dataclass(frozen=True)
class HeadAlignment:
    """Equally many ``heads`` in two networks of any ``widths``, so that their relations can be compared head by head.

    The same channels are cut into other heads; nothing is added to either network.
    """

    heads: int
    widths: tuple[int, int]

    @classmethod
    def match(cls, teacher: Backbone, student: Backbone, heads: int) -> HeadAlignment:
        """Align both networks in ``heads``; sizes are enough.

        Raises:
            TinymimError: the number does not divide a width; the message lists those that do.
        """
        check_divides(heads, teacher.width, f"the teacher, {teacher.architecture.arch}")
        check_divides(heads, student.width, f"the student, {student.architecture.arch}")
        return cls(heads, (teacher.width, student.width))

    def split(self, tokens: Tensor) -> Tensor:
        """``(B, N, D)`` of either side by head, ``(B, H, N, D / H)``."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def describe(self) -> str:
        """One line for people."""
        wide, narrow = (width // self.heads for width in self.widths)
        return f"{self.heads} heads of {wide} -> {self.heads} heads of {narrow}"
