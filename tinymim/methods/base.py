"""Base of all LightningModules: one build for check and run, losses on held-out images, the record of checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tinymim.data.data_module import ImageData
from tinymim.data.own_batches import as_samples, resizing
from tinymim.errors import TinymimError, several
from tinymim.evaluation.knn import KNNEvaluator
from tinymim.log import say
from tinymim.methods.checkpoint_record import check_record
from tinymim.methods.optim import Optim, configure
from tinymim.teachers import card, locate
from tinymim.teachers.locate import Teacher
from tinymim.teachers.weights import RECORD, Provenance
from tinymim.vit import conventions
from tinymim.vit.backbone import Backbone, on_meta
from tinymim.vit.conventions import Conventions
from tinymim.vit.initialise import Init

OBJECTS = {
    "optim": "tinymim.Optim(base_lr=...)",
    "architecture": "tinymim.Architecture(arch, options={...}), a Distiller's student too",
    "reconstruction": "Reconstruction(weight=...)",
}
"""Attributes that are mappings in recipes, and that a script of one's own gives as objects."""

TRANSFER = "transfer_batch_to_device"  # Lightning's hook


class Errors(list[str]):
    """Mistakes of a recipe, each with its remedy, as :meth:`Method.build` meets them."""

    @contextmanager
    def of(self, field: str = "") -> Iterator[None]:
        """Note an error of a block of code after ``field``, and go on behind it; off the meta device it is raised."""
        try:
            yield
        except TinymimError as error:
            if not on_meta():
                raise
            self.append(f"{field}{error}")

    def unless(self, right: bool, message: str) -> None:
        """Note ``message`` where something is not right."""
        if not right:
            self.append(message)


