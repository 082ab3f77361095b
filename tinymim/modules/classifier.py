"""Supervised use of a backbone: fine-tuning, or a linear probe of its frozen features."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from timm.data import Mixup
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from tinymim import teachers
from tinymim.architecture import Architecture, set_drop_path
from tinymim.backbones import Backbone, Tap, skeleton
from tinymim.errors import TinymimError, several
from tinymim.modules.evaluation import Evaluated
from tinymim.modules.optim import Optim, configure
from tinymim.weights import RECORD, Provenance


class Head(nn.Module):
    """A backbone, the mean of its patch tokens, a norm and a linear layer.

    Args:
        backbone: read at its output block.
        num_classes: outputs.
        frozen: for a linear probe: the norm is BatchNorm without affine, as in MAE's probe; else LayerNorm.
    """

    def __init__(self, backbone: Backbone, num_classes: int, frozen: bool):
        super().__init__()
        self.backbone = backbone
        self.norm: nn.Module = nn.BatchNorm1d(backbone.width, affine=False) if frozen else nn.LayerNorm(backbone.width)
        self.head = nn.Linear(backbone.width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=2e-5 if not frozen else 0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of ``(B, 3, H, W)`` images in [0, 1]."""
        return self.head(self.norm(self.backbone.features(images)))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Depth of each parameter, for timm's layer-wise learning-rate decay."""
        return {
            "stem": r"^backbone\.vit\.(?:cls_token|reg_token|pos_embed|patch_embed|norm_pre)",
            "blocks": r"^backbone\.vit\.blocks\.(\d+)",
            "head": r"^(?:norm|head|backbone\.vit\.norm\.)",
        }

    def no_weight_decay(self) -> set[str]:
        """Parameters timm leaves without weight decay."""
        return {f"backbone.vit.{name}" for name in self.backbone.vit.no_weight_decay()}


