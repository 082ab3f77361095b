"""Supervised use of a backbone: fine-tuning, or a linear probe of its frozen features."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.data.mixup import mixup_target
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from tinymim.argument_types import check_types
from tinymim.errors import TinymimError
from tinymim.evaluation.knn import KNNEvaluator
from tinymim.evaluation.test_sets import TestSetEvaluator
from tinymim.log import say
from tinymim.methods.base import Errors
from tinymim.methods.optim import Optim
from tinymim.tasks.base import Blocks, HeadLayout, SupervisedTask, regroup_heads, size_errors, truncate
from tinymim.tasks.deit import Deit, DeitTeacher, deit_loss
from tinymim.tasks.ema import adapt_checkpoint, averaged_copy, ema_decay, update
from tinymim.tasks.network import BackboneWithHead, pool_errors
from tinymim.teachers.weights import RECORD
from tinymim.vit.architecture import Architecture, set_drop_path
from tinymim.vit.backbone import Backbone
from tinymim.vit.classifier_head import HeadForm, Pool
from tinymim.vit.initialise import Init
from tinymim.vit.taps import Tap


class Classifier(SupervisedTask):
    """Fine-tune a backbone on labels, or probe it.

    Args:
        weights: a checkpoint, or what else a Distiller takes as its teacher; ``None`` starts from scratch. Positions
            are resampled where the images have another size than pre-training's.
        architecture: as of :class:`SupervisedTask`.
        blocks: how much of the backbone to keep: ``all``, ``trained`` (up to the last block that pre-training trained
            whole), a number, or ``auto``: all for fine-tuning, trained for a probe.
        linear_probe: train the last linear layer alone, on frozen features.
        drop_path: stochastic depth, rising linearly with depth.
        mixup: alpha of mixup; 0 is none.
        cutmix: alpha of cutmix; 0 is none.
        label_smoothing: share of the target spread over all classes.
        num_classes: ``None`` takes the data's.
        optim: the optimiser; the defaults are the paper's for ViT-B.
        head_layout: ``kept`` leaves every block the attention heads it was trained with; ``uniform`` gives all blocks
            the first one's, which undoes an adaptive block and which other libraries can express; ``published``
            regroups all into the architecture's own number, as the published code does by building the network anew.
        pool: ``mean`` of the patch tokens, as published; the ``cls`` token; or ``cls_dist``, a classifier on the CLS
            token and one on the distillation token, whose probabilities are averaged. The paper does not state how
            TinyMIM*-T pools; its checkpoint has two classifiers.
        neck: channels of LayerNorm-Linear-GELU on every token after the last block, 1280 in TinyMIM*-T; 0 is none.
        fc_norm: LayerNorm of the pooled token, shared by two classifiers. TinyMIM*-T's checkpoint has one, of a width
            that the source does not state; here it has the neck's.
        deit: DeiT-style distillation from a teacher with a classifier, into the classifier on the distillation token.
            Without it both classifiers learn from the labels alone, half the loss each.
        ema: decay of an average of the weights (see ``ema.py``), which is then tested, exported and started from.
        init: first weights of a backbone from scratch, ``published`` or ``timm``'s; a classifier's are MAE's, a
            truncated normal of 2e-5 (0.01 in a probe) and no biases.
    """

    monitor = ("val/top1", "max")
    slot, prefix = "model", "model.backbone.vit."
    classes_of = "num_classes"
    lacking = "these images have no labels, and a classifier needs them; put each class in a folder of its own"
    takes_test_sets = True

    def __init__(
        self,
        weights: str | None = None,
        architecture: Architecture | None = None,
        blocks: Blocks = "auto",
        linear_probe: bool = False,
        drop_path: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        label_smoothing: float = 0.0,
        num_classes: int | None = None,
        optim: Optim | None = None,
        head_layout: HeadLayout = "kept",
        pool: Pool = "mean",
        neck: int = 0,
        fc_norm: bool = True,
        deit: Deit | None = None,
        ema: float | None = None,
        init: Init = "published",
    ):
        check_types(Classifier, locals())
        super().__init__(weights, architecture, init)
        self.blocks, self.drop_path, self.num_classes = blocks, drop_path, num_classes
        self.linear_probe = self.frozen = self.batch_norm = linear_probe
        self.knn = KNNEvaluator() if linear_probe else None
        self.mixing = {"mixup_alpha": mixup, "cutmix_alpha": cutmix, "label_smoothing": label_smoothing}
        self.head_layout, self.pool, self.neck, self.fc_norm, self.deit = head_layout, pool, neck, fc_norm, deit
        self.optim = optim or Optim(base_lr=5e-4, betas=(0.9, 0.999), warmup_epochs=5, min_lr=1e-6, layer_decay=0.65)
        self.class_names: list[str] | None = None
        self.ema = self.taken_ema = ema
        self.prefix = self.prefix if ema is None else "average.backbone.vit."
        self._deit: DeitTeacher | None = None
        self.average: BackboneWithHead | None = None
        self.test_sets = TestSetEvaluator()

    @property
    def teacher(self) -> Backbone | None:
        """The teacher of DeiT-style distillation."""
        return self._deit.frozen.backbone if self._deit and self._deit.frozen else None

    @property
    def licence(self) -> str:
        """Combined licence of all source weights, a teacher's among them."""
        if not self._deit:
            return super().licence
        teachers = self._deit.located.licence
        return " and ".join(dict.fromkeys([super().licence, teachers])) if self.located else teachers

    def build(self, image_size: int | None, data: Any, errors: Errors) -> None:
        """Build or load the backbone, truncate it, freeze what is not trained, add the head and the teacher."""
        backbone, classes = None, self.count_classes(data, errors)
        with errors.of():
            # from scratch the recipe says the size; weights of another one are fitted to the images
            backbone = self.start_at(image_size) if self.source else self.start()
            errors += size_errors(backbone, image_size) + pool_errors(backbone, self.pool, self.deit is not None)
        self._check_options(self.num_classes or getattr(data, "num_classes", None), errors)
        if backbone is None:
            return
        with errors.of():
            truncate(backbone, self.blocks, self.linear_probe)
            self._layout = regroup_heads(backbone, self.head_layout)
        set_drop_path(backbone.vit, self.drop_path)
        self.choose_trained(backbone, [Tap(backbone.output_block, "ffn_post")])
        norm: Literal["layer", "batch", "none"] = "batch" if self.linear_probe else "layer" if self.fc_norm else "none"
        self.model = BackboneWithHead(backbone, HeadForm(classes, self.pool, max(self.neck, 0), norm))
        if self.checking:  # the record of a checkpoint is known
            return
        if self.ema is not None:
            if (precision := str(self.trainer.precision)).endswith("16-true"):
                raise TinymimError(
                    f"model.ema: weights of precision {precision} are too coarse to average; use a mixed one"
                )
            self.average = averaged_copy(self.model)
        if self._deit:
            self._deit.load(str(self.trainer.precision), self.trainer.strategy.root_device)
        shares = (1, 5) if classes > 5 else (1,)  # the right class is always among five of five or fewer
        self.metrics = nn.ModuleDict({f"top{k}": MulticlassAccuracy(classes, top_k=k, average="micro") for k in shares})
        names = getattr(data, "classes", None)
        if names and len(names) < classes:
            say(f"num_classes: {classes}, and the data has {len(names)} classes: the others are never right")
            names = None
        self.num_classes, self.class_names = classes, names
        mixes = self.mixing["mixup_alpha"] > 0 or self.mixing["cutmix_alpha"] > 0
        self.mix = Mixup(**self.mixing, num_classes=classes) if mixes else None
        self.train()

    def _check_options(self, classes: int | None, errors: Errors) -> None:
        for name, value in self.mixing.items():
            most = 1 if name == "label_smoothing" else float("inf")
            errors.unless(0 <= value < most, f"{name.removesuffix('_alpha')}: {value} is not in [0, {most})")
        errors.unless(self.neck >= 0, f"neck: {self.neck} is not a number of channels; 0 is none")
        if self.ema is not None and not 0 <= self.ema < 1:
            errors.append(f"ema: {self.ema} is not a decay from 0 to less than 1, such as 0.9999; null is none")
        if self.linear_probe and (self.neck or self.deit or self.pool == "cls_dist"):
            errors.append("linear_probe: trains one linear layer; it takes no neck, no deit, and pool mean or cls")
        if self.deit:
            with errors.of():
                self._deit = self._deit or DeitTeacher(self.deit)
                errors += self._deit.errors(classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of ``(B, 3, H, W)`` images in [0, 1], of the average where there is one."""
        return (self.average or self.net)(images)

    def train(self, mode: bool = True) -> Classifier:
        """Change the mode of all but an average and a probed backbone, which stay in eval mode."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Cross-entropy, mixed and smoothed as asked."""
        images, target = batch["image"], batch["label"]
        smoothing = self.mixing["label_smoothing"]
        if self.mix is not None:
            images, target = mixed(self.mix, images, target)
            smoothing = 0.0  # mixed targets are smoothed already
        each = self.net.each(images)
        if self._deit:
            labelled = F.cross_entropy(each[0], target, label_smoothing=smoothing)
            loss = deit_loss(labelled, each[1], self._deit.logits(images), self._deit.options)
        else:
            losses = [F.cross_entropy(logits, target, label_smoothing=smoothing) for logits in each]
            loss = torch.stack(losses).mean()
        return self.log_training({"loss": loss}, len(images))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Let the average follow, before anything is saved."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None and self.ema is not None:
            update(self.average, self.net, ema_decay(self.trainer.global_step + 1, self.ema))

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Class probabilities of a batch, with the indices of its images."""
        return {"index": batch["index"], "probabilities": self(batch["image"]).float().softmax(-1)}

    def evaluation_step(self, stage: str, batch: dict[str, Any], loader: int) -> None:
        """Accuracy on held-out images."""
        if loader > 0:  # the bank is for nearest neighbours
            return
        logits = self(batch["image"]).float()
        self.log_means(stage, {"loss": F.cross_entropy(logits, batch["label"])}, len(logits))
        for name, metric in self.metrics.items():
            assert isinstance(metric, MulticlassAccuracy)
            metric.update(logits, batch["label"])
            self.log(f"{stage}/{name}", metric, batch_size=len(logits), add_dataloader_idx=False)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Evaluate a batch, unless it is of a named test set, which has an evaluator of its own."""
        if not self.test_sets.active(self.trainer):
            super().test_step(batch, batch_idx, dataloader_idx)

    def configure_callbacks(self) -> list[pl.Callback]:
        """Evaluations that run beside the losses."""
        return [*super().configure_callbacks(), self.test_sets]

    def provenance_record(self) -> dict[str, Any]:
        """The classifier, the names of its classes, what it was made from and the licences of that."""
        record: dict[str, Any] = {"licence": self.licence, "classifier": asdict(self.net.form)}
        if self.provenance and self.located:
            before = self.located.record or {}
            passed = {key: before[key] for key in ("teacher", "init") if key in before}
            record["start"] = self.provenance.identity() | passed
        if self.class_names:
            record["classes"] = self.class_names
        record |= {"ema": self.ema} if self.ema is not None else {}
        return record | ({"deit": self._deit.record()} if self._deit and self._deit.provenance else {})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Follow a checkpoint that kept fewer blocks, as a probe's does, where the recipe names no weights."""
        self.taken_ema = adapt_checkpoint(checkpoint, self.ema, self.trainer.state.fn == "fit")
        stored = (checkpoint.get(RECORD) or {}).get("backbone", {}).get("output_block", self.backbone.depth)
        if self.source is None and self.blocks == "auto" and stored < self.backbone.depth:
            for network in filter(None, (self.model, self.average)):
                truncate(network.backbone, stored, self.linear_probe)
        super().on_load_checkpoint(checkpoint)
        form = asdict(self.net.form)
        record = checkpoint[RECORD].get("classifier", form)
        if record["classes"] != form["classes"]:
            data = type(getattr(self.trainer, "datamodule", None)).__name__
            raise TinymimError(
                f"ckpt_path: its classifier has {record['classes']} classes, and {data} {form['classes']}"
            )
        trained_on = checkpoint[RECORD].get("classes")
        if trained_on and self.class_names and trained_on != self.class_names:
            named = [", ".join(names[:3]) for names in (trained_on, self.class_names)]
            say(f"ckpt_path: its classes are {named[0]}, ..., the data's {named[1]}, ...: they are compared by number")
        if record != form:  # another pooling has weights of the same shapes
            raise TinymimError(f"ckpt_path: its classifier is {record}, and the recipe's {form}")
        if self._deit:
            self._deit.check(checkpoint[RECORD].get("deit"))

    def summary(self) -> list[tuple[str, str]]:
        """Lines on what is about to be trained: title and text."""
        kind = "linear probe of frozen features" if self.linear_probe else "fine-tuning"
        reads = f"{kind}, block {self.backbone.output_block}, {self.net.form.describe()}"
        lines = [*super().summary(), ("head layout", self._layout), ("classifier", reads)]
        if self.ema is not None:
            words = f"running average, decay {self.ema:g}, is evaluated and kept; its weights count as frozen below"
            lines.append(("ema", words))
        return lines + (self._deit.summary() if self._deit else [])


def mixed(mix: Mixup, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """timm's mixup and cutmix of images 1 and 2, 3 and 4, and so on, which stay together however processes share the
    images of a step; timm mixes a batch with its reverse.

    Args:
        mix: changes its batch in place; it gets a copy.
        images: ``(B, 3, H, W)``; the last of an odd number stays as it is.
        target: ``(B,)`` classes.

    Returns:
        Images, and soft targets ``(B, classes)``, in the order they came in.
    """
    if len(images) % 2:
        alone = mixup_target(target[-1:], mix.num_classes, smoothing=mix.label_smoothing)[:1]
        if len(images) == 1:
            return images, alone
        others, targets = mixed(mix, images[:-1], target[:-1])
        return torch.cat([others, images[-1:]]), torch.cat([targets, alone])
    # so timm, which blends image i with image B - 1 - i, blends neighbours
    order = torch.tensor([*range(0, len(images), 2), *range(len(images) - 1, 0, -2)], device=images.device)
    images, target = mix(images[order], target[order])
    back = order.argsort()
    return images[back], target[back]
