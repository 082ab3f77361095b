"""Base of methods with a frozen teacher: its options, how it is found and run, and Lightning's hooks around it."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from typing_extensions import override

from tinymim.argument_types import check_types
from tinymim.errors import TinymimError
from tinymim.methods.base import Errors, Method, find
from tinymim.methods.cached_teacher import CachedTeacher, cache_errors, clashes, precision_name
from tinymim.methods.frozen_teacher import FrozenTeacher, Precision, View, teacher_dtype
from tinymim.targets.base import Target, first_only_taps
from tinymim.teacher_cache import cache
from tinymim.teachers.locate import Teacher
from tinymim.teachers.weights import RECORD
from tinymim.vit.backbone import Backbone
from tinymim.vit.initialise import Init
from tinymim.vit.taps import LOGITS, Tap


class TeacherStudentMethod(Method):
    """Base of the methods that train a student beside a frozen teacher.

    The teacher is in eval mode and under inference mode; it is no submodule, so DDP does not see it and checkpoints
    do not carry it.

    Args:
        teacher: a card's name (``tinymim teachers``) or path, ``timm:NAME``, or the path of a checkpoint.
        drop_path_ramp: see :func:`tinymim.vit.architecture.set_drop_path`; for both networks.
        teacher_drop_path: stochastic depth of the teacher; the paper's best is none (Table 13).
        teacher_view: what the teacher sees of a masked image: the ``visible`` patches, or the ``whole`` image.
        compile: run the blocks of both networks through ``torch.compile``.
        teacher_precision: what the teacher computes in: ``auto``, as the student does; or always ``float32`` or
            ``bfloat16``, under autocast and with the weights of matrix products held in it.
        teacher_sharding: share the weights of the teacher's blocks among all processes (FSDP2), for a teacher that does
            not fit on one device: the same readings, and each block is gathered when it is run. The target blocks and
            the patch embedding stay whole. In one process it does nothing.
        train_loss: evaluate training images too, see :class:`tinymim.methods.base.Method`.
        init: first weights of the student and of a reconstruction's decoder: TinyMIM's ``published`` ones or
            ``timm``'s, see ``tinymim/vit/initialise.py``. Projections of targets keep PyTorch's: no published code has
            any.
        teacher_cache: ``null`` or 0 runs the teacher in every step. A number of views V runs it once for each of V
            views of an image, and stores what it gives: epoch e shows view e mod V, whose crop is the same for all
            seeds of the run, in colours, masks and drop path of its own.
        teacher_cache_dir: where, for all runs; ``$TINYMIM_TEACHER_CACHE`` by default, else ``runs/teacher_cache``.
    """

    def __init__(
        self,
        teacher: str,
        drop_path_ramp: Literal["linear", "constant"] = "constant",
        teacher_drop_path: float = 0.0,
        teacher_view: View = "visible",
        compile: bool = False,
        teacher_precision: Precision = "auto",
        teacher_sharding: bool = False,
        train_loss: bool = False,
        init: Init = "published",
        teacher_cache: int | None = None,
        teacher_cache_dir: str | None = None,
    ):
        check_types(TeacherStudentMethod, locals())
        super().__init__()
        self.source, self.train_loss, self.init = teacher, train_loss, init
        self.drop_path_ramp, self.teacher_drop_path, self.teacher_view = drop_path_ramp, teacher_drop_path, teacher_view
        self.compiled, self.teacher_precision, self.teacher_sharding = compile, teacher_precision, teacher_sharding
        self.teacher_cache = 0 if teacher_cache is None else teacher_cache
        self.teacher_cache_dir, self.trial = teacher_cache_dir, False
        self._frozen: FrozenTeacher | CachedTeacher | None = None
        self._teacher_dtype: torch.dtype | None = None

    @property
    def frozen(self) -> FrozenTeacher | CachedTeacher:
        """The teacher as it runs."""
        assert self._frozen is not None, "configure_model comes first"
        return self._frozen

    @property
    def teacher(self) -> Backbone:
        """The frozen teacher, up to the deepest block read; its sizes alone where all that it gives is stored."""
        return self.frozen.backbone

    def check_teacher_options(self, masked: bool, errors: Errors) -> None:
        """Options of the teacher that are out of range or do not go together; ``masked``: the student sees a part."""
        errors.unless(0 <= self.teacher_drop_path < 1, f"teacher_drop_path: {self.teacher_drop_path} is not in [0, 1)")
        if self.teacher_sharding and self.compiled:
            errors.append("teacher_sharding: FSDP2's hooks cannot be compiled; set compile: false, or do not shard")
        view = self.teacher_view if masked else None
        errors += clashes(self.teacher_cache, self.teacher_drop_path, view, self.teacher_sharding)

    def find_teacher(self, errors: Errors) -> Teacher | None:
        """The teacher with its sizes; its weights are not read."""
        with errors.of():
            self.located = self.located or find(self.source)
            errors += [problem] if (problem := self.located.problem()) else []
        return self.located

    def frozen_teacher(self, targets: Iterable[Target]) -> FrozenTeacher:
        """The teacher, loaded and frozen, to be run in every step."""
        return self._load(self._choose_precision(targets))

    def cached_teacher(self, targets: Iterable[Target]) -> CachedTeacher:
        """The teacher, to be run once for each view of an image, and read from the cache from then on."""
        assert self.located
        taps = self._choose_precision(targets)
        precision = precision_name(self._teacher_dtype, str(self.trainer.precision))
        stored = (cache.place(self.teacher_cache_dir), self.teacher_cache, self.train_loss, self.trial)
        first_only, skeleton = first_only_taps(targets), self.located.skeleton
        return CachedTeacher(self._load, taps, first_only, self._teacher_dtype, precision, skeleton, *stored)

    def _load(self, taps: list[Tap]) -> FrozenTeacher:
        assert self.located
        backbone, provenance = self.located.load(classifier=any(tap.name == LOGITS for tap in taps))
        if self.provenance:  # a cached teacher, again
            provenance.check_same(self.provenance.identity(), "this run began with teacher")
        self.provenance = provenance
        shared_on = self.trainer.strategy.root_device if self.teacher_sharding else None
        drop_path = (self.teacher_drop_path, self.drop_path_ramp)
        return FrozenTeacher(
            backbone, taps, *drop_path, self._teacher_dtype, self.teacher_view, self.compiled, shared_on
        )

    def _choose_precision(self, targets: Iterable[Target]) -> list[Tap]:
        """Choose what the teacher computes in; the taps that the targets read of it."""
        self._teacher_dtype = teacher_dtype(self.teacher_precision, str(self.trainer.precision), "teacher_precision")
        return [tap for target in targets for tap in target.teacher_taps()]

    def provenance_record(self) -> dict[str, Any]:
        """The teacher and its licence, which passes on to the student."""
        assert self.located
        if not self.provenance:
            return {"licence": self.located.licence}
        return {"teacher": self.provenance.identity(), "licence": self.provenance.licence}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network or another teacher."""
        super().on_load_checkpoint(checkpoint)
        assert self.provenance
        self.provenance.check_same(checkpoint[RECORD]["teacher"], "this checkpoint was distilled from teacher")

    def summary(self) -> list[tuple[str, str]]:
        """The teacher, for people."""
        assert self.located
        lines = [("teacher", self.located.skeleton.describe()), ("", str(self.provenance))]
        return [*lines, ("", how)] if (how := self.frozen.describe()) else lines

    @override
    def networks(self) -> dict[str, Backbone]:
        return {"student": self.backbone, "teacher": self.teacher}

    @property
    @override
    def from_scratch(self) -> bool:
        return True  # its provenance is the teacher's

    @override
    def remarks(self) -> list[str]:
        assert self.located
        seen = self.located.card and self.located.card.labels_seen
        labels = [f"labels: {self.located.card.name} has seen labels, and so has its student"] if seen else []  # type: ignore[union-attr]
        teachers, students = ("{}x{}".format(*network.image_size) for network in (self.located.skeleton, self.backbone))
        sizes = f"images: the teacher takes {teachers} px and the student {students}, so one of them has them resized"
        return [*super().remarks(), *labels, *([sizes] if teachers != students else [])]

    # The cache of the teacher's readings follows the data, and a shared teacher the other processes

    def data_errors(self, data: pl.LightningDataModule) -> list[str]:
        """Data whose views cannot come again, where a teacher cache needs them to."""
        return cache_errors(data) if self.teacher_cache else []

    def setup(self, stage: str) -> None:
        """Open the cache for another data module than before."""
        self.open_cache()

    def open_cache(self) -> None:
        """Make the views of the data come again, and open what is stored of them.

        Raises:
            TinymimError: data whose views cannot come again; or see :class:`tinymim.teacher_cache.cache.Cache`.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        if not isinstance(self._frozen, CachedTeacher) or isinstance(data, SimpleNamespace):  # a replay's
            return
        if errors := cache_errors(data):
            raise TinymimError(errors[0])
        assert self.provenance
        self._frozen.open(data, self.provenance.title, self.provenance.sha256)

    def teardown(self, stage: str) -> None:
        """Let whoever has the data next see new views in every epoch."""
        if isinstance(self._frozen, CachedTeacher) and hasattr(data := self.trainer.datamodule, "repeat"):  # type: ignore[attr-defined]
            data.repeat(0)

    def add_stored(self, batch: Any, dataloader_idx: int) -> Any:
        """A batch, on the host, with what is stored for it in place of its tags; the data module's hook asks."""
        if not isinstance(batch, dict) or "view" not in batch:
            return batch
        view, batch = batch["view"], {name: value for name, value in batch.items() if name != "view"}
        trainer = self.trainer
        needed = trainer.training or trainer.sanity_checking or trainer.validating or trainer.testing
        if needed and isinstance(self._frozen, CachedTeacher) and (dataloader_idx == 0 or self.train_loss):
            batch["stored"] = self._frozen.fetch(view, self.device)
        return batch

    def on_train_epoch_end(self) -> None:
        """Let a teacher go whose readings are all stored."""
        if isinstance(self._frozen, CachedTeacher):
            self._frozen.rest(self.current_epoch)

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Lend a hand to ranks that have more batches."""
        trainer = self.trainer
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._finish(batches, batch_idx, dataloader_idx)

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Lend a hand to ranks that have more batches."""
        self._finish(self.trainer.num_test_batches, batch_idx, dataloader_idx)

    def _finish(self, batches: list[int | float], batch: int, loader: int) -> None:
        """After its last batch a rank keeps joining a sharded teacher's all-gathers until every rank is done."""
        if (loader == 0 or self.train_loss) and batch + 1 == batches[loader]:
            self.frozen.finish()