class Classifier(Evaluated):
    """Fine-tune a backbone on labels, or probe it.

    Args:
        weights: a checkpoint or export of this project, or a teacher card's name; ``None`` starts from scratch.
        architecture: needed from scratch. With ``weights`` their own record is followed, head layout included; of this,
            ``heads`` alone is compared with it, if given.
        blocks: how much of the backbone to keep: ``all``, ``trained`` (up to the last block that pre-training trained
            whole), a number, or ``auto``: all for fine-tuning, trained for a probe.
        linear_probe: train the last linear layer alone, on frozen features.
        drop_path: stochastic depth, rising linearly with depth.
        mixup: alpha of mixup; 0 is none.
        cutmix: alpha of cutmix; 0 is none.
        label_smoothing: share of the target spread over all classes.
        num_classes: ``None`` takes the data's.
        optim: the optimiser; the defaults are the paper's for ViT-B.
    """

    monitor = ("val/top1", "max")
    prefix = "model.backbone.vit."

    def __init__(
        self,
        weights: str | None = None,
        architecture: Architecture | None = None,
        blocks: Literal["auto", "all", "trained"] | int = "auto",
        linear_probe: bool = False,
        drop_path: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        label_smoothing: float = 0.0,
        num_classes: int | None = None,
        optim: Optim | None = None,
    ):
        super().__init__()
        self.source, self.architecture = weights, architecture
        self.blocks, self.linear_probe, self.drop_path = blocks, linear_probe, drop_path
        self.mixing = {"mixup_alpha": mixup, "cutmix_alpha": cutmix, "label_smoothing": label_smoothing}
        self.num_classes = num_classes
        self.optim = optim or Optim(base_lr=5e-4, betas=(0.9, 0.999), warmup_epochs=5, min_lr=1e-6, layer_decay=0.65)
        self.provenance: Provenance | None = None
        self._located: teachers.Teacher | None = None
        self.licence = "unknown"
        self.model: Head | None = None

    @property
    def head(self) -> Head:
        """The network."""
        assert self.model is not None, "configure_model comes first"
        return self.model

    @property
    def backbone(self) -> Backbone:
        """The network without its classifier."""
        return self.head.backbone

    def problems(self, image_size: int) -> list[str]:
        """Everything that keeps the recipe from running."""
        found = []
        try:
            size = self._skeleton().image_size
            if size != (image_size, image_size):
                found.append(f"data.image_size: {image_size}, but the backbone takes {size[0]}; make them equal")
        except TinymimError as error:
            found.append(str(error))
        return found

    def _skeleton(self) -> Backbone:
        if self.source is None:
            if self.architecture is None:
                raise TinymimError("weights: none given, and no architecture to start from scratch; set one of the two")
            return skeleton(self.architecture)
        self._located = self._located or teachers.locate(self.source)
        if problem := self._located.problem():
            raise TinymimError(problem.replace("teacher:", "weights:"))
        return self._located.skeleton

    def configure_model(self) -> None:
        """Build or load the backbone, cut it after its output block, freeze what is not trained, add the head."""
        if self.model is not None:
            return
        data = getattr(self.trainer, "datamodule", None)
        size = getattr(data, "image_size", None) or self._skeleton().image_size[0]
        if found := self.problems(size):
            raise several("this recipe cannot run", found)
        backbone = self._backbone()
        classes = self.num_classes or getattr(data, "num_classes", None)
        if not classes:
            raise TinymimError(
                "data: these images have no labels, and a classifier needs them; put each class in a folder of its own"
            )
        backbone.output_block = self._output_block(backbone)
        backbone.vit.blocks = backbone.vit.blocks[: backbone.output_block]
        backbone.train()
        set_drop_path(backbone.vit, self.drop_path)
        reached = backbone.reached([Tap(backbone.output_block, "ffn_post")])
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name in reached and not self.linear_probe)
        self.model = Head(backbone, classes, self.linear_probe)
        self.metrics = nn.ModuleDict(
            {f"top{k}": MulticlassAccuracy(classes, top_k=min(k, classes), average="micro") for k in (1, 5)}
        )
        self.num_classes = classes
        mixes = self.mixing["mixup_alpha"] > 0 or self.mixing["cutmix_alpha"] > 0
        self.mix = Mixup(**self.mixing, num_classes=classes) if mixes else None

    def _backbone(self) -> Backbone:
        if self._located is None:
            assert self.architecture
            return Backbone(self.architecture)
        backbone, self.provenance = self._located.load()
        self.licence = self.provenance.licence
        if self.architecture and self.architecture.heads and skeleton(self.architecture).heads != backbone.heads:
            raise TinymimError(
                f"head layout: {self.source} was trained with heads {backbone.heads}, and architecture.heads asks for "
                f"{skeleton(self.architecture).heads}; leave it out to follow the weights"
            )
        return backbone

    def _output_block(self, backbone: Backbone) -> int:
        blocks = self.blocks
        if blocks == "auto":
            blocks = "trained" if self.linear_probe else "all"
        number = {"all": backbone.depth, "trained": backbone.output_block}.get(str(blocks), blocks)
        if not isinstance(number, int) or not 1 <= number <= backbone.depth:
            raise TinymimError(f"blocks: {blocks} is outside the backbone, which has blocks 1 to {backbone.depth}")
        return number

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of ``(B, 3, H, W)`` images in [0, 1]."""
        return self.head(images)

    def on_train_epoch_start(self) -> None:
        """A probed backbone stays in eval mode."""
        if self.linear_probe:
            self.backbone.eval()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Cross-entropy, mixed and smoothed as asked."""
        images, target = batch["image"], batch["label"]
        if self.mix is not None and len(images) % 2 == 0:
            images, target = self.mix(images, target)
            loss = F.cross_entropy(self(images), target)
        else:
            loss = F.cross_entropy(self(images), target, label_smoothing=self.mixing["label_smoothing"])
        self.log("train/loss", loss.detach(), batch_size=len(images))
        return loss

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Class probabilities of a batch, with the indices of its images."""
        return {"index": batch["index"], "probabilities": self(batch["image"]).float().softmax(-1)}

    def evaluation_step(self, stage: str, batch: dict[str, Any], loader: int) -> None:
        """Accuracy on held-out images; a probe reports 10-NN of the same frozen features too."""
        if self.linear_probe:
            self.neighbours.add(self.backbone, batch, loader)
        if loader > 0:  # the bank is for nearest neighbours
            return
        logits = self(batch["image"]).float()
        size = len(logits)
        loss = F.cross_entropy(logits, batch["label"])
        self.log(f"{stage}/loss", loss, batch_size=size, add_dataloader_idx=False, sync_dist=True)
        for name, metric in self.metrics.items():
            assert isinstance(metric, MulticlassAccuracy)
            metric.update(logits, batch["label"])
            self.log(f"{stage}/{name}", metric, batch_size=size, add_dataloader_idx=False)

    def configure_optimizers(self) -> Any:
        """AdamW with layer-wise decay of the learning rate."""
        return configure(self.head, self.optim, self.trainer)

    def origin(self) -> dict[str, Any]:
        """The licence of the weights it started from."""
        return {"licence": self.licence}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Follow a checkpoint that kept fewer blocks, as a probe's does, where the recipe names no weights."""
        stored = (checkpoint.get(RECORD) or {}).get("backbone", {}).get("output_block", self.backbone.depth)
        if self.source is None and self.blocks == "auto" and stored < self.backbone.depth:
            self.backbone.vit.blocks = self.backbone.vit.blocks[:stored]
            self.backbone.output_block = stored
        super().on_load_checkpoint(checkpoint)

    def summary(self) -> list[tuple[str, str]]:
        """What is about to be trained, for people."""
        start = str(self.provenance) if self.provenance else "from scratch: random weights"
        kind = "linear probe of frozen features" if self.linear_probe else "fine-tuning"
        reads = f"{kind}, mean patch token of block {self.backbone.output_block}, {self.num_classes} classes"
        return [("backbone", self.backbone.describe()), ("", start), ("classifier", reads)]
