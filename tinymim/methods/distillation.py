"""Distillation: a frozen teacher, a small student, and the targets between them (TinyMIM, arXiv 2301.01296)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from tinymim.argument_types import check_types
from tinymim.methods.base import Errors, size
from tinymim.methods.mae_decoder import Reconstruction, Reconstructor
from tinymim.methods.masking import fixed_keep, random_keep
from tinymim.methods.optim import Optim
from tinymim.methods.pairing import HeadLayout, bind, check_targets, size_errors
from tinymim.methods.teacher_student import TeacherStudentMethod
from tinymim.targets.base import Target, target_block
from tinymim.vit.architecture import Architecture, set_drop_path
from tinymim.vit.backbone import Backbone, on_meta, skeleton
from tinymim.vit.images import resized
from tinymim.vit.initialise import initialise
from tinymim.vit.taps import Tap


class Distiller(TeacherStudentMethod):
    """Train a student so that its targets match a frozen teacher's on the same crops.

    Student parameters that no loss reaches are frozen, known from the reader's route. Defaults are the published code's
    where it has the choice, else the paper's.

    Args:
        teacher: a card's name (``tinymim teachers``) or path, ``timm:NAME``, or the path of a checkpoint.
        student: the architecture to train, from random weights.
        targets: what to distil; their losses are summed with their weights.
        optim: the optimiser.
        drop_path: stochastic depth of the student.
        head_layout: ``uniform`` keeps the student's own heads in every block, and only the relation regroups them;
            ``published`` gives the student's target block the teacher's number of heads, as the paper's adaptive
            block does.
        mask_ratio: share of patches that the student does not see, in [0, 1); their tokens are dropped, and targets
            compare the tokens kept.
        reconstruction: an auxiliary loss on the dropped patches; needs a ``mask_ratio``.
        gradient_checkpointing: recompute the student's blocks in the backward pass: less memory, more time.
        options: how the teacher is run, see :class:`TeacherStudentMethod`.

    Raises:
        TinymimError: arguments of other types.
    """

    prefix = "student.vit."

    def __init__(
        self,
        teacher: str,
        student: Architecture,
        targets: list[Target],
        optim: Optim | None = None,
        drop_path: float = 0.1,
        head_layout: HeadLayout = "uniform",
        mask_ratio: float = 0.0,
        reconstruction: Reconstruction | None = None,
        gradient_checkpointing: bool = False,
        **options: Any,
    ):
        check_targets(targets)
        check_types(Distiller, locals())
        super().__init__(teacher, **options)
        self.architecture, self.optim = student, optim or Optim()
        self.drop_path, self.head_layout = drop_path, head_layout
        self.targets: Any = nn.ModuleList(targets)
        self.mask_ratio, self.reconstruction, self.checkpointing = mask_ratio, reconstruction, gradient_checkpointing
        self.student: Backbone | None = None
        self.reconstructor: Reconstructor | None = None

    def build(self, image_size: int | None, data: Any, errors: Errors) -> None:
        """Find the teacher, set the targets up for the pair, load the teacher, build the student."""
        self._check_options(errors)
        teacher, student = self.find_teacher(errors), None
        with errors.of("student: "):
            student = skeleton(self.architecture)  # sizes, which are all that a check and the targets need
        if not teacher or not student:
            return
        errors += size_errors(teacher.skeleton, student, image_size, self.teacher_view if self.mask_ratio else None)
        block = teacher.target_block or target_block(teacher.skeleton, student)
        if wrong := bind(self.targets, teacher.skeleton, student, block, self.head_layout):
            errors += wrong
            return
        self._student_taps = [tap for target in self.targets for tap in target.student_taps()]
        if self.reconstruction:
            self._student_taps.append(Tap(student.depth, "ffn_post"))
        student.set_output_block(self._student_taps)
        if not on_meta():
            # run in every step, or once for each view of an image and read from the cache from then on
            self._frozen = (self.cached_teacher if self.teacher_cache else self.frozen_teacher)(self.targets)
            self.open_cache()
            student = initialise(student.with_weights(), self.init)
        set_drop_path(student.vit, self.drop_path, self.drop_path_ramp)
        if self.reconstruction and not errors:
            self.reconstructor = initialise(Reconstructor(student, self.reconstruction), self.init)
        self.unreachable = student.freeze_unreached(self._student_taps)
        student.checkpointing = self.checkpointing
        if self.compiled:
            student.compile_blocks()
        self.student = student

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Each target's losses, and their weighted sum as ``loss``. Scalars."""
        images, student = batch["image"], self.backbone
        jittered = batch.get("jittered", images)
        keep = self._random_patches(batch) if self.mask_ratio else None
        taught = self.frozen.read(images, keep, self.training, batch.get("stored"))
        seen = student.read(jittered, self._student_taps, keep)
        losses: dict[str, Tensor] = {}
        total: Tensor | float = 0.0
        for number, target in enumerate(self.targets, start=1):
            parts = target(taught, seen)
            for part, value in parts.items():
                name = "_".join(filter(None, ("loss", target.name, part)))
                losses[name if name not in losses else f"{name}_{number}"] = value  # a recipe may name a target twice
            total = total + target.weight * sum(parts.values())
        if self.reconstruction and self.reconstructor and keep is not None:
            tokens, pixels = seen[Tap(student.depth, "ffn_post")], resized(jittered, student.image_size)
            losses["loss_reconstruction"] = self.reconstructor(tokens, keep, pixels, student)
            total = total + self.reconstruction.weight * losses["loss_reconstruction"]
        return {"loss": torch.as_tensor(total), **losses}

    def _random_patches(self, batch: dict[str, Any]) -> Tensor:
        """The patches that the student sees: random in training, a function of the image's index elsewhere."""
        images, patches = batch["image"], self.backbone.patches
        if self.training:
            return random_keep(images, patches, self.mask_ratio)
        return fixed_keep(batch["index"], patches, self.mask_ratio, images.device)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One step's loss."""
        return self.log_training(self.losses(batch), len(batch["image"]))

    def evaluate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses on plain images."""
        return self.losses(batch)

    def _check_options(self, errors: Errors) -> None:
        errors.unless(0 <= self.mask_ratio < 1, f"mask_ratio: {self.mask_ratio} is not in [0, 1)")
        self.check_teacher_options(bool(self.mask_ratio), errors)
        if self.reconstruction:
            errors += self.reconstruction.errors(self.mask_ratio)

    @override
    def headline(self) -> str:
        assert self.located
        assert self.provenance
        taught = f"{self.provenance.title} ({size(self.located.skeleton)} parameters)"
        by = ", ".join(
            " ".join((target.name, "+".join(getattr(target, "pairs", ())))).strip() for target in self.targets
        )
        return f"{taught} into one of {size(self.backbone)}, by {by}"

    @override
    def remarks(self) -> list[str]:
        block, depth = self.backbone.output_block, self.backbone.depth
        read = f"features: they are read after block {block} of {depth}, as the loss trains only a part of the next"
        return [*super().remarks(), *([read] if block < depth else [])]

    def summary(self) -> list[tuple[str, str]]:
        """Lines on what is about to be trained: title and text."""
        lines = [*super().summary(), ("student", self.backbone.describe()), ("first weights", self.init)]
        lines += [(f"target {target.name} x{target.weight:g}", target.describe()) for target in self.targets]
        if self.mask_ratio:
            masked = f"{self.mask_ratio:.0%} of the student's patches; teacher sees {self.teacher_view}"
            lines.append(("masking", masked))
        if self.reconstruction:
            lines.append(self.reconstruction.describe())
        return [*lines, ("output block", self.backbone.describe_output())]
