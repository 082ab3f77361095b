"""What a module does with its teacher during a run: fetch what is stored of it, share it, let it go."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tinymim.errors import TinymimError
from tinymim.methods.base import Evaluated
from tinymim.methods.cached_teacher import CachedTeacher, cache_problems
from tinymim.methods.frozen_teacher import FrozenTeacher
from tinymim.teachers.weights import Provenance
from tinymim.vit.backbone import Backbone


class Taught(Evaluated):
    """Base of the modules with a teacher that may be cached: Lightning's hooks around it."""

    teacher_cache: int = 0
    """Views of an image that its teacher is run for; 0 runs it in every step."""
    provenance: Provenance | None = None
    _frozen: FrozenTeacher | CachedTeacher | None = None

    @property
    def frozen(self) -> FrozenTeacher | CachedTeacher:
        """The teacher at work."""
        assert self._frozen is not None, "configure_model comes first"
        return self._frozen

    @property
    def teacher(self) -> Backbone:
        """The frozen teacher, up to the deepest block read; its sizes alone where all that it gives is stored."""
        return self.frozen.backbone

    def data_problems(self, data: Any) -> list[str]:
        """Views that cannot come again."""
        return cache_problems(data) if self.teacher_cache else []

    def setup(self, stage: str) -> None:
        """Lightning's hook: another data module than before may have come."""
        self._open_cache()

    def _open_cache(self) -> None:
        """Have the data's views come again, and what is stored of them at hand.

        Raises:
            TinymimError: data whose views cannot come again; or see :class:`tinymim.teacher_cache.cache.Cache`.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        if not isinstance(self._frozen, CachedTeacher) or isinstance(data, SimpleNamespace):  # a replay's
            return
        if found := cache_problems(data):
            raise TinymimError(found[0])
        assert self.provenance
        self._frozen.open(data, self.provenance.name, self.provenance.sha256)

    def teardown(self, stage: str) -> None:
        """Lightning's hook: whoever has the data next sees new views in every epoch."""
        if isinstance(self._frozen, CachedTeacher) and hasattr(data := self.trainer.datamodule, "repeat"):  # type: ignore[attr-defined]
            data.repeat(0)

    def add_stored(self, batch: Any, dataloader_idx: int) -> Any:
        """A batch, on the host, with what is stored for it in place of its tags; the data module's hook asks."""
        if not isinstance(batch, dict) or "view" not in batch:
            return batch
        view, batch = batch["view"], {name: value for name, value in batch.items() if name != "view"}
        needed = (
            self.trainer.training or self.trainer.sanity_checking or self.trainer.validating or self.trainer.testing
        )
        if needed and isinstance(self._frozen, CachedTeacher) and (dataloader_idx == 0 or self.train_loss):
            batch["stored"] = self._frozen.fetch(view, self.device)
        return batch

    def on_train_epoch_end(self) -> None:
        """Lightning's hook."""
        if isinstance(self._frozen, CachedTeacher):
            self._frozen.rest(self.current_epoch)

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Lightning's hook."""
        trainer = self.trainer
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._finish(batches, batch_idx, dataloader_idx)

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Lightning's hook."""
        self._finish(self.trainer.num_test_batches, batch_idx, dataloader_idx)

    def _finish(self, batches: list[int | float], batch: int, loader: int) -> None:
        """After a loader's last batch, help those who share the teacher and have more, before losses are reduced."""
        if (loader == 0 or self.train_loss) and batch + 1 == batches[loader]:
            self.frozen.finish()
