"""Pairing of teacher and student: image sizes, patch grids, the targets' blocks and heads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch

from tinymim.errors import TinymimError
from tinymim.methods.frozen_teacher import View
from tinymim.targets.base import Target
from tinymim.vit.architecture import set_heads
from tinymim.vit.backbone import NOT_MASKABLE, Backbone, on_meta

HeadLayout = Literal["uniform", "published"]


def check_targets(targets: object) -> None:
    """Raise where a Python program gives a method anything but a list of targets."""
    if not isinstance(targets, Iterable) or isinstance(targets, str | Mapping | Target):
        raise TinymimError(f"targets: {type(targets).__name__} is no list; give one, such as [Relation()]")
    for target in targets:
        if not isinstance(target, Target):
            what = repr(target) if isinstance(target, str) else f"an object of {type(target).__name__}"
            raise TinymimError(f"targets: {what} is no target; give objects, such as [tinymim.targets.Relation()]")


def size_errors(teacher: Backbone, student: Backbone, image_size: int | None, masked: View | None) -> list[str]:
    """Why these two cannot see the same images; they are resized for one of the networks at most.

    Args:
        teacher: sizes are enough.
        student: sizes are enough.
        image_size: of the data, in pixels; ``None`` is the student's.
        masked: what the teacher sees where the student sees a part of the patches; ``None`` where it sees all.
    """
    errors = []
    size, teachers = student.image_size[0], teacher.image_size[0]
    if image_size not in (None, size, teachers):
        remark = f"; the teacher takes {teachers}" if teachers != size else ""
        errors.append(f"student.options.img_size: {size}, and data.image_size is {image_size}{remark}; make them equal")
    if masked and teacher.grid != student.grid:
        (t_rows, t_columns), (rows, columns) = teacher.grid, student.grid
        errors.append(
            f"mask_ratio: both sides must keep the same patches, and the teacher sees {t_rows}x{t_columns}, the "
            f"student {rows}x{columns}; give the student patch_size and img_size with the teacher's grid"
        )
    if masked == "visible" and not teacher.maskable:
        errors.append(f"teacher_view: visible, but {teacher.architecture.arch} {NOT_MASKABLE}; use whole")
    if masked and not student.maskable:
        errors.append(f"mask_ratio: {student.architecture.arch} {NOT_MASKABLE}; mask nothing")
    return errors


def bind(targets: list[Target], teacher: Backbone, student: Backbone, block: int, layout: HeadLayout) -> list[str]:
    """Set each target up for the two networks.

    Args:
        targets: to set up.
        teacher: sizes are enough.
        student: sizes are enough; a ``published`` layout regroups its heads.
        block: the teacher's, by default.
        layout: see :class:`tinymim.methods.Distiller`.

    Returns:
        Why they do not fit, each with its remedy.
    """
    if not targets:
        return ["targets: the list is empty; name at least one, such as tinymim.targets.Relation"]
    errors = []
    aligned: dict[int, int] = {}
    for target in targets:
        try:
            _bind(target, teacher, student, block)
        except TinymimError as error:
            errors.append(str(error))
            continue
        for number, heads in target.aligned_heads().items():
            if layout == "published" and aligned.setdefault(number, heads) != heads:
                errors.append(
                    f"head_layout: published asks for {aligned[number]} and for {heads} heads in block {number} of "
                    "the student; use uniform, or one head count a block"
                )
    if layout == "published" and not errors:
        try:
            for number, heads in aligned.items():
                set_heads(student.vit, number, heads)
        except TinymimError as error:
            return [f"head_layout: 'published' is not possible here: {error}; use uniform"]
        for target in targets:  # once more, over the student as it will be
            _bind(target, teacher, student, block)
    return errors


def _bind(target: Target, teacher: Backbone, student: Backbone, block: int) -> None:
    """Set a target up, in a check too with numbers, which a user's own may look at."""
    with torch.device("cpu" if on_meta() else torch.get_default_device()):
        target.bind(teacher, student, block)
