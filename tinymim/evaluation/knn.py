"""k-nearest-neighbour accuracy of frozen features: how good a backbone is while it is being trained without labels."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from tinymim.data.named_sets import NamedSets
from tinymim.vit.backbone import Backbone

QUERIES, BANK = 0, 1
"""Places of the loaders."""


def knn_top1(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, labels: Tensor, k: int = 10, temperature: float = 0.07
) -> float:
    """Share of ``queries`` whose k most similar bank entries, by cosine and weighted by exp(similarity / T), vote
    right.

    Args:
        bank: ``(M, D)`` features.
        bank_labels: ``(M,)``.
        queries: ``(Q, D)`` features.
        labels: ``(Q,)``.
        k: neighbours; the whole bank where it is smaller.
        temperature: of the weights (DINO's 0.07).
    """
    bank, queries = F.normalize(bank.float(), dim=-1), F.normalize(queries.float(), dim=-1)
    classes = int(max(bank_labels.max(), labels.max())) + 1
    right = 0
    for part, truth in zip(queries.split(1024), labels.split(1024), strict=True):
        similarity, index = (part @ bank.T).topk(min(k, len(bank)), dim=-1)
        votes = part.new_zeros(len(part), classes)
        votes.scatter_add_(1, bank_labels[index], (similarity / temperature).exp())
        right += int((votes.argmax(-1) == truth).sum())
    return right / len(queries)


class KNNEvaluator(pl.Callback):
    """Log ``val/knn_top1`` and ``test/knn_top1`` of a module's ``backbone``.

    Loader 0 provides queries, loader 1 the labelled feature bank. The features are the mean patch tokens of the output
    block; without labels or bank nothing is logged.

    Args:
        k: neighbours that vote.
        temperature: of their weights, exp(similarity / T).
    """

    def __init__(self, k: int = 10, temperature: float = 0.07) -> None:
        self.k, self.temperature = k, temperature
        self.queries = 0
        """Images that the last figure is of, over all processes."""
        self._features: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def add(self, backbone: Backbone, batch: dict[str, Any], loader: int) -> None:
        """Keep the features of a batch, unless it has no labels."""
        if "label" in batch:
            features = backbone.features(batch["image"]).float()
            self._features.setdefault(loader, []).append((features.cpu(), batch["label"].cpu()))

    def top1(self) -> float | None:
        """Share of queries voted right over all processes, ``None`` without labels or bank; the features are let go."""
        features, self._features = self._features, {}
        if any(loaders != [QUERIES, BANK] for loaders in _of_all_processes(sorted(features))):
            return None
        queries, labels = _joined(features[QUERIES])
        bank = _joined(_of_all_processes(_joined(features[BANK])))  # loaders share samples without padding: each once
        right = knn_top1(*bank, queries, labels, self.k, self.temperature) * len(labels)
        counts = _of_all_processes((right, len(labels)))
        self.queries = sum(count for _, count in counts)
        return sum(right for right, _ in counts) / self.queries

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep a batch's features, computed in the precision of the step."""
        with trainer.precision_plugin.val_step_context():
            self.add(module.backbone, batch, dataloader_idx)

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep a batch's features; the loaders of named test sets are neither queries nor bank."""
        if not isinstance(trainer.datamodule, NamedSets):  # type: ignore[attr-defined]
            with trainer.precision_plugin.test_step_context():
                self.add(module.backbone, batch, dataloader_idx)

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the vote."""
        self._log("val", module)

    def on_test_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the vote."""
        self._log("test", module)

    def _log(self, stage: str, module: pl.LightningModule) -> None:
        if (top1 := self.top1()) is not None:
            module.log(f"{stage}/knn_top1", top1, rank_zero_only=True)


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Features and labels of all parts, one after the other."""
    features, labels = (torch.cat(list(part)) for part in zip(*parts, strict=True))
    return features, labels


def _of_all_processes(value: Any) -> list[Any]:
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
