"""Accuracy of a classifier on named test sets, and of a baseline beside it."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics import Metric

from tinymim.data.named_sets import Figures, NamedSets
from tinymim.errors import TinymimError
from tinymim.teachers import locate
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import LOGITS, Tap


class TopKCounts(Metric):
    """Right answers in each test set, counted over all processes.

    Args:
        subsets: for each set the classes that compete, in the order its labels count; ``None`` is all.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, subsets: list[list[int] | None]):
        super().__init__()
        self.subsets = subsets
        self.add_state("counts", torch.zeros(len(subsets), 4, dtype=torch.long), dist_reduce_fx="sum")

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
        readable = labels >= 0
        best = logits[readable].topk(min(5, logits.shape[1])).indices == labels[readable, None]
        self.counts[number] += torch.stack([readable.sum(), (~readable).sum(), best[:, 0].sum(), best.any(1).sum()])

    def compute(self) -> list[list[int]]:
        """Counts of each set: images, unreadable ones, right answers, right among the best five."""
        return self.counts.tolist()


class TestSetEvaluator(pl.Callback):
    """Test a classifier, and a baseline beside it, where the data module has test sets with names.

    Logs ``test/NAME/top1``; all figures are in :attr:`figures` afterwards.
    """

    def __init__(self) -> None:
        self.figures: tuple[dict[str, Figures], dict[str, Figures] | None] = ({}, None)
        """Figures of the classifier and of the baseline, by set; sets that were not reached are left out."""

    @staticmethod
    def active(trainer: pl.Trainer) -> bool:
        """Whether the data has such sets."""
        return isinstance(getattr(trainer, "datamodule", None), NamedSets)

    def on_test_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Count from zero, and load the baseline.

        Raises:
            TinymimError: a baseline that is not there, or that has other classes or takes other images.
        """
        if not self.active(trainer):
            return
        data: NamedSets = trainer.datamodule  # type: ignore[attr-defined]
        subsets = [each.classes for each in data.sets]
        self._names = [each.name for each in data.sets]
        self._counts = TopKCounts(subsets).to(module.device)
        self._baseline, self._baseline_counts = None, None
        if data.baseline:
            baseline = _load(data.baseline, module.num_classes, module.backbone.image_size)
            self._baseline = baseline.to(module.device)
            self._baseline_counts = TopKCounts(subsets).to(module.device)

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Let both classify a batch, in the precision of the step."""
        if not self.active(trainer):
            return
        images, labels = batch["image"], batch["label"]
        with trainer.precision_plugin.test_step_context():
            self._counts.update(dataloader_idx, module(images).float(), labels)
            if self._baseline is not None and self._baseline_counts is not None:
                tap = Tap(self._baseline.depth, LOGITS)
                logits = self._baseline.read(images, [tap])[tap].float()
                self._baseline_counts.update(dataloader_idx, logits, labels)

    def on_test_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log accuracies; all processes count together."""
        if not self.active(trainer):
            return
        baseline = self._figures(self._baseline_counts) if self._baseline_counts is not None else None
        self.figures = self._figures(self._counts), baseline
        for name, figures in self.figures[0].items():
            module.log(f"test/{name}/top1", figures.top1, rank_zero_only=True)

    def _figures(self, counts: TopKCounts) -> dict[str, Figures]:
        return {
            name: Figures(images, unreadable, top1 / images, top5 / images)
            for name, (images, unreadable, top1, top5) in zip(self._names, counts.compute(), strict=True)
            if images
        }


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
