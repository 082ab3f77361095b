"""Nearest neighbours on frozen features: how good a backbone is while it is being trained without labels."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from tinymim.methods.continued import check_record
from tinymim.teachers.locate import Teacher
from tinymim.teachers.weights import RECORD
from tinymim.vit import conventions
from tinymim.vit.backbone import Backbone
from tinymim.vit.conventions import Conventions
from tinymim.vit.initialise import Init


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


class Neighbours:
    """Features gathered during an evaluation: loader 0 asks, loader 1 is the bank, and at the end they vote.

    Args:
        k: neighbours.
        temperature: of their weights.
    """

    def __init__(self, k: int = 10, temperature: float = 0.07) -> None:
        self.k, self.temperature = k, temperature
        self._seen: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def add(self, backbone: Backbone, batch: dict[str, Any], loader: int) -> None:
        """Keep the features of a labelled batch; one without labels is passed over."""
        if "label" in batch:
            features = backbone.features(batch["image"]).float()
            self._seen.setdefault(loader, []).append((features.cpu(), batch["label"].cpu()))

    def top1(self) -> float | None:
        """The share of right votes over all processes, or ``None`` without labels or bank. Starts afresh."""
        seen, self._seen = self._seen, {}
        if any(kinds != [0, 1] for kinds in _of_all(sorted(seen))):
            return None
        queries, labels = _joined(seen[0])
        banks = _of_all(_joined(seen[1]))  # the loaders share samples without padding, so each comes once
        own = knn_top1(*_joined(banks), queries, labels, self.k, self.temperature)
        asked = _of_all((own * len(labels), len(labels)))
        return sum(right for right, _ in asked) / sum(count for _, count in asked)


class Evaluated(pl.LightningModule):
    """Base of the modules: what validation and test report, by default the loss and 10-NN of the frozen backbone.

    The features are the mean patch token of the backbone's output block. The first validation loader is held out, the
    second is the bank; without labels only the loss is reported. With :attr:`train_loss` the losses on the bank, images
    of the training set without augmentation, are reported beside those on held-out images, as ``val/train_loss``.
    """

    monitor = ("val/loss", "min")
    train_loss = False
    init: Init = "published"
    """The rule of its first weights, if it has none from somewhere else."""
    conventions = Conventions()
    prefix = ""
    """Where the backbone's weights lie in the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.neighbours = Neighbours()
        self._located: Teacher | None = None

    @property
    def backbone(self) -> Backbone:
        """The network being trained."""
        raise NotImplementedError

    def evaluate(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses on a held-out batch, ``loss`` among them."""
        raise NotImplementedError

    def born(self) -> dict[str, Any]:
        """What the checkpoint's record says of the rule of its first weights, and of what else it was made under."""
        return {"init": self.init, conventions.CONVENTIONS: self.conventions.record()}

    def origin(self) -> dict[str, Any]:
        """What the checkpoint's record says beside the backbone: teacher, licence."""
        return {}

    @property
    def start(self) -> Teacher | None:
        """The weights it starts from, or its teacher, found and not loaded; ``None`` where there are none."""
        return self._located

    def expect(self, start: Teacher) -> None:
        """Take ``start`` for what the recipe's path names: a stage of a chain that has yet to run wrote no file."""
        self._located = start

    def data_problems(self, data: Any) -> list[str]:
        """What this module misses in the data module, as far as its options tell before anything is loaded."""
        return []

    def leaves(self) -> dict[str, Any]:
        """The record of this recipe's checkpoints, but for what only loaded weights tell (a teacher's sha256): from
        sizes alone, once :meth:`problems` has found nothing against them."""
        raise NotImplementedError

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the record: architecture with head layout, output block, origin."""
        record = {"backbone": self.backbone.record(), "prefix": self.prefix}
        checkpoint[RECORD] = {**record, **self.born(), **self.origin()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another kind, size or head layout; follow what it was made under."""
        check_record(checkpoint.get(RECORD), self.backbone, self.prefix)
        self.init = checkpoint[RECORD].get("init", "timm")
        self.conventions = conventions.of(checkpoint[RECORD])
        self.conventions.lay_on(self)

    def evaluation_step(self, stage: str, batch: dict[str, Any], loader: int) -> None:
        """One batch of ``stage``, from the held-out loader (0) or the bank (1)."""
        if loader == 0 or self.train_loss:
            prefix = "train_" * loader
            losses = {f"{prefix}{name}": value for name, value in self.evaluate(batch).items()}
            self.log_means(stage, losses, len(batch["image"]))
        self.neighbours.add(self.backbone, batch, loader)

    def log_means(self, stage: str, losses: dict[str, Tensor], images: int) -> None:
        """Report means over a loader's images of all processes; these are the means of one batch of ``images``."""
        # Lightning averages the processes' numbers of images and cuts the result to an integer: let it be one
        weight = images * self.trainer.world_size
        named = {f"{stage}/{name}": value for name, value in losses.items()}
        self.log_dict(named, add_dataloader_idx=False, batch_size=weight, sync_dist=True)

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Lightning's hook."""
        self.evaluation_step("val", batch, dataloader_idx)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Lightning's hook."""
        self.evaluation_step("test", batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Let the neighbours vote."""
        self._vote("val")

    def on_test_epoch_end(self) -> None:
        """Let the neighbours vote."""
        self._vote("test")

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Features of a batch, with the indices of its images."""
        return {"index": batch["index"], "features": self.backbone.features(batch["image"]).float()}

    def _vote(self, stage: str) -> None:
        if (top1 := self.neighbours.top1()) is not None:
            self.log(f"{stage}/knn_top1", top1, rank_zero_only=True)


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Features and labels as one."""
    features, labels = (torch.cat(list(part)) for part in zip(*parts, strict=True))
    return features, labels


def _of_all(value: Any) -> list[Any]:
    """What each process holds."""
    if not dist.is_initialized():
        return [value]
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, value)
    return everyone
