"""Distillation: a frozen teacher, a small student, and the targets between them (TinyMIM, arXiv 2301.01296)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from tinymim import teachers
from tinymim.architecture import Architecture, set_drop_path, set_heads
from tinymim.backbones import Backbone, resized, skeleton
from tinymim.blocks import Tap
from tinymim.errors import TinymimError, several
from tinymim.modules.evaluation import Evaluated
from tinymim.modules.frozen import FrozenTeacher, View
from tinymim.modules.masking import fixed_keep, random_keep
from tinymim.modules.optim import Optim, configure
from tinymim.modules.reconstruction import Reconstruction, Reconstructor
from tinymim.targets.base import Target, target_block
from tinymim.weights import RECORD, Provenance


class Distiller(Evaluated):
    """Train a student so that its targets match a frozen teacher's on the same crops.

    The teacher is in eval mode and under inference mode; it is no submodule, so DDP does not see it and checkpoints
    do not carry it. Student parameters that no loss reaches are frozen, found from the reader's route. Defaults are
    the published code's where it has the choice, else the paper's.

    Args:
        teacher: a card's name (``tinymim teachers``), a card's path, or a checkpoint of this project.
        student: the architecture to train, from random weights.
        targets: what to distil; their losses are summed with their weights.
        optim: the optimiser.
        drop_path: stochastic depth of the student.
        drop_path_ramp: see :func:`tinymim.architecture.set_drop_path`; for both networks.
        teacher_drop_path: stochastic depth of the teacher; the paper's best is none (Table 13).
        head_layout: ``uniform`` keeps the student's own heads in every block, and only the relation regroups them;
            ``published`` gives the student's target block the teacher's number of heads, as the paper's adaptive
            block does.
        mask_ratio: share of patches that the student does not see, in [0, 1); their tokens are dropped, and targets
            compare the tokens kept.
        teacher_view: what the teacher sees then: the ``visible`` patches, or the ``whole`` image.
        reconstruction: an auxiliary loss on the dropped patches; needs a ``mask_ratio``.
        gradient_checkpointing: recompute the student's blocks in the backward pass: less memory, more time.
        compile: run the blocks of both networks through ``torch.compile``.
    """

    prefix = "student.vit."

    def __init__(
        self,
        teacher: str,
        student: Architecture,
        targets: list[Target],
        optim: Optim | None = None,
        drop_path: float = 0.1,
        drop_path_ramp: Literal["linear", "constant"] = "constant",
        teacher_drop_path: float = 0.0,
        head_layout: Literal["uniform", "published"] = "uniform",
        mask_ratio: float = 0.0,
        teacher_view: View = "visible",
        reconstruction: Reconstruction | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
    ):
        super().__init__()
        self.source = teacher
        self.architecture = student
        self.targets = nn.ModuleList(targets)
        self.optim = optim or Optim()
        self.drop_path, self.drop_path_ramp, self.teacher_drop_path = drop_path, drop_path_ramp, teacher_drop_path
        self.head_layout = head_layout
        self.mask_ratio, self.teacher_view = mask_ratio, teacher_view
        self.reconstruction = reconstruction
        self.checkpointing, self.compiled = gradient_checkpointing, compile
        self.student: Backbone | None = None
        self.reconstructor: Reconstructor | None = None
        self.provenance: Provenance | None = None
        self._frozen: FrozenTeacher | None = None

    @property
    def backbone(self) -> Backbone:
        """The student."""
        assert self.student is not None, "configure_model comes first"
        return self.student

    @property
    def teacher(self) -> Backbone:
        """The frozen teacher, up to the deepest block read."""
        assert self._frozen is not None, "configure_model comes first"
        return self._frozen.backbone

    def problems(self, image_size: int) -> list[str]:
        """Everything that keeps the recipe from running, each with its remedy. Needs sizes only, no weights.

        Args:
            image_size: of the data, in pixels.
        """
        found = self._option_problems()
        located, student = None, None
        try:
            located = self._located = self._located or teachers.locate(self.source)
            found += [problem] if (problem := located.problem()) else []
        except TinymimError as error:
            found.append(str(error))
        try:
            student = skeleton(self.architecture)
        except TinymimError as error:
            found.append(f"student: {error}")
        if located and student:
            found += self._size_problems(located.skeleton, student, image_size)
            found += self._bind(located, student)
        return found

    def _option_problems(self) -> list[str]:
        found = []
        if not self.targets:
            found.append("targets: the list is empty; name at least one, such as tinymim.targets.Relation")
        for name in ("drop_path", "teacher_drop_path", "mask_ratio"):
            if not 0 <= getattr(self, name) < 1:
                found.append(f"{name}: {getattr(self, name)} is not in [0, 1)")
        if self.reconstruction:
            found += [f"reconstruction.{problem}" for problem in self.reconstruction.problems()]
            if not self.mask_ratio:
                found.append("reconstruction: nothing is dropped to restore; set mask_ratio (the paper's is 0.75)")
        return found

    def _size_problems(self, teacher: Backbone, student: Backbone, image_size: int) -> list[str]:
        """Images are resized for one of the two networks at most."""
        found = []
        own, its = student.image_size[0], teacher.image_size[0]
        if image_size not in (own, its):
            sizes = f"{own}, and data.image_size is {image_size}" + (f"; the teacher takes {its}" if its != own else "")
            found.append(f"student.options.img_size: {sizes}; make them equal")
        if self.mask_ratio and teacher.grid != student.grid:
            (rows, columns), (own_rows, own_columns) = teacher.grid, student.grid
            found.append(
                f"mask_ratio: both sides must keep the same patches, and the teacher sees {rows}x{columns}, the "
                f"student {own_rows}x{own_columns}; give the student patch_size and img_size with the teacher's grid"
            )
        return found

    def _bind(self, located: teachers.Teacher, student: Backbone) -> list[str]:
        found = []
        block = located.target_block or target_block(located.skeleton, student)
        layout: dict[int, int] = {}
        for target in self._targets:
            try:
                target.bind(located.skeleton, student, block)
            except TinymimError as error:
                found.append(str(error))
                continue
            for number, heads in target.aligned_heads().items():
                if self.head_layout == "published" and layout.setdefault(number, heads) != heads:
                    found.append(
                        f"head_layout: published asks for {layout[number]} and for {heads} heads in block {number} of "
                        "the student; use uniform, or one head count a block"
                    )
        if self.head_layout == "published" and not found:
            for number, heads in layout.items():
                set_heads(student.vit, number, heads)
            for target in self._targets:  # once more, over the student as it will be
                target.bind(located.skeleton, student, block)
        self._heads = student.heads
        return found

    @property
    def _targets(self) -> list[Target]:
        return list(self.targets)  # type: ignore[arg-type]

    def configure_model(self) -> None:
        """Load the teacher, build the student, freeze what no loss reaches."""
        if self.student is not None:
            return
        if found := self.problems(self._image_size()):
            raise several("this recipe cannot run", found)
        assert self._located
        taps = [tap for target in self._targets for tap in target.teacher_taps()]
        teacher, self.provenance = self._located.load(classifier=any(tap.name == "logits" for tap in taps))
        self._frozen = FrozenTeacher(
            teacher,
            taps,
            self.teacher_drop_path,
            self.drop_path_ramp,
            half=self.trainer.precision == "bf16-mixed",
            view=self.teacher_view,
            compiled=self.compiled,
        )
        student = Backbone(self.architecture)
        set_drop_path(student.vit, self.drop_path, self.drop_path_ramp)
        self._settle(student)
        if self.reconstruction:
            self.reconstructor = Reconstructor(student, self.reconstruction)
        reached = student.reached(self._student_taps(student))
        dead = [p for name, p in student.named_parameters() if name not in reached]
        self.unreachable = sum(parameter.requires_grad_(False).numel() for parameter in dead)
        student.checkpointing = self.checkpointing
        if self.compiled:
            student.compile_blocks()
        self.student = student

    def _settle(self, student: Backbone) -> None:
        """Give ``student`` the head layout that was settled, and note how far the targets train it."""
        for block, heads in enumerate(self._heads, start=1):
            set_heads(student.vit, block, heads)
        student.mark_trained(self._student_taps(student))

    def leaves(self) -> dict[str, Any]:
        """A checkpoint's record: the student as it will be, under the teacher's licence."""
        assert self._located, "problems comes first"
        student = skeleton(self.architecture)
        self._settle(student)
        return {"backbone": student.record(), "prefix": self.prefix, "licence": self._located.licence}

    def _image_size(self) -> int:
        datamodule = getattr(self.trainer, "datamodule", None)
        return getattr(datamodule, "image_size", skeleton(self.architecture).image_size[0])

    def _student_taps(self, student: Backbone) -> list[Tap]:
        taps = [tap for target in self._targets for tap in target.student_taps()]
        return [*taps, Tap(student.depth, "ffn_post")] if self.reconstruction else taps

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Each target's losses, and their weighted sum as ``loss``. Scalars."""
        assert self._frozen
        images, student = batch["image"], self.backbone
        view = batch.get("jittered", images)
        keep = self._keep(images, batch) if self.mask_ratio else None
        given = self._frozen.read(images, keep, self.training)
        taken = student.read(view, self._student_taps(student), keep)
        losses: dict[str, Tensor] = {}
        total: Tensor | float = 0.0
        for number, target in enumerate(self._targets, start=1):
            parts = target(given, taken)
            for part, value in parts.items():
                name = "_".join(filter(None, ("loss", target.name, part)))
                losses[name if name not in losses else f"{name}_{number}"] = value
            total = total + target.weight * sum(parts.values())
        if self.reconstruction and keep is not None:
            assert self.reconstructor is not None
            tokens = taken[Tap(student.depth, "ffn_post")]
            restored = self.reconstructor(tokens, keep, resized(view, student.image_size), student)
            losses["loss_reconstruction"] = restored
            total = total + self.reconstruction.weight * restored
        return {"loss": torch.as_tensor(total), **losses}

    def _keep(self, images: Tensor, batch: dict[str, Any]) -> Tensor:
        """The patches that the student sees: random in training, a function of the image's index elsewhere."""
        patches = self.backbone.grid[0] * self.backbone.grid[1]
        if self.training:
            return random_keep(images, patches, self.mask_ratio)
        return fixed_keep(batch["index"], patches, self.mask_ratio, images.device)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One step's loss."""
        losses = self.losses(batch)
        self.log_dict(
            {f"train/{name}": value.detach() for name, value in losses.items()}, batch_size=len(batch["image"])
        )
        return losses["loss"]

    def evaluate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses on plain held-out images."""
        return self.losses(batch)

    def configure_optimizers(self) -> Any:
        """AdamW over the student and the projections and decoder that train with it."""
        return configure(self, self.optim, self.trainer)

    def origin(self) -> dict[str, Any]:
        """The teacher and its licence, which passes on to the student."""
        assert self.provenance
        return {"teacher": self.provenance.identity(), "licence": self.provenance.licence}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network or another teacher."""
        super().on_load_checkpoint(checkpoint)
        assert self.provenance
        self.provenance.check_same(checkpoint[RECORD]["teacher"], "this checkpoint was distilled from teacher")

    def summary(self) -> list[tuple[str, str]]:
        """What is about to be trained, for people: title and text of each line."""
        assert self._located is not None
        student, depth = self.backbone, self.backbone.depth
        lines = [
            ("teacher", self._located.skeleton.describe()),
            ("", str(self.provenance)),
            ("student", student.describe()),
        ]
        lines += [(f"target {target.name} x{target.weight:g}", target.describe()) for target in self._targets]
        if self.mask_ratio:
            lines.append(
                ("masking", f"{self.mask_ratio:.0%} of the student's patches; teacher sees {self.teacher_view}")
            )
        if self.reconstruction:
            lines.append(
                (f"reconstruction x{self.reconstruction.weight:g}", "of the dropped patches, beside the targets")
            )
        output = f"block {student.output_block} of {depth}"
        if student.output_block < depth:
            output += (
                f": the loss does not train all of block {student.output_block + 1}, so kNN and probes read before it"
            )
        return [*lines, ("output block", output)]
