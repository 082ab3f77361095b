"""Distillation: a frozen teacher, a small student, and the targets between them (TinyMIM, arXiv 2301.01296)."""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tinymim.errors import TinymimError, several
from tinymim.methods.cached_teacher import CachedTeacher, option_problems, precision_name
from tinymim.methods.frozen_teacher import FrozenTeacher, Precision, View, teacher_dtype
from tinymim.methods.masking import fixed_keep, random_keep
from tinymim.methods.optim import Optim, configure
from tinymim.methods.pairing import HeadLayout, bind, size_problems
from tinymim.methods.reconstruction import Reconstruction, Reconstructor
from tinymim.methods.taught import Taught
from tinymim.targets.base import Target, first_only_taps, target_block
from tinymim.teacher_cache import cache
from tinymim.teachers import locate
from tinymim.teachers.weights import RECORD
from tinymim.vit.architecture import Architecture, set_drop_path, set_heads
from tinymim.vit.backbone import Backbone, resized, skeleton
from tinymim.vit.blocks import Tap
from tinymim.vit.initialise import Init, initialise


class Distiller(Taught):
    """Train a student so that its targets match a frozen teacher's on the same crops.

    The teacher is in eval mode and under inference mode; it is no submodule, so DDP does not see it and checkpoints
    do not carry it. Student parameters that no loss reaches are frozen, found from the reader's route. Defaults are
    the published code's where it has the choice, else the paper's.

    Args:
        teacher: a card's name (``tinymim teachers``) or path, ``timm:NAME``, or the path of a checkpoint.
        student: the architecture to train, from random weights.
        targets: what to distil; their losses are summed with their weights.
        optim: the optimiser.
        drop_path: stochastic depth of the student.
        drop_path_ramp: see :func:`tinymim.vit.architecture.set_drop_path`; for both networks.
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
        teacher_precision: what the teacher computes in: ``auto``, as the student does; or always ``float32`` or
            ``bfloat16``, under autocast and with the weights of matrix products held in it.
        teacher_sharding: share the weights of the teacher's blocks among all processes (FSDP2), for a teacher that does
            not fit on one device: the same readings, and each block is gathered when it is run. The target blocks and
            the patch embedding stay whole. In one process it does nothing.
        teacher_cache: ``null`` or 0 runs the teacher in every step. A number of views V runs it once for each of V
            views of an image, and stores what it gives: epoch e shows view e mod V, whose crop is the same for all
            seeds of the run, in colours, masks and drop path of its own.
        teacher_cache_dir: where, for all runs; ``$TINYMIM_TEACHER_CACHE`` by default, else ``runs/teacher_cache``.
        train_loss: evaluate training images too, see :class:`Evaluated`.
        init: first weights of the student and of a reconstruction's decoder: TinyMIM's ``published`` ones or
            ``timm``'s, see ``vit/initialise.py``. Projections of targets keep PyTorch's: no published code has any.
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
        head_layout: HeadLayout = "uniform",
        mask_ratio: float = 0.0,
        teacher_view: View = "visible",
        reconstruction: Reconstruction | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        teacher_precision: Precision = "auto",
        teacher_sharding: bool = False,
        train_loss: bool = False,
        init: Init = "published",
        teacher_cache: int | None = None,
        teacher_cache_dir: str | None = None,
    ):
        super().__init__()
        self.train_loss, self.init = train_loss, init
        self.source = teacher
        self.architecture = student
        self.targets = nn.ModuleList(targets)
        self.optim = optim or Optim()
        self.drop_path, self.drop_path_ramp, self.teacher_drop_path = drop_path, drop_path_ramp, teacher_drop_path
        self.head_layout = head_layout
        self.mask_ratio, self.teacher_view = mask_ratio, teacher_view
        self.reconstruction = reconstruction
        self.checkpointing, self.compiled = gradient_checkpointing, compile
        self.teacher_precision, self.teacher_sharding = teacher_precision, teacher_sharding
        self.teacher_cache = teacher_cache or 0
        self.teacher_cache_dir, self.trial = teacher_cache_dir, False
        self.student: Backbone | None = None
        self.reconstructor: Reconstructor | None = None

    @property
    def backbone(self) -> Backbone:
        """The student."""
        assert self.student is not None, "configure_model comes first"
        return self.student

    def problems(self, image_size: int) -> list[str]:
        """Everything that keeps the recipe from running, each with its remedy. Needs sizes only, no weights.

        Args:
            image_size: of the data, in pixels.
        """
        found = self._option_problems()
        located, student = None, None
        try:
            located = self._located = self._located or locate.locate(self.source)
            found += [problem] if (problem := located.problem()) else []
        except TinymimError as error:
            found.append(str(error))
        try:
            student = skeleton(self.architecture)
        except TinymimError as error:
            found.append(f"student: {error}")
        if located and student:
            masked = self.teacher_view if self.mask_ratio else None
            found += size_problems(located.skeleton, student, image_size, masked)
            block = located.target_block or target_block(located.skeleton, student)
            found += bind(self._targets, located.skeleton, student, block, self.head_layout)
            self._heads = student.heads
        return found

    def _option_problems(self) -> list[str]:
        found = []
        if not self.targets:
            found.append("targets: the list is empty; name at least one, such as tinymim.targets.Relation")
        for name in ("drop_path", "teacher_drop_path", "mask_ratio"):
            if not 0 <= getattr(self, name) < 1:
                found.append(f"{name}: {getattr(self, name)} is not in [0, 1)")
        if self.teacher_sharding and self.compiled:
            found.append("teacher_sharding: FSDP2's hooks cannot be compiled; set compile: false, or do not shard")
        masked = self.teacher_view if self.mask_ratio else None
        found += option_problems(self.teacher_cache, self.teacher_drop_path, masked, self.teacher_sharding)
        if self.reconstruction:
            found += [f"reconstruction.{problem}" for problem in self.reconstruction.problems()]
            if not self.mask_ratio:
                found.append("reconstruction: nothing is dropped to restore; set mask_ratio (the paper's is 0.75)")
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
        self._frozen = self._at_work(taps)
        self._open_cache()
        student = initialise(Backbone(self.architecture), self.init)
        set_drop_path(student.vit, self.drop_path, self.drop_path_ramp)
        self._settle(student)
        if self.reconstruction:
            self.reconstructor = initialise(Reconstructor(student, self.reconstruction), self.init)
        reached = student.reached(self._student_taps(student))
        dead = [p for name, p in student.named_parameters() if name not in reached]
        self.unreachable = sum(parameter.requires_grad_(False).numel() for parameter in dead)
        student.checkpointing = self.checkpointing
        if self.compiled:
            student.compile_blocks()
        self.student = student

    def _load_teacher(self, classifier: bool) -> Backbone:
        assert self._located
        teacher, found = self._located.load(classifier)
        if self.provenance:  # a cached one, again
            found.check_same(self.provenance.identity(), "this run began with teacher")
        self.provenance = found
        return teacher

    def _at_work(self, taps: list[Tap]) -> FrozenTeacher | CachedTeacher:
        """The teacher, from a cache where that is asked for."""
        precision = str(self.trainer.precision)
        dtype = teacher_dtype(self.teacher_precision, precision, "teacher_precision")
        shared_on = self.trainer.strategy.root_device if self.teacher_sharding else None

        def work(teacher: Backbone, taps: list[Tap]) -> FrozenTeacher:
            drop = (self.teacher_drop_path, self.drop_path_ramp)
            return FrozenTeacher(teacher, taps, *drop, dtype, self.teacher_view, self.compiled, shared_on)

        load = functools.partial(self._load_teacher, any(tap.name == "logits" for tap in taps))
        if not self.teacher_cache:
            return work(load(), taps)
        assert self._located
        place = cache.place(self.teacher_cache_dir)
        options = (place, self.teacher_cache, self.train_loss, self.trial)
        first_only = first_only_taps(self._targets)
        name = precision_name(dtype, precision)
        return CachedTeacher(load, work, taps, first_only, dtype, name, self._located.skeleton, *options)

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
        record = {"backbone": student.record(), "prefix": self.prefix, "licence": self._located.licence}
        return {**record, **self.born()}

    def _image_size(self) -> int:
        datamodule = getattr(self.trainer, "datamodule", None)
        return getattr(datamodule, "image_size", skeleton(self.architecture).image_size[0])

    def _student_taps(self, student: Backbone) -> list[Tap]:
        taps = [tap for target in self._targets for tap in target.student_taps()]
        return [*taps, Tap(student.depth, "ffn_post")] if self.reconstruction else taps

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Each target's losses, and their weighted sum as ``loss``. Scalars."""
        images, student = batch["image"], self.backbone
        view = batch.get("jittered", images)
        keep = self._keep(images, batch) if self.mask_ratio else None
        given = self.frozen.read(images, keep, self.training, batch.get("stored"))
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
        """Losses on plain images."""
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
            *([("", how)] if (how := self.frozen.describe()) else []),
            ("student", student.describe()),
            ("first weights", self.init),
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