class Method(pl.LightningModule):
    """Base of the modules. A subclass builds its networks in :meth:`build` and gives losses in :meth:`evaluate`.

    A recipe is checked by a build on the meta device, which has sizes and no weights; what was built says in
    :meth:`checkpoint_record` what a checkpoint will be, before there is one.

    The first validation loader is held out, the second is the bank of labelled training images without augmentation.
    With :attr:`train_loss` the losses on the bank are reported beside those on held-out images, as ``val/train_loss``.
    """

    monitor = ("val/loss", "min")
    prefix = ""
    """Prefix of the backbone's weights in the state dict."""
    train_loss = False
    init: Init = "published"
    """Rule of the first weights of what starts from scratch."""
    conventions = Conventions()
    optim: Optim
    takes_test_sets = False
    """Whether it can be tested on named test sets."""
    located: Teacher | None = None
    """The teacher, or the weights it starts from: found, and not loaded. ``None`` where there is none."""
    provenance: Provenance | None = None
    """The same, once loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.knn: KNNEvaluator | None = KNNEvaluator()
        self._built = self._resizes = False
        self.checking = False
        """Whether it is built for a check alone, without what neither its record nor a mistake depends on."""

    @property
    def backbone(self) -> Backbone:
        """The network being trained, which :attr:`prefix` leads to."""
        network: Any = self.get_submodule(self.prefix.removesuffix(".vit."))
        return network

    def networks(self) -> dict[str, Backbone]:
        """Networks that see the images, by their name for people."""
        return {"network": self.backbone}

    def build(self, image_size: int | None, data: Any, errors: Errors) -> None:
        """Build the networks; within ``torch.device("meta")`` their sizes alone, and nothing is loaded.

        Args:
            image_size: of the data, in pixels; ``None`` takes the network's own.
            data: the data module, if there is one; not set up in a check.
            errors: takes the mistakes of the recipe.
        """
        raise NotImplementedError

    def evaluate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses on a held-out batch, ``loss`` among them."""
        raise NotImplementedError

    def summary(self) -> list[tuple[str, str]]:
        """Lines on what is about to be trained: title and text."""
        return []

    @property
    def from_scratch(self) -> bool:
        """Whether what is trained starts from no weights."""
        return self.provenance is None

    def headline(self) -> str:
        """What is trained, with its size, and what it starts from: one line."""
        start = self.provenance.title if self.provenance else "scratch"
        return f"{type(self).__name__} of {size(self.backbone)} parameters, from {start}"

    def remarks(self) -> list[str]:
        """What a user should know of the weights that this begins with, before it takes its time: sentences."""
        if not (weights := self.provenance) or not (restriction := card.restriction(weights.licence)):
            return []
        return [f"licence: {weights.title} is {weights.licence}, {restriction}"]

    def problems(self, image_size: int | None, data: Any = None) -> list[str]:
        """Everything that keeps the recipe from running, each with its remedy: a build on the meta device.

        Args:
            image_size: of the data, in pixels.
            data: the data module, which need not be set up.
        """
        mappings = [name for name in OBJECTS if isinstance(vars(self).get(name), dict)]
        if mappings:
            return [f"{name}: a mapping, as recipes have; in Python it is {OBJECTS[name]}" for name in mappings]
        errors = Errors()
        with torch.device("meta"), torch.random.fork_rng(devices=[]):  # a check draws no number of the run
            self.checking = True
            try:
                self.build(image_size, data, errors)
            finally:
                self.checking = False
        errors += self._common_errors(data)
        if isinstance(data, pl.LightningDataModule):  # a replay's batch brings nothing that could be wrong
            errors += self.data_errors(data)
        return list(dict.fromkeys(errors))

    def _common_errors(self, data: Any) -> list[str]:
        """Mistakes that any module's recipe can have: options out of range, sizes that disagree with the data's."""
        errors = self.optim.errors() if hasattr(self, "optim") else []
        if not 0 <= (drop_path := getattr(self, "drop_path", 0)) < 1:
            errors.append(f"drop_path: {drop_path} is not in [0, 1)")
        classes, known = getattr(self, "num_classes", None), getattr(data, getattr(self, "classes_of", ""), None)
        if classes is not None and classes < 1:
            errors.append(f"num_classes: {classes} is not 1 or more; leave it out to take the data's")
        elif classes and known and classes < known:
            errors.append(f"num_classes: {classes}, and the data has {known} classes; leave it out")
        errors += self._patch_errors()
        images = getattr(data, "train", None)
        batch = getattr(data, "batch_size", None)
        if isinstance(images, Sized) and self._trainer and batch:
            batch = min(batch, len(images) // getattr(self._trainer, "world_size", 1))
        if batch == 1 and any(isinstance(layer, _BatchNorm) for layer in self.modules()):
            errors.append("data.batch_size: a batch of one image, and BatchNorm needs two or more")
        return errors

    def _patch_errors(self) -> list[str]:
        """Pixels of an image that no patch of the backbone would hold; it may not be built, for other mistakes."""
        try:
            network = self.backbone
            sides = [side for side, patch in zip(network.image_size, network.patch, strict=True) if side % patch]
        except (AttributeError, AssertionError):
            return []
        if not sides:
            return []
        rest = "the rest would not be seen"
        return [f"img_size: {sides[0]} px are no multiple of the patches' {network.patch[0]} px: {rest}"]

    def data_errors(self, data: pl.LightningDataModule) -> list[str]:
        """Mistakes in the data module that its options reveal before anything is loaded."""
        return []

    def configure_model(self) -> None:
        """Check the recipe against the trainer's data, then build it."""
        data = getattr(self.trainer, "datamodule", None)
        vars(self).pop(TRANSFER, None)
        if not isinstance(data, ImageData | SimpleNamespace):  # Lightning warns of a hook that the class would have
            setattr(self, TRANSFER, self._transfer_own)
        if self._built:
            return
        size = getattr(data, "image_size", None)
        errors = self.problems(size, data)
        for name, network in list(self.named_children()):
            if any(parameter.is_meta for parameter in network.parameters()):
                setattr(self, name, None)  # a trainer that gives up moves whatever the module holds to the CPU
        if not errors:  # build for good, which may show more
            self.build(size, data, errors := Errors())
        if errors:
            raise several("this recipe cannot run", errors)
        self._built = True

    def _transfer_own(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """A batch of a loader that is not the project's, in its form and on the device."""
        sample = as_samples(batch)
        sizes = {name: network.image_size for name, network in self.networks().items()}
        if not self._resizes and (line := resizing(tuple(sample["image"].shape[-2:]), sizes)):
            self._resizes = True
            say(line)
        return super().transfer_batch_to_device(sample, device, dataloader_idx)

    def use_source(self, located: Teacher) -> None:
        """Use ``located`` in place of the path in the recipe: in a dry run the stage before has not written it yet."""
        self.located = located

    def checkpoint_record(self) -> dict[str, Any]:
        """Record of a checkpoint beside its weights: architecture with head layout, output block, provenance.

        After a check it lacks what only loaded weights tell, such as a teacher's sha256.
        """
        born = {"init": self.init, conventions.CONVENTIONS: self.conventions.record()}
        return {"backbone": self.backbone.record(), "prefix": self.prefix, **born, **self.provenance_record()}

    def provenance_record(self) -> dict[str, Any]:
        """Part of the record on where it comes from: teacher, licence, and what is built on the backbone."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the record."""
        checkpoint[RECORD] = self.checkpoint_record()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another kind, size or head layout; follow what it was made under."""
        check_record(checkpoint.get(RECORD), self.backbone, self.prefix)
        self.init = checkpoint[RECORD].get("init", "timm")
        self.conventions = conventions.of(checkpoint[RECORD])
        self.conventions.lay_on(self)

    def configure_optimizers(self) -> Any:
        """AdamW over all that is trained."""
        return configure(self, self.optim, self.trainer)

    def configure_callbacks(self) -> list[pl.Callback]:
        """Evaluations that run beside the losses."""
        return [self.knn] if self.knn else []

    def evaluation_step(self, stage: str, batch: dict[str, Any], loader: int) -> None:
        """One batch of ``stage``, from the held-out loader (0) or the bank (1)."""
        if loader == 0 or self.train_loss:
            prefix = "train_" if loader else ""
            losses = {f"{prefix}{name}": value for name, value in self.evaluate(batch).items()}
            self.log_means(stage, losses, len(batch["image"]))

    def log_means(self, stage: str, losses: dict[str, Tensor], images: int) -> None:
        """Report means over a loader's images of all processes; these are the means of one batch of ``images``."""
        # Lightning averages the processes' numbers of images and cuts the result to an integer: let it be one
        weight = images * self.trainer.world_size
        named = {f"{stage}/{name}": value for name, value in losses.items()}
        self.log_dict(named, add_dataloader_idx=False, batch_size=weight, sync_dist=True)

    def log_training(self, losses: dict[str, Tensor], images: int) -> Tensor:
        """Report a training step's losses, and return their ``loss``."""
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()}, batch_size=images)
        return losses["loss"]

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Evaluate a batch."""
        self.evaluation_step("val", batch, dataloader_idx)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Evaluate a batch."""
        self.evaluation_step("test", batch, dataloader_idx)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Features of a batch, with the indices of its images."""
        return {"index": batch["index"], "features": self.backbone.features(batch["image"]).float()}


def size(network: nn.Module) -> str:
    """Number of a network's parameters, for people: ``2.7 M``."""
    count = sum(parameter.numel() for parameter in network.parameters())
    return f"{count:,}" if count < 10**4 else f"{count / 1e6:.{0 if count >= 10**7 else 2 if count < 10**6 else 1}f} M"


def find(source: str) -> Teacher:
    """Find weights by name or path without loading them; a file may be read for its sizes, on the CPU even in a check.

    Raises:
        TinymimError: nothing there, or a file that does not say enough of itself.
    """
    with torch.device("cpu"):
        return locate.locate(str(source))  # a path of a Python program's, too
