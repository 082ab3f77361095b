"""Semantic and geometric tasks on scenes, from a backbone that is frozen or fine-tuned."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchmetrics import MeanMetric, R2Score
from torchmetrics.classification import MulticlassAccuracy

from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError, several
from tinymim.methods.optim import Optim, configure
from tinymim.tasks.base import Started
from tinymim.tasks.cut import Blocks, cut
from tinymim.tasks.resize import at_size
from tinymim.tasks.scene_heads import Readout
from tinymim.tasks.scene_targets import TASKS, Scale, errors, scale, truth
from tinymim.teachers.weights import RECORD
from tinymim.vit.architecture import Architecture, set_drop_path
from tinymim.vit.backbone import Backbone
from tinymim.vit.blocks import Tap
from tinymim.vit.initialise import Init

SAMPLED = 1024
"""Training images, spread evenly, that a geometric task's targets are averaged over."""


class SceneTasks(Started):
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
        weights: a checkpoint or export of this project, or a teacher card's name; ``None`` starts from scratch. Its
            position embeddings are resampled to ``data.image_size``.
        architecture: needed from scratch, and built for ``data.image_size``. With ``weights`` their own record is
            followed, head layout included; of this, ``heads`` alone is compared with it, if given.
        frozen: train the heads alone.
        blocks: how much of the backbone to keep, as a Classifier does; ``auto`` is all, or where it is frozen what
            pre-training trained whole.
        drop_path: stochastic depth, rising linearly with depth.
        optim: the optimiser; the defaults are a Classifier's.
        init: first weights of a backbone from scratch: the ``published`` ones of TinyMIM and MAE or ``timm``'s, see
            ``tinymim/vit/initialise.py``. Heads have a Classifier's.
    """

    prefix = "readout.backbone.vit."

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
        super().__init__(weights, architecture, init)
        self.tasks, self.frozen, self.blocks, self.drop_path = tasks, frozen, blocks, drop_path
        self.optim = optim or Optim(base_lr=5e-4, betas=(0.9, 0.999), warmup_epochs=5, min_lr=1e-6, layer_decay=0.65)
        self._size: int | None = None
        self.readout: Readout | None = None

    @property
    def net(self) -> Readout:
        """The network."""
        assert self.readout is not None, "configure_model comes first"
        return self.readout

    @property
    def backbone(self) -> Backbone:
        """The network without its heads."""
        return self.net.backbone

    def problems(self, image_size: int) -> list[str]:
        """Everything that keeps the recipe from running."""
        self._size = image_size
        self._build_for(image_size)
        known = ", ".join(TASKS)
        found = [f"tasks: {name!r} is none of {known}" for name in self.tasks if name not in TASKS]
        twice = sorted({name for name in self.tasks if self.tasks.count(name) > 1})
        found += [f"tasks: {name} is named twice" for name in twice]
        if not self.tasks:
            found.append(f"tasks: none is named; take one or more of {known}")
        if not 0 <= self.drop_path < 1:
            found.append(f"drop_path: {self.drop_path} is not in [0, 1)")
        elif self.frozen and self.drop_path:
            found.append(f"drop_path: {self.drop_path}, but a frozen backbone drops nothing; leave out one of the two")
        try:
            grid = self._settled(copy.deepcopy(self._skeleton())).grid
            apart = [name for name in self.tasks if name in TASKS and TASKS[name].reads != "pooled"]
            if apart and grid == (1, 1):
                found.append(f"data.image_size: {image_size} is one patch, and {', '.join(apart)} compares patches")
        except TinymimError as error:
            found.append(str(error))
        return found

    def data_problems(self, data: Any) -> list[str]:
        """Scenes that are not handed out."""
        name, found = type(data).__name__, []
        if not getattr(data, "scene", False):
            found.append(
                f"data.scene: {name} does not tell what is where in its images; set data.scene: true on ShapesData"
            )
        if "depth" in self.tasks and not getattr(data, "depth", False):
            found.append(f"data.depth: {name} does not tell how far things are; set data.depth: true on ShapesData")
        return found

    def _settled(self, backbone: Backbone) -> Backbone:
        """``backbone`` for the data's images, cut after its output block."""
        backbone = at_size(backbone, self._size or backbone.image_size[0])
        cut(backbone, self.blocks, self.frozen)
        return backbone

    def configure_model(self) -> None:
        """Build or load the backbone, resample its positions, cut it after its output block, freeze what is not
        trained, measure the targets, add the heads."""
        if self.readout is not None:
            return
        data = getattr(self.trainer, "datamodule", None)
        size = getattr(data, "image_size", None) or self._skeleton().image_size[0]
        if found := [*self.problems(size), *self.data_problems(data)]:
            raise several("this recipe cannot run", found)
        backbone = self._settled(self._backbone())
        set_drop_path(backbone.vit, self.drop_path)
        reached = backbone.reached([Tap(backbone.output_block, "ffn_post")])
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name in reached and not self.frozen)
        self.readout = Readout(backbone, self.tasks, self.frozen, self._scales(data, backbone.grid))
        self.figures: Any = nn.ModuleDict({name: nn.ModuleDict(_figures(name)) for name in self.tasks})
        self.train()

    def _scales(self, data: Any, grid: tuple[int, int]) -> dict[str, Scale]:
        """Of the geometric tasks."""
        asked = [name for name in self.tasks if TASKS[name].kind == "geometric"]
        if not asked:
            return {}
        step = max(len(data.train) // SAMPLED, 1)
        drawn = [data.train[Draw(0, index)] for index in range(0, len(data.train), step)[:SAMPLED]]
        batch = default_collate(
            [{key: sample[key] for key in ("targets", "depth") if key in sample} for sample in drawn]
        )
        return {name: scale(name, [batch], grid) for name in asked}

    def leaves(self) -> dict[str, Any]:
        """A checkpoint's record."""
        network = self._settled(copy.deepcopy(self._skeleton()))
        return {"backbone": network.record(), "prefix": self.prefix, **self.born(), **self.origin()}

    def origin(self) -> dict[str, Any]:
        """The tasks, and the licence of what it was made from."""
        return {"licence": self.licence, "scene_tasks": {"tasks": self.tasks, "frozen": self.frozen}}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Each task's answers on ``(B, 3, H, W)`` images in [0, 1]; see :class:`tinymim.tasks.scene_heads.Answer`."""
        return self.net(images)

    def train(self, mode: bool = True) -> SceneTasks:
        """A frozen backbone stays in eval mode."""
        super().train(mode)
        if self.frozen and self.readout is not None:
            self.backbone.eval()
        return self

    def losses(self, answers: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Of each task, of both kinds where both are there, and ``loss``, their sum; means over all images, so that
        these weigh the same in whatever batches they come."""
        found, sums = {}, dict.fromkeys(sorted({TASKS[name].kind for name in self.tasks}), torch.tensor(0.0))
        for name, answer in answers.items():
            loss = self.net.loss(name, answer, truth(name, batch, self.backbone.grid))
            found[f"loss_{name}"] = loss
            sums[TASKS[name].kind] = sums[TASKS[name].kind] + loss
        if len(sums) > 1:
            found |= {f"loss_{kind}": loss for kind, loss in sums.items()}
        return found | {"loss": torch.stack(list(sums.values())).sum()}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The sum of the tasks' losses."""
        losses = self.losses(self(batch["image"]), batch)
        self.log_dict({f"train/{name}": loss.detach() for name, loss in losses.items()}, batch_size=len(batch["image"]))
        return losses["loss"]

    def evaluation_step(self, stage: str, batch: dict[str, Any], loader: int) -> None:
        """Losses and figures of each task on held-out images."""
        if loader > 0:  # the bank is for nearest neighbours
            return
        answers, images = self(batch["image"]), len(batch["image"])
        self.log_means(stage, self.losses(answers, batch), images)
        for name, answer in answers.items():
            right = truth(name, batch, self.backbone.grid)
            for figure, metric in self.figures[name].items():
                if figure == "error":
                    metric.update(errors(name, answer, right))
                else:
                    metric.update(answer[right.counted], right.values[right.counted])
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

    def configure_optimizers(self) -> Any:
        """AdamW with layer-wise decay of the learning rate."""
        return configure(self.net, self.optim, self.trainer)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse another backbone, and other tasks."""
        super().on_load_checkpoint(checkpoint)
        stored, own = checkpoint[RECORD].get("scene_tasks"), self.origin()["scene_tasks"]
        if stored != own:
            raise TinymimError(f"ckpt_path: its heads are for {stored}, and the recipe's for {own}")

    def summary(self) -> list[tuple[str, str]]:
        """What is about to be trained, for people."""
        kind = "heads on frozen features" if self.frozen else "fine-tuning"
        return [*self._origins(), ("tasks", f"{', '.join(self.tasks)}; {kind}, block {self.backbone.output_block}")]


class Explained(R2Score):
    """R², variances added over the outputs; not a number of fewer than two rows."""

    def __init__(self) -> None:
        super().__init__(multioutput="variance_weighted")

    def compute(self) -> Tensor:
        """Over all processes."""
        return super().compute() if self.total > 1 else torch.tensor(float("nan"), device=self.device)


def _figures(name: str) -> dict[str, nn.Module]:
    """Of a task."""
    if TASKS[name].kind == "semantic":
        return {"top1": MulticlassAccuracy(TASKS[name].outputs, average="micro")}
    return {"error": MeanMetric(), "r2": Explained()}
