"""Align teacher and student tokens: shared prefix tokens and resampled patch grids."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tinymim.errors import TinymimError
from tinymim.vit.backbone import Backbone


@dataclass(frozen=True)
class Tokens:
    """The tokens that two networks share: CLS where both have it, and the patches.

    Other prefix tokens (a distillation token, registers) mean something to their own network alone and are left out;
    so is CLS where one side alone has it. Where the two grids differ the
    teacher's patch tokens are resampled to the student's grid, which bilinear interpolation of features can do as long
    as both grids cover the same image in the same shape. Products of resampled q and k are the resampled products of q
    and k, with rope or without, as they are linear in either.
    """

    grids: tuple[tuple[int, int], tuple[int, int]]  # patches along height and width, teacher's and student's
    prefixes: tuple[int, int]  # tokens before the patches, teacher's and student's; CLS comes first
    shared: int  # prefix tokens that are compared: 1, or 0 without CLS

    @classmethod
    def match(cls, teacher: Backbone, student: Backbone, with_cls: bool, name: str) -> Tokens:
        """The shared tokens of two networks, of which sizes are enough; ``with_cls`` compares the CLS token where both
        have it.

        Raises:
            TinymimError: grids of different shape; the message begins with the target's ``name``.
        """
        (rows, columns), (s_rows, s_columns) = teacher.grid, student.grid
        if rows * s_columns != columns * s_rows:
            raise TinymimError(
                f"{name}: the teacher sees {rows}x{columns} patches and the student {s_rows}x{s_columns}; tokens "
                f"can be resampled between grids of one shape only. Give the student patch_size and img_size for it"
            )
        shared = int(with_cls and teacher.has_cls and student.has_cls)
        return cls((teacher.grid, student.grid), (teacher.prefix, student.prefix), shared)

    @property
    def same_grid(self) -> bool:
        """Whether no patch must be resampled."""
        return self.grids[0] == self.grids[1]

    def __call__(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        """The shared tokens of both sides' ``(B, prefix + N, D)`` readings, equally many."""
        return self.of_teacher(teacher), self.of_student(student)

    def of_teacher(self, tokens: Tensor) -> Tensor:
        """The teacher's shared tokens, resampled to the student's grid."""
        if not self.same_grid:
            images = tokens[:, self.prefixes[0] :].transpose(1, 2).unflatten(-1, self.grids[0]).float()
            images = F.interpolate(images, size=self.grids[1], mode="bilinear", antialias=True)
            patches = images.flatten(2).transpose(1, 2).to(tokens.dtype)
            tokens = torch.cat([tokens[:, : self.prefixes[0]], patches], dim=1)
        return self._cut(tokens, self.prefixes[0])

    def of_student(self, tokens: Tensor) -> Tensor:
        """The student's shared tokens."""
        return self._cut(tokens, self.prefixes[1])

    def _cut(self, tokens: Tensor, prefix: int) -> Tensor:
        if prefix == self.shared:
            return tokens
        if self.shared == 0:
            return tokens[:, prefix:]
        return torch.cat([tokens[:, : self.shared], tokens[:, prefix:]], dim=1)

    def describe(self) -> str:
        """Words on how tokens are resampled; empty where they are not."""
        if self.same_grid:
            return ""
        (rows, columns), (s_rows, s_columns) = self.grids
        return f", teacher's {rows}x{columns} tokens resampled to {s_rows}x{s_columns}"
