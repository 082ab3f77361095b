"""Distillation: a frozen teacher, a small student, and the targets between them (TinyMIM, arXiv 2301.01296)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from tinymim import teachers
from tinymim.architecture import Architecture, check_divides, set_drop_path, set_heads
from tinymim.backbones import Backbone, Tap, skeleton
from tinymim.errors import TinymimError, several
from tinymim.modules.evaluation import Evaluated
from tinymim.modules.optim import Optim, configure
from tinymim.targets.base import Target, target_block
from tinymim.weights import RECORD, Provenance


class Distiller(Evaluated):
    """Train a student so that its targets match a frozen teacher's on the same crops.

    The teacher is in eval mode and under inference mode; it is no submodule, so DDP does not see it and checkpoints
    do not carry it. Student parameters that no target reaches are frozen, found from the reader's route.

    Args:
        teacher: a card's name (``tinymim teachers``), a card's path, or a checkpoint of this project.
        student: the architecture to train, from random weights.
        targets: what to distil; their losses are summed with their weights.
        optim: the optimiser.
        drop_path: stochastic depth of the student; the teacher has none.
        drop_path_ramp: see :func:`tinymim.architecture.set_drop_path`.
        head_layout: ``uniform`` keeps the student's own heads in every block, and only the relation regroups them;
            ``published`` gives the student's target block the teacher's number of heads, as the paper's adaptive
            block does.
    """

    def __init__(
        self,
        teacher: str,
        student: Architecture,
        targets: list[Target],
        optim: Optim | None = None,
        drop_path: float = 0.0,
        drop_path_ramp: Literal["linear", "constant"] = "linear",
        head_layout: Literal["uniform", "published"] = "uniform",
    ):
        super().__init__()
        self.source = teacher
        self.architecture = student
        self.targets = nn.ModuleList(targets)
        self.optim = optim or Optim()
        self.drop_path, self.drop_path_ramp = drop_path, drop_path_ramp
        self.head_layout = head_layout
        self.student: Backbone | None = None
        self.provenance: Provenance | None = None
        self._located: teachers.Teacher | None = None
        self._teacher: list[Backbone] = []  # in a list, so that it is no submodule

    prefix = "student.vit."

    @property
    def backbone(self) -> Backbone:
        """The student."""
        assert self.student is not None, "configure_model comes first"
        return self.student

    @property
    def teacher(self) -> Backbone:
        """The frozen teacher, up to the deepest block read."""
        return self._teacher[0]

    def problems(self, image_size: int) -> list[str]:
        """Everything that keeps the recipe from running, each with its remedy. Needs sizes only, no weights.

        Args:
            image_size: of the data, in pixels.
        """
        found: list[str] = []
        located, student = None, None
        try:
            located = self._located = teachers.locate(self.source)
            found += [problem] if (problem := located.problem()) else []
        except TinymimError as error:
            found.append(str(error))
        try:
            student = skeleton(self.architecture)
            if student.image_size != (image_size, image_size):
                own = student.image_size[0]
                found.append(f"student.options.img_size: {own}, but data.image_size is {image_size}; make them equal")
        except TinymimError as error:
            found.append(f"student: {error}")
        if not self.targets:
            found.append("targets: the list is empty; name at least one, such as tinymim.targets.Relation")
        if located and student:
            found += self._bind(located, student)
        return found

    def _bind(self, located: teachers.Teacher, student: Backbone) -> list[str]:
        found = []
        block = located.target_block or target_block(located.skeleton, student)
        if located.skeleton.image_size != student.image_size:
            own, its = student.image_size[0], located.skeleton.image_size[0]
            found.append(f"student.options.img_size: {own}, but the teacher takes {its} px; make them equal")
        for target in self._targets:
            try:
                target.bind(located.skeleton, student, block)
                if self.head_layout == "published":
                    heads = located.skeleton.heads[target.blocks[0] - 1]
                    check_divides(heads, student.width, f"the student, {student.architecture.arch}")
            except TinymimError as error:
                found.append(str(error))
        return found

    @property
    def _targets(self) -> list[Target]:
        return list(self.targets)  # type: ignore[arg-type]

    def configure_model(self) -> None:
        """Load the teacher, build the student, freeze what no target reaches."""
        if self.student is not None:
            return
        if found := self.problems(self._image_size()):
            raise several("this recipe cannot run", found)
        assert self._located
        teacher, self.provenance = self._located.load(
            classifier=any(tap.name == "logits" for tap in self._teacher_taps())
        )
        teacher.vit.blocks = teacher.vit.blocks[: max(tap.block for tap in self._teacher_taps())]
        self._teacher = [teacher]
        student = Backbone(self.architecture)
        set_drop_path(student.vit, self.drop_path, self.drop_path_ramp)
        if self.head_layout == "published":
            for target in self._targets:
                teacher_block, student_block = target.blocks
                set_heads(student.vit, student_block, self._located.skeleton.heads[teacher_block - 1])
        student.output_block = max(student.last_trained_block(self._student_taps()), 1)
        reached = student.reached(self._student_taps())
        for name, parameter in student.named_parameters():
            if name not in reached:
                parameter.requires_grad_(False)
        self.unreachable = sum(p.numel() for n, p in student.named_parameters() if n not in reached)
        self.student = student

    def _image_size(self) -> int:
        datamodule = getattr(self.trainer, "datamodule", None)
        return getattr(datamodule, "image_size", skeleton(self.architecture).image_size[0])

    def _teacher_taps(self) -> list[Tap]:
        return [tap for target in self._targets for tap in target.teacher_taps()]

    def _student_taps(self) -> list[Tap]:
        return [tap for target in self._targets for tap in target.student_taps()]

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Each target's losses, and their weighted sum as ``loss``. Scalars."""
        images = batch["image"]
        with torch.inference_mode():
            readings = self.teacher.to(images.device).read(images, self._teacher_taps())
        given = {tap: tokens.clone() for tap, tokens in readings.items()}  # inference tensors cannot enter autograd
        taken = self.backbone.read(batch.get("jittered", images), self._student_taps())
        losses: dict[str, Tensor] = {}
        total: Tensor | float = 0.0
        for number, target in enumerate(self._targets, start=1):
            parts = target(given, taken)
            for part, value in parts.items():
                name = "_".join(filter(None, ("loss", target.name, part)))
                losses[name if name not in losses else f"{name}_{number}"] = value
            total = total + target.weight * sum(parts.values())
        return {"loss": torch.as_tensor(total), **losses}

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
        """AdamW over the student and the targets' projections."""
        return configure(self, self.optim, self.trainer)

    def origin(self) -> dict[str, Any]:
        """The teacher and its licence, which passes on to the student."""
        assert self.provenance
        teacher = {"name": self.provenance.name, "sha256": self.provenance.sha256}
        return {"teacher": teacher, "licence": self.provenance.licence}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network or another teacher."""
        super().on_load_checkpoint(checkpoint)
        stored, ours = checkpoint[RECORD]["teacher"], self.origin()["teacher"]
        if stored["sha256"] != ours["sha256"]:
            raise TinymimError(
                f"this checkpoint was distilled from teacher {stored['name']} (sha256 {stored['sha256']}), "
                f"and the recipe names {ours['name']} (sha256 {ours['sha256']}); resume with the same teacher"
            )

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
        output = f"block {student.output_block} of {depth}"
        if student.output_block < depth:
            output += (
                f": the loss does not train all of block {student.output_block + 1}, so kNN and probes read before it"
            )
        return [*lines, ("output block", output)]
