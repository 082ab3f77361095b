"""Supervised use of a backbone: fine-tuning, or a linear probe of its frozen features."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.data import Mixup
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from tinymim.architecture import Architecture, set_drop_path, set_heads
from tinymim.backbones import Backbone, skeleton
from tinymim.blocks import Tap
from tinymim.errors import TinymimError, several
from tinymim.heads import HeadForm, Pool
from tinymim.modules.deit import Deit, DeitTeacher, deit_loss
from tinymim.modules.network import Network, pool_problems
from tinymim.modules.optim import Optim, configure
from tinymim.modules.start import Started
from tinymim.weights import RECORD


class Classifier(Started):
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
        head_layout: ``kept`` leaves every block the attention heads it was trained with; ``uniform`` regroups all into
            the architecture's own number, as the published code does by building the network anew.
        pool: ``mean`` of the patch tokens, as published; the ``cls`` token; or ``cls_dist``, a classifier on the CLS
            token and one on the distillation token, whose probabilities are averaged. The paper does not state how
            TinyMIM*-T pools; its checkpoint has two classifiers.
        neck: channels of LayerNorm-Linear-GELU on every token after the last block, 1280 in TinyMIM*-T; 0 is none.
        fc_norm: LayerNorm of the pooled token, shared by two classifiers. TinyMIM*-T's checkpoint has one, of a width
            that the source does not state; here it has the neck's.
        deit: DeiT-style distillation from a teacher with a classifier, into the classifier on the distillation token.
            Without it both classifiers learn from the labels alone, half the loss each.
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
        head_layout: Literal["kept", "uniform"] = "kept",
        pool: Pool = "mean",
        neck: int = 0,
        fc_norm: bool = True,
        deit: Deit | None = None,
    ):
        super().__init__(weights, architecture)
        self.blocks, self.linear_probe, self.drop_path = blocks, linear_probe, drop_path
        self.mixing = {"mixup_alpha": mixup, "cutmix_alpha": cutmix, "label_smoothing": label_smoothing}
        self.num_classes = num_classes
        self.head_layout, self.pool, self.neck, self.fc_norm, self.deit = head_layout, pool, neck, fc_norm, deit
        self.optim = optim or Optim(base_lr=5e-4, betas=(0.9, 0.999), warmup_epochs=5, min_lr=1e-6, layer_decay=0.65)
        self._deit: DeitTeacher | None = None
        self.model: Network | None = None

    @property
    def head(self) -> Network:
        """The network."""
        assert self.model is not None, "configure_model comes first"
        return self.model

    @property
    def backbone(self) -> Backbone:
        """The network without its classifier."""
        return self.head.backbone

    @property
    def teacher(self) -> Backbone | None:
        """The teacher of DeiT-style distillation."""
        return self._deit.frozen.backbone if self._deit and self._deit.frozen else None

    def problems(self, image_size: int, classes: int | None = None) -> list[str]:
        """Everything that keeps the recipe from running.

        Args:
            image_size: of the data, in pixels.
            classes: of the data, once they are known.
        """
        found = []
        try:
            network = self._skeleton()
            size = network.image_size
            if size != (image_size, image_size):
                found.append(f"data.image_size: {image_size}, but the backbone takes {size[0]}; make them equal")
            found += pool_problems(network, self.pool, self.deit is not None)
        except TinymimError as error:
            found.append(str(error))
        if self.neck < 0:
            found.append(f"neck: {self.neck} is not a number of channels; 0 is none")
        if self.linear_probe and (self.neck or self.deit or self.pool == "cls_dist"):
            found.append("linear_probe: trains one linear layer; it takes no neck, no deit, and pool mean or cls")
        if self.deit:
            try:
                self._deit = self._deit or DeitTeacher(self.deit)
                found += self._deit.problems(classes)
            except TinymimError as error:
                found.append(str(error))
        return found

    def configure_model(self) -> None:
        """Build or load the backbone, cut it after its output block, freeze what is not trained, add the head."""
        if self.model is not None:
            return
        data = getattr(self.trainer, "datamodule", None)
        size = getattr(data, "image_size", None) or self._skeleton().image_size[0]
        classes = self.num_classes or getattr(data, "num_classes", None)
        if found := self.problems(size, classes):
            raise several("this recipe cannot run", found)
        backbone = self._backbone()
        if not classes:
            raise TinymimError(
                "data: these images have no labels, and a classifier needs them; put each class in a folder of its own"
            )
        self._settle(backbone)
        set_drop_path(backbone.vit, self.drop_path)
        reached = backbone.reached([Tap(backbone.output_block, "ffn_post")])
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name in reached and not self.linear_probe)
        self.model = Network(backbone, self._form(classes))
        if self._deit:
            self._deit.load(str(self.trainer.precision), self.trainer.strategy.root_device)
        self.metrics = nn.ModuleDict(
            {f"top{k}": MulticlassAccuracy(classes, top_k=min(k, classes), average="micro") for k in (1, 5)}
        )
        self.num_classes = classes
        mixes = self.mixing["mixup_alpha"] > 0 or self.mixing["cutmix_alpha"] > 0
        self.mix = Mixup(**self.mixing, num_classes=classes) if mixes else None
        self.train()

    def _settle(self, backbone: Backbone) -> None:
        """Cut ``backbone`` after its output block, and regroup its heads where asked."""
        backbone.output_block = self._output_block(backbone)
        backbone.vit.blocks = backbone.vit.blocks[: backbone.output_block]
        self._lay_out_heads(backbone)

    def _form(self, classes: int) -> HeadForm:
        norm: Literal["layer", "none"] = "layer" if self.fc_norm else "none"
        return HeadForm(classes, self.pool, self.neck, "batch" if self.linear_probe else norm)

    def leaves(self) -> dict[str, Any]:
        """A checkpoint's record. Where the number of classes is the data's and not known yet, it says 1."""
        network = copy.deepcopy(self._skeleton())
        self._settle(network)
        form = asdict(self._form(self.num_classes or 1))
        return {"backbone": network.record(), "prefix": self.prefix, "licence": self.licence, "classifier": form}

    @property
    def licence(self) -> str:
        """Of all it was made from."""
        own = [super().licence] if self._located or not self._deit else []
        return " and ".join(dict.fromkeys([*own, *([self._deit.located.licence] if self._deit else [])]))

    def _lay_out_heads(self, backbone: Backbone) -> None:
        """Regroup where asked, and say so in the summary."""
        self._layout: str = self.head_layout
        if self.head_layout == "uniform":
            own = skeleton(replace(backbone.architecture, heads=None)).heads[0]
            self._layout += f", {own} in every block; the weights come with {', '.join(map(str, backbone.heads))}"
            for block in range(1, backbone.depth + 1):
                set_heads(backbone.vit, block, own)

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

    def train(self, mode: bool = True) -> Classifier:
        """A probed backbone stays in eval mode."""
        super().train(mode)
        if self.linear_probe and self.model is not None:
            self.backbone.eval()
        return self

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Cross-entropy, mixed and smoothed as asked."""
        images, target = batch["image"], batch["label"]
        smoothing = self.mixing["label_smoothing"]
        if self.mix is not None and len(images) % 2 == 0:
            images, target = mixed(self.mix, images, target)
            smoothing = 0.0  # mixed targets are smoothed already
        each = self.head.each(images)
        if self._deit:
            labelled = F.cross_entropy(each[0], target, label_smoothing=smoothing)
            loss = deit_loss(labelled, each[1], self._deit.logits(images), self._deit.options)
        else:
            losses = [F.cross_entropy(logits, target, label_smoothing=smoothing) for logits in each]
            loss = torch.stack(losses).mean()
        self.log("train/loss", loss.detach(), batch_size=len(images))
        return loss

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Class probabilities of a batch, with the indices of its images."""
        return {"index": batch["index"], "probabilities": self(batch["image"]).float().softmax(-1)}

    def evaluation_step(self, stage: str, batch: dict[str, Any], loader: int) -> None:
        """Accuracy on held-out images; a probe reports 10-NN of the frozen mean patch tokens too."""
        if self.linear_probe:
            self.neighbours.add(self.backbone, batch, loader)
        if loader > 0:  # the bank is for nearest neighbours
            return
        logits = self(batch["image"]).float()
        self.log_means(stage, {"loss": F.cross_entropy(logits, batch["label"])}, len(logits))
        for name, metric in self.metrics.items():
            assert isinstance(metric, MulticlassAccuracy)
            metric.update(logits, batch["label"])
            self.log(f"{stage}/{name}", metric, batch_size=len(logits), add_dataloader_idx=False)

    def configure_optimizers(self) -> Any:
        """AdamW with layer-wise decay of the learning rate."""
        return configure(self.head, self.optim, self.trainer)

    def origin(self) -> dict[str, Any]:
        """The classifier, and the licences of what it was made from."""
        record: dict[str, Any] = {"licence": self.licence, "classifier": asdict(self.head.form)}
        return record | ({"deit": self._deit.record()} if self._deit else {})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Follow a checkpoint that kept fewer blocks, as a probe's does, where the recipe names no weights."""
        stored = (checkpoint.get(RECORD) or {}).get("backbone", {}).get("output_block", self.backbone.depth)
        if self.source is None and self.blocks == "auto" and stored < self.backbone.depth:
            self.backbone.vit.blocks = self.backbone.vit.blocks[:stored]
            self.backbone.output_block = stored
        super().on_load_checkpoint(checkpoint)
        record, own = checkpoint[RECORD], asdict(self.head.form)
        if record.get("classifier", own) != own:  # another pooling has weights of the same shapes
            raise TinymimError(f"ckpt_path: its classifier is {record['classifier']}, and the recipe's {own}")
        if self._deit:
            self._deit.check(record.get("deit"))

    def summary(self) -> list[tuple[str, str]]:
        """What is about to be trained, for people."""
        start = str(self.provenance) if self.provenance else "from scratch: random weights"
        kind = "linear probe of frozen features" if self.linear_probe else "fine-tuning"
        reads = f"{kind}, block {self.backbone.output_block}, {self.head.form.describe()}"
        lines = [
            ("backbone", self.backbone.describe()),
            ("", start),
            ("head layout", self._layout),
            ("classifier", reads),
        ]
        return lines + (self._deit.summary() if self._deit else [])


def mixed(mix: Mixup, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """timm's mixup and cutmix of images 1 and 2, 3 and 4, and so on, which stay together however processes share the
    images of a step; timm mixes a batch with its reverse.

    Args:
        mix: changes its batch in place; it gets a copy.
        images: ``(B, 3, H, W)``, B even.
        target: ``(B,)`` classes.

    Returns:
        Images, and soft targets ``(B, classes)``, in the order they came in.
    """
    order = torch.tensor([*range(0, len(images), 2), *range(len(images) - 1, 0, -2)], device=images.device)
    images, target = mix(images[order], target[order])
    back = order.argsort()
    return images[back], target[back]
