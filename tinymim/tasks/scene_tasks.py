"""Semantic and geometric tasks on scenes, from a backbone that is frozen or fine-tuned."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchmetrics import MeanMetric, R2Score
from torchmetrics.classification import MulticlassAccuracy

from tinymim.argument_types import check_types
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError
from tinymim.methods.base import Errors
from tinymim.methods.optim import Optim
from tinymim.near_names import near
from tinymim.tasks.base import Blocks, truncate
from tinymim.tasks.dense import DensePredictionTask
from tinymim.tasks.exact_metrics import ExactMetrics
from tinymim.tasks.scene_heads import Readout, SceneForm
from tinymim.tasks.scene_targets import TASKS, TargetStatistics, labels_of, row_errors, target_statistics
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.initialise import Init

SAMPLED = 1024
"""Training images, spread evenly, that a geometric task's targets are averaged over."""


class SceneTasks(DensePredictionTask):
    """Train heads for semantic and geometric tasks on scenes, each a linear layer on the output block's patch tokens.

    ``shape`` and ``color`` of the main shape cost their cross-entropy, in nats. ``position``, ``size``, ``angle`` and
    ``depth`` cost their squared error, divided by what it costs in training images to predict their mean always: 1 is
    what that costs (over :data:`SAMPLED` images as they are augmented in the first epoch; the figure is kept in the
    checkpoint, and held-out losses are divided by the same one). Circles and rings have no angle and cost nothing.
    The losses are added.

    Reported of each task: ``loss_TASK``, and on held-out images ``top1_TASK``; or ``error_TASK``, the mean absolute
    error in shares of the side or degrees, and ``r2_TASK``, the share of the variance that is explained. Where both
    kinds are trained, ``loss_semantic`` and ``loss_geometric`` are their sums.

    Args:
        tasks: any of :data:`tinymim.tasks.scene_targets.TASKS`.
        weights: a checkpoint, export or teacher card's name; ``None`` starts from scratch. Resampled to the images.
        architecture: needed from scratch, and built for ``data.image_size``; with ``weights``, ``heads`` is compared.
        frozen: train the heads alone.
        blocks: how much of the backbone to keep, as a Classifier does; ``auto`` is all, or where it is frozen what
            pre-training trained whole.
        drop_path: stochastic depth, rising linearly with depth.
        optim: the optimiser; the defaults are a Classifier's.
        init: first weights of a backbone from scratch: ``published`` or ``timm``'s. Heads have a Classifier's.
    """

    slot, prefix, part = "readout", "readout.backbone.vit.", "scene_tasks"
    of_another_form = "its heads are for {stored}, and the recipe's for {form}"

    def __init__(
        self,
        tasks: list[str],
        weights: str | None = None,
        architecture: Architecture | None = None,
        frozen: bool = False,
        blocks: Blocks = "auto",
        drop_path: float = 0.0,
        optim: Optim | None = None,
        init: Init = "published",
    ):
        check_types(SceneTasks, locals())
        super().__init__(weights, architecture, init)
        self.tasks, self.blocks, self.drop_path = tasks, blocks, drop_path
        self.frozen = self.batch_norm = frozen
        self.optim = optim or Optim(base_lr=5e-4, betas=(0.9, 0.999), warmup_epochs=5, min_lr=1e-6, layer_decay=0.65)

    def check_options(self, image_size: int | None, errors: Errors) -> None:
        """Note tasks that are not known, and a drop path that is out of range or without effect."""
        names = ", ".join(TASKS)
        errors += [f"tasks: {name!r} is none{near(name, TASKS)}" for name in self.tasks if name not in TASKS]
        twice = sorted({name for name in self.tasks if self.tasks.count(name) > 1})
        errors += [f"tasks: {name} is named twice" for name in twice]
        errors.unless(bool(self.tasks), f"tasks: none is named; take one or more of {names}")
        errors.unless(0 <= self.drop_path < 1, f"drop_path: {self.drop_path} is not in [0, 1)")
        if self.frozen and 0 < self.drop_path < 1:
            errors.append(f"drop_path: {self.drop_path}, but a frozen backbone drops nothing; leave out one of the two")

    def check_backbone(self, backbone: Backbone, errors: Errors) -> None:
        """Note a single patch, where a task compares patches."""
        comparing = [name for name in self.tasks if name in TASKS and TASKS[name].reads != "pooled"]
        if comparing and backbone.grid == (1, 1):
            size = backbone.image_size[0]
            errors.append(f"data.image_size: {size} is one patch, and {', '.join(comparing)} compares patches")

    def data_errors(self, data: pl.LightningDataModule) -> list[str]:
        """Scenes or depths that the data does not hand out."""
        name, errors = type(data).__name__, []
        if not getattr(data, "scene", False):
            errors.append(
                f"data.scene: {name} does not tell what is where in its images; set data.scene: true on ShapesData"
            )
        if "depth" in self.tasks and not getattr(data, "depth", False):
            errors.append(f"data.depth: {name} does not tell how far things are; set data.depth: true on ShapesData")
        return errors

    def count_classes(self, data: Any, errors: Errors) -> int:
        """Nothing to count: each task has classes of its own."""
        return 0

    def decoder_form(self, backbone: Backbone, classes: int) -> SceneForm:
        """Truncate the backbone after the block that is read."""
        truncate(backbone, self.blocks, self.frozen)
        return SceneForm(self.tasks, self.frozen)

    def network_on(self, backbone: Backbone, form: SceneForm, data: Any) -> Readout:
        """The backbone with a head for each task; the targets of the training images are measured for them."""
        self.figures: Any = ExactMetrics({name: nn.ModuleDict(_figures(name)) for name in self.tasks})
        return Readout(backbone, form, self._statistics(data, backbone.grid))

    def _statistics(self, data: Any, grid: tuple[int, int]) -> dict[str, TargetStatistics]:
        """Statistics of the geometric tasks' targets, over a sample of the training images."""
        names = [name for name in self.tasks if TASKS[name].kind == "geometric"]
        if not names:
            return {}
        if data is None:
            raise TinymimError("data: it needs a data module of tinymim.data, and the Trainer was given loaders")
        if isinstance(data, SimpleNamespace):  # a replay's, whose state brings the statistics
            return {name: TargetStatistics(torch.zeros(TASKS[name].outputs), torch.ones(())) for name in names}
        step = max(len(data.train) // SAMPLED, 1)
        drawn = [data.train[Draw(0, index)] for index in range(0, len(data.train), step)[:SAMPLED]]
        batch = default_collate(
            [{key: sample[key] for key in ("targets", "depth") if key in sample} for sample in drawn]
        )
        return {name: target_statistics(name, [batch], grid) for name in names}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Each task's answers on ``(B, 3, H, W)`` images in [0, 1]; see :class:`tinymim.tasks.scene_heads.TaskHead`."""
        return self.net(images)

    def losses(self, answers: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of each task, of both kinds where both are there, and ``loss``, their sum; means over all images, so
        that these weigh the same in whatever batches they come."""
        losses, sums = {}, dict.fromkeys(sorted({TASKS[name].kind for name in self.tasks}), torch.tensor(0.0))
        for name, answer in answers.items():
            loss = self.net.loss(name, answer, labels_of(name, batch, self.backbone.grid))
            losses[f"loss_{name}"] = loss
            sums[TASKS[name].kind] = sums[TASKS[name].kind] + loss
        if len(sums) > 1:
            losses |= {f"loss_{kind}": loss for kind, loss in sums.items()}
        return losses | {"loss": torch.stack(list(sums.values())).sum()}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The sum of the tasks' losses."""
        return self.log_training(self.losses(self(batch["image"]), batch), len(batch["image"]))

    def evaluation_step(self, stage: str, batch: dict[str, Any], loader: int) -> None:
        """Losses and figures of each task on held-out images."""
        if loader > 0:  # the bank is for nearest neighbours
            return
        answers, images = self(batch["image"]), len(batch["image"])
        self.log_means(stage, self.losses(answers, batch), images)
        for name, answer in answers.items():
            labels = labels_of(name, batch, self.backbone.grid)
            for figure, metric in self.figures[name].items():
                if figure == "error":
                    metric.update(row_errors(name, answer, labels))
                else:
                    metric.update(answer[labels.counted], labels.values[labels.counted])
                self.log(f"{stage}/{figure}_{name}", metric, batch_size=images, add_dataloader_idx=False)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Each task's answers, classes as probabilities and of ``depth`` a row of patches, with the indices of the
        images."""
        images = len(batch["image"])
        answers = {
            name: answer.softmax(1) if TASKS[name].kind == "semantic" else answer.view(images, -1)
            for name, answer in self(batch["image"]).items()
        }
        return {"index": batch["index"], **answers}

    def summary(self) -> list[tuple[str, str]]:
        """Lines on what is about to be trained: title and text."""
        *start, (_, form) = super().summary()
        return [*start, ("tasks", f"{form}, block {self.backbone.output_block}")]


class Explained(R2Score):
    """R², variances added over the outputs; not a number of fewer than two rows."""

    def __init__(self) -> None:
        super().__init__(multioutput="variance_weighted")

    def compute(self) -> Tensor:
        """Over all processes."""
        return super().compute() if self.total > 1 else torch.tensor(float("nan"), device=self.device)


def _figures(name: str) -> dict[str, nn.Module]:
    """Metrics of a task."""
    if TASKS[name].kind == "semantic":
        return {"top1": MulticlassAccuracy(TASKS[name].outputs, average="micro")}
    return {"error": MeanMetric(), "r2": Explained()}
