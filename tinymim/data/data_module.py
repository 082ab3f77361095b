"""Base of the data modules: loaders with a fixed order, a held-out set, and a bank for nearest neighbours."""

from __future__ import annotations

import signal
from abc import abstractmethod
from collections.abc import Callable, Sized
from typing import Any, Literal, cast

import lightning.pytorch as pl
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch.utils.data import DataLoader, Dataset, Sampler
from typing_extensions import override

from tinymim.data import images_of_run
from tinymim.data.device_augment import finished
from tinymim.data.repeated import Repeats
from tinymim.data.sampler import EpochSampler, InTurn, Order
from tinymim.data.transforms import wrong_values
from tinymim.errors import TinymimError, first_few, plural
from tinymim.log import say
from tinymim.system import PER_CORE, SIGNALS, cores

MOST_WORKERS = 8  # that are chosen where the recipe says auto

PARTS = {
    "train": ("image to train on", "images to train on"),
    "held_out": ("held-out image (see data.held_out)", "held-out images (see data.held_out)"),
    "bank": (
        "image in the bank of neighbours (see data.bank_size)",
        "images in the bank of neighbours (see data.bank_size)",
    ),
}

Workers = int | Literal["auto"]

Sample = dict[str, Any]
"""``image`` (3, H, W), uint8 or in [0, 1]; ``index``; ``label`` where there is one; ``jittered`` where the student sees
other colours; ``mask`` (H, W) where each pixel has a class (see ``segmentation_views.py``); ``depth`` (H, W) and
``targets`` where it is known what is where (see ``tinymim/data/shapes.py``): of boxes the classes, ``kind`` (K,) with
-1 in rows without one, and ``box`` (K, 4), left, top, right and bottom in pixels; ``draws`` where the device has
something left to do; ``view`` (3,) where views come again (see ``tinymim/data/repeated.py``).
:meth:`ImageData.on_after_batch_transfer` makes floats in [0, 1] of a batch of them."""


