"""How a teacher and a student fit together: image sizes, patch grids, the targets' blocks and heads."""

from __future__ import annotations

from typing import Literal

from tinymim.errors import TinymimError
from tinymim.methods.frozen_teacher import View
from tinymim.targets.base import Target
from tinymim.vit.architecture import set_heads
from tinymim.vit.backbone import NOT_MASKABLE, Backbone

HeadLayout = Literal["uniform", "published"]


def size_problems(teacher: Backbone, student: Backbone, image_size: int, masked: View | None) -> list[str]:
    """Why these two cannot see the same images; they are resized for one of the networks at most.

    Args:
        teacher: sizes are enough.
        student: likewise.
        image_size: of the data, in pixels.
        masked: what the teacher sees where the student sees a part of the patches; ``None`` where it sees all.
    """
    found = []
    own, its = student.image_size[0], teacher.image_size[0]
    if image_size not in (own, its):
        sizes = f"{own}, and data.image_size is {image_size}" + (f"; the teacher takes {its}" if its != own else "")
        found.append(f"student.options.img_size: {sizes}; make them equal")
    if masked and teacher.grid != student.grid:
        (rows, columns), (own_rows, own_columns) = teacher.grid, student.grid
        found.append(
            f"mask_ratio: both sides must keep the same patches, and the teacher sees {rows}x{columns}, the "
            f"student {own_rows}x{own_columns}; give the student patch_size and img_size with the teacher's grid"
        )
    if masked == "visible" and not teacher.maskable:
        found.append(f"teacher_view: visible, but {teacher.architecture.arch} {NOT_MASKABLE}; use whole")
    if masked and not student.maskable:
        found.append(f"mask_ratio: {student.architecture.arch} {NOT_MASKABLE}; mask nothing")
    return found


def bind(targets: list[Target], teacher: Backbone, student: Backbone, block: int, layout: HeadLayout) -> list[str]:
    """Bind each target to the two networks.

    Args:
        targets: to bind.
        teacher: sizes are enough.
        student: likewise; a ``published`` layout regroups its heads.
        block: the teacher's, by default.
        layout: see :class:`tinymim.methods.Distiller`.

    Returns:
        Why they cannot be bound, each with its remedy.
    """
    found = []
    aligned: dict[int, int] = {}
    for target in targets:
        try:
            target.bind(teacher, student, block)
        except TinymimError as error:
            found.append(str(error))
            continue
        for number, heads in target.aligned_heads().items():
            if layout == "published" and aligned.setdefault(number, heads) != heads:
                found.append(
                    f"head_layout: published asks for {aligned[number]} and for {heads} heads in block {number} of "
                    "the student; use uniform, or one head count a block"
                )
    if layout == "published" and not found:
        try:
            for number, heads in aligned.items():
                set_heads(student.vit, number, heads)
        except TinymimError as error:
            return [f"head_layout: published cannot be had; {error}; use uniform"]
        for target in targets:  # once more, over the student as it will be
            target.bind(teacher, student, block)
    return found
