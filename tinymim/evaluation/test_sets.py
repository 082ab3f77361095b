"""The test of a classifier on sets with names, and perhaps of a baseline beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from tinymim.data.named_sets import Figures, NamedSet
from tinymim.errors import TinymimError
from tinymim.teachers import locate
from tinymim.vit.backbone import Backbone
from tinymim.vit.blocks import LOGITS, Tap


class Tally(Metric):
    """Counts over all processes.

    Args:
        subsets: for each set the classes that compete, in the order its labels count; ``None`` is all.
    """

    full_state_update = False
    right: Tensor
    among5: Tensor
    images: Tensor
    unreadable: Tensor

    def __init__(self, subsets: list[list[int] | None]):
        super().__init__()
        self.subsets = subsets
        for name in ("right", "among5", "images", "unreadable"):
            self.add_state(name, torch.zeros(len(subsets), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, number: int, logits: Tensor, labels: Tensor) -> None:
        """Count a batch of a set.

        Args:
            number: of the set.
            logits: ``(B, classes)``, of all classes.
            labels: ``(B,)``, within the set's own classes; -1 for an image that could not be read.
        """
        subset = self.subsets[number]
        if subset is not None:
            logits = logits[:, subset]
        known = labels >= 0
        best = logits[known].topk(min(5, logits.shape[1])).indices == labels[known, None]
        self.right[number] += best[:, 0].sum()
        self.among5[number] += best.any(1).sum()
        self.images[number] += known.sum()
        self.unreadable[number] += (~known).sum()

    def compute(self) -> list[tuple[int, int, int, int]]:
        """Of each set: images, unreadable ones, right answers, right among the best five."""
        return list(zip(*(x.tolist() for x in (self.images, self.unreadable, self.right, self.among5)), strict=True))


class Tested(nn.Module):
    """The test of a classifier on named sets.

    Args:
        sets: in the order of their loaders.
        baseline: a fine-tuned checkpoint that is tested on the same images, or ``None``.
        classes: of the classifier.
        size: height and width of the images it takes.
        device: where it is tested.

    Raises:
        TinymimError: a baseline that is not there, or that has other classes or takes other images.
    """

    def __init__(
        self, sets: list[NamedSet], baseline: str | None, classes: int, size: tuple[int, int], device: torch.device
    ):
        super().__init__()
        self.names = [one.name for one in sets]
        subsets = [one.classes for one in sets]
        self.own = Tally(subsets)
        self.other = Tally(subsets) if baseline else None
        self._baseline = _load(baseline, classes, size).to(device) if baseline else None
        self.to(device)

    def add(self, number: int, classify: Callable[[Tensor], Tensor], batch: dict[str, Any]) -> None:
        """Let both answer a batch of a set."""
        images, labels = batch["image"], batch["label"]
        self.own.update(number, classify(images).float(), labels)
        if self._baseline is not None and self.other is not None:
            tap = Tap(self._baseline.depth, LOGITS)
            self.other.update(number, self._baseline.read(images, [tap])[tap].float(), labels)

    def figures(self) -> tuple[dict[str, Figures], dict[str, Figures] | None]:
        """Of the classifier and of the baseline, by set; all processes must ask. Sets that were not reached are left
        out."""
        return self._figures(self.own), self._figures(self.other) if self.other is not None else None

    def _figures(self, tally: Tally) -> dict[str, Figures]:
        return {
            name: Figures(images, unreadable, right / images, among5 / images)
            for name, (images, unreadable, right, among5) in zip(self.names, tally.compute(), strict=True)
            if images
        }


class OnNamedSets(pl.LightningModule):
    """Part of a classifier: what `tinymim test` does where the data has sets with names."""

    backbone: Any
    num_classes: int | None
    tested: Tested | None
    figures: tuple[dict[str, Figures], dict[str, Figures] | None]
    """What :meth:`Tested.figures` gave."""

    def on_test_start(self) -> None:
        """Get ready."""
        data: Any = getattr(self.trainer, "datamodule", None)
        self.tested = None
        if hasattr(data, "sets"):
            assert self.num_classes, "configure_model comes first"
            self.tested = Tested(data.sets, data.baseline, self.num_classes, self.backbone.image_size, self.device)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Lightning's hook."""
        if self.tested is None:
            super().test_step(batch, batch_idx, dataloader_idx)
        else:
            self.tested.add(dataloader_idx, self, batch)

    def on_test_epoch_end(self) -> None:
        """The figures of each set."""
        super().on_test_epoch_end()
        if self.tested is not None:
            self.figures = self.tested.figures()
            for name, figures in self.figures[0].items():
                self.log(f"test/{name}/top1", figures.top1, rank_zero_only=True)


def _load(checkpoint: str, classes: int, size: tuple[int, int]) -> Backbone:
    located = locate.locate(checkpoint)
    if located.classes != classes:
        raise TinymimError(
            f"corruptions.baseline: {checkpoint} has {located.classes or 'no'} classes, and the classifier {classes}"
        )
    if located.skeleton.image_size != size:
        theirs = located.skeleton.image_size[0]
        raise TinymimError(f"corruptions.baseline: {checkpoint} takes images of {theirs}, and the classifier {size[0]}")
    return located.load(classifier=True)[0]