class ImageData(pl.LightningDataModule):
    """Base of the data modules: subclasses fill :attr:`train`, :attr:`held_out` and :attr:`bank` in :meth:`prepare`.

    The samplers share images among processes by themselves; a Trainer built by hand needs
    ``use_distributed_sampler=False``.

    Args:
        image_size: side of the square images, in pixels.
        batch_size: of one process; the total batch is this times processes times accumulated batches.
        num_workers: loading processes; 0 loads in the training process. ``auto`` takes one for each core that this
            process has, at most 8, and 0 where images lie in memory; for held-out images half of them.
        seed: of the order and the augmentation, which depend on (seed, epoch, index) alone.
        view_seed: of the views where they come again (``model.teacher_cache``).
    """

    train: Dataset[Sample]
    held_out: Dataset[Sample] | None
    bank: Dataset[Sample] | None
    num_classes: int | None
    unlabelled: str | None = None
    """Where the options tell before anything is read that its images have no labels: that, with a remedy."""
    mask_classes: int | None = None
    """Classes of pixels, where images have masks."""
    first_class = 0
    """Number of the first class in files of masks."""
    box_classes: int | None = None
    """Classes of boxes, where images have them in ``targets``."""
    order: Order | None = None
    """Order of the training images in an epoch, where some orders are read faster than others."""
    shown: Callable[[str], str] = str
    """What of its :meth:`source` may be written down: a fit puts references to the environment in place of values."""
    taken: int | None = None
    """Images that are taken of each batch, ``None`` for all: a check on a CPU begins with few."""
    needs_workers = True
    """Whether loading its images is work; where they lie in memory, or are tiny, loading processes only cost."""
    repeatable = False
    """Whether its data sets have ``repeats``, and an ``identity`` that says all that determines their views."""

    def __init__(
        self,
        image_size: int = 32,
        batch_size: int = 128,
        num_workers: Workers = "auto",
        seed: int = 0,
        view_seed: int = 0,
    ):
        super().__init__()
        self.image_size, self.batch_size, self.num_workers, self.seed = image_size, batch_size, num_workers, seed
        self.view_seed = view_seed
        self.notes: list[str] = []
        """What is there and is not used, for people."""
        self.description = ""
        """Where its images are from, how many, and which are held out, once they are known."""
        self.same_images = False
        """Whether a run may go on with none but the images that it began with."""
        self._noted: dict[str, Any] | None = None
        self._prepared = False
        self._begun = (0, 0)

    def problems(self) -> list[str]:
        """Reasons why this data cannot be used, each with its remedy. Cheap: called before anything is loaded."""
        least = {"batch_size": 1, "seed": 0, "view_seed": 0}
        values = {name: getattr(self, name) for name in least}
        workers, most = self.num_workers, PER_CORE * cores()
        return wrong_values(
            **{name: (values[name] >= low, values[name], f"{low} or more") for name, low in least.items()},
            num_workers=(
                workers == "auto" or 0 <= workers <= most,
                workers,
                f"0 or more, up to {most} ({PER_CORE} for each core here), or auto",
            ),
        )

    @abstractmethod
    def prepare(self) -> None:
        """Fill the datasets: ``train`` augmented; ``held_out`` plain; ``bank``, plain training images with labels, or
        ``None``."""

    def source(self) -> str:
        """The place of its images, for people; empty where it makes them, or their address may hold a password."""
        return ""

    @override
    def setup(self, stage: str) -> None:
        if not self._prepared:
            self.prepare()
            self._check_shares(stage)
            self._prepared = True

    def _check_shares(self, stage: str) -> None:
        """Raise where a process would have no image of a part, and the others would wait for it."""
        _, processes = self._place()
        needed = {"train": stage == "fit", "held_out": True, "bank": True}
        for part, dataset in self.parts().items():
            if needed[part] and dataset is not None and len(dataset) < processes:
                what = plural(len(dataset), *PARTS[part])
                raise TinymimError(
                    f"data: {len(dataset)} {what} for {processes} processes, and each needs one: take more "
                    "images, or fewer processes"
                )

    def workers(self) -> int:
        """Loading processes of this process's training loader."""
        if self.num_workers != "auto":
            return self.num_workers
        if not self.needs_workers:
            return 0
        return max(min(cores() // (self.trainer.num_devices if self.trainer else 1), MOST_WORKERS), 1)

    @override
    def state_dict(self) -> dict[str, Any]:
        # Lightning keeps it in checkpoints, and hands it to load_state_dict once the data is set up.
        if self._noted is None:
            self._noted = images_of_run.notes(self.parts())
        return {**self._noted, "classes": list(getattr(self, "classes", None) or [])}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Other images are said; other classes, whose labels would mean something else, are an error.
        if not self.trainer or self.trainer.state.fn != "fit":
            return
        now = self.state_dict()
        if not isinstance(state_dict, dict) or not isinstance(before := state_dict.get("classes") or [], list):
            raise TinymimError("ckpt_path: what it notes of the data is of another type: it is damaged; name another")
        before, classes = list(map(str, before)), now["classes"]
        if before != classes:
            strange = sorted(set(before) ^ set(classes), key=str) or classes
            raise TinymimError(
                f"data: the run has {len(before)} classes, and the data now {len(classes)}; they differ in "
                f"{first_few(list(map(str, strange)))}: give the run its own images, or begin another with its weights"
            )
        for change in images_of_run.changes(self.parts(), state_dict, now):
            if self.same_images and change.certain:
                raise TinymimError(
                    f"data: {change.line}; give the run its own images, or begin another: --run_dir ANOTHER_FOLDER"
                )
            say(f"data: {change.line}")

    def parts(self) -> dict[str, Any]:
        """The datasets by name, ``None`` where one is missing; their places here are what samples call their part."""
        return {"train": self.train, "held_out": self.held_out, "bank": self.bank}

    def repeat(self, views: int) -> None:
        """Show ``views`` views of each training image in turn, the same for all seeds, and tag all samples with their
        view; 0 makes views new in every epoch. Needs :meth:`setup`, and comes before loaders are made."""
        for part, dataset in enumerate(self.parts().values()):
            if dataset is not None:
                dataset.repeats = Repeats(part, views, self.view_seed) if views else None

    def train_dataloader(self) -> DataLoader[Sample]:
        """Augmented training images, in a new order each epoch; those that fill no whole step are dropped."""
        accumulated = self.trainer.accumulate_grad_batches if self.trainer else 1
        length = len(cast(Sized, self.train))
        fixed = bool(getattr(self.trainer, "overfit_batches", 0))
        sampler = EpochSampler(length, self.seed, *self._place(), self.batch_size, accumulated, self.order, fixed)
        sampler.begin(*self._begun)
        return self._loader(self.train, sampler)

    def begin(self, epoch: int, batches: int) -> None:
        """Let the next training loader go on in ``epoch`` after ``batches`` of this process's batches."""
        self._begun = (epoch, batches)

    def val_dataloader(self) -> list[DataLoader[Sample]]:
        """The held-out images, then the bank of labelled training images (absent where there are no labels)."""
        return [self._in_turn(dataset) for dataset in (self.held_out, self.bank) if dataset is not None]

    @override
    def test_dataloader(self) -> list[DataLoader[Sample]]:
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Sample]:
        """The held-out images in their own order, or the training images where none are held out."""
        return self._in_turn(self.held_out or self.bank or self.train)

    def name_of(self, index: int) -> str:
        """A name for what is predicted of a held-out image, which may lie in folders."""
        return f"{index:06d}"

    @override
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        # On the host, where a module's teacher cache lies.
        if self.taken is not None:
            batch = apply_to_collection(batch, torch.Tensor, lambda values: values[: self.taken])
        add = getattr(self.trainer and self.trainer.lightning_module, "add_stored", None)
        return add(batch, dataloader_idx) if add else batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Finish a batch on its device: bytes, which travel in a quarter of the time, become floats. Batches of a
        loader that is read without a Trainer need this too."""
        batch = finished(batch)
        return self.trainer.precision_plugin.convert_input(batch) if self.trainer else batch

    def _in_turn(self, dataset: Dataset[Sample], lasting: bool = True) -> DataLoader[Sample]:
        return self._loader(dataset, InTurn(len(cast(Sized, dataset)), *self._place()), lasting)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(
        self,
        dataset: Dataset[Sample],
        sampler: Sampler[Any],
        lasting: bool = True,
        batch_size: int | None = None,
    ) -> DataLoader[Sample]:
        workers = self.workers()
        if self.num_workers == "auto" and isinstance(sampler, InTurn):
            workers = -(-workers // 2)  # those of training stay beside them
        return DataLoader(
            dataset,
            batch_size=batch_size or self.batch_size,
            sampler=sampler,
            num_workers=workers,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            persistent_workers=lasting and workers > 0,
            generator=torch.Generator().manual_seed(self.seed),  # the loader must not draw from the training's numbers
            worker_init_fn=_ignore_signals,
        )


def _ignore_signals(worker: int) -> None:
    """Leave signals, which reach a whole process group, to the training process: it saves, and ends its workers."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
