"""Which token of the teacher stands beside which of the student."""

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

    Args:
        grids: patches along height and width, teacher's and student's.
        prefixes: tokens before the patches, likewise; CLS comes first.
        shared: prefix tokens that are compared: 1, or 0 without CLS.
    """

    grids: tuple[tuple[int, int], tuple[int, int]]
    prefixes: tuple[int, int]
    shared: int

    @classmethod
    def match(cls, teacher: Backbone, student: Backbone, with_cls: bool, name: str) -> Tokens:
        """Find them from the networks' sizes.

        Args:
            teacher: may be a skeleton.
            student: may be a skeleton.
            with_cls: compare the CLS token where both have it.
            name: of the target, for the error.

        Raises:
            TinymimError: grids of different shape.
        """
        (rows, columns), (own_rows, own_columns) = teacher.grid, student.grid
        if rows * own_columns != columns * own_rows:
            raise TinymimError(
                f"{name}: the teacher sees {rows}x{columns} patches and the student {own_rows}x{own_columns}; tokens "
                f"can be resampled between grids of one shape only. Give the student patch_size and img_size for it"
            )
        both = teacher.has_cls and student.has_cls
        return cls((teacher.grid, student.grid), (teacher.prefix, student.prefix), int(with_cls and both))

    @property
    def same_grid(self) -> bool:
        """Whether patches stand side by side as they are."""
        return self.grids[0] == self.grids[1]

    def __call__(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, prefix + N, D)`` readings of both sides, cut and resampled to equally many tokens."""
        return self.of_teacher(teacher), self.of_student(student)

    def of_teacher(self, tokens: Tensor) -> Tensor:
        """The teacher's, cut and resampled to the student's grid."""
        if not self.same_grid:
            patches = self._resampled(tokens[:, self.prefixes[0] :])
            tokens = torch.cat([tokens[:, : self.prefixes[0]], patches], dim=1)
        return self._cut(tokens, self.prefixes[0])

    def of_student(self, tokens: Tensor) -> Tensor:
        """The student's, cut."""
        return self._cut(tokens, self.prefixes[1])

    def _cut(self, tokens: Tensor, prefix: int) -> Tensor:
        if prefix == self.shared:
            return tokens
        if self.shared == 0:
            return tokens[:, prefix:]
        return torch.cat([tokens[:, : self.shared], tokens[:, prefix:]], dim=1)

    def _resampled(self, patches: Tensor) -> Tensor:
        """``(B, N_t, D)`` on the teacher's grid to the student's."""
        images = patches.transpose(1, 2).unflatten(-1, self.grids[0]).float()
        images = F.interpolate(images, size=self.grids[1], mode="bilinear", antialias=True)
        return images.flatten(2).transpose(1, 2).to(patches.dtype)

    def describe(self) -> str:
        """What is done to the tokens, or nothing where they fit as they are."""
        if self.same_grid:
            return ""
        (rows, columns), (own_rows, own_columns) = self.grids
        return f", teacher's {rows}x{columns} tokens resampled to {own_rows}x{own_columns}"
