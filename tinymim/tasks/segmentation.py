"""Supervised use of a backbone for dense prediction: a class for each pixel."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from tinymim.data.segmentation_views import UNLABELLED
from tinymim.errors import TinymimError
from tinymim.methods.optim import Optim
from tinymim.tasks import upernet
from tinymim.tasks.dense import Dense
from tinymim.tasks.sliding import slide
from tinymim.tasks.upernet import UPerNet, UPerNetForm
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.initialise import Init


class Segmenter(Dense):
    """Fine-tune a backbone on masks, with UPerNet's decoder over four of its blocks (TinyMIM section 4, ADE20K).

    The published code adds to its segmentation backbone a relative position bias in each block and layer scale, which
    no checkpoint of its pre-training has. They are left out: the backbone is the one that was distilled.

    Args:
        weights: a checkpoint or export of this project, or a teacher card's name; ``None`` starts from scratch. Its
            position embeddings are resampled to ``data.image_size``.
        architecture: needed from scratch, and built for ``data.image_size``. With ``weights`` their own record is
            followed, head layout included; of this, ``heads`` alone is compared with it, if given.
        blocks: the four blocks (from 1) whose outputs the decoder sees, rising; those above the last are cut off.
            ``None`` takes a third, half, two thirds and all of the depth: 4, 6, 8 and 12 of 12, as published. A
            distilled student's last block was trained up to its q, k and v alone; the rest of it starts as its file
            has it, and is trained here.
        decoder_width: channels of the decoder; 768 for ViT-B and TinyMIM*-T, the source does not state others.
        auxiliary: channels of the auxiliary classifier, on the third scale; 0 leaves it out.
        auxiliary_weight: of its loss.
        dropout: of channels before the decoder's classifier.
        drop_path: stochastic depth, rising linearly with depth.
        stride: in pixels, of the window of ``data.image_size`` that slides over held-out images larger than it;
            ``None`` is two thirds of it, 341 of 512.
        num_classes: ``None`` takes the data's.
        optim: the optimiser; the defaults are the paper's for ViT-B, 1e-4 at a total batch of 16.
        init: first weights of a backbone from scratch: the ``published`` ones of TinyMIM and MAE or ``timm``'s, see
            ``tinymim/vit/initialise.py``. The decoder has its own.
    """

    monitor = ("val/miou", "max")
    prefix = "network.backbone.vit."
    part, classes_of = "segmenter", "mask_classes"
    lacking = "these images have no masks; use SegmentationFolderData, or ShapesData with masks: true"

    def __init__(
        self,
        weights: str | None = None,
        architecture: Architecture | None = None,
        blocks: list[int] | None = None,
        decoder_width: int = 768,
        auxiliary: int = 256,
        auxiliary_weight: float = 0.4,
        dropout: float = 0.1,
        drop_path: float = 0.1,
        stride: int | None = None,
        num_classes: int | None = None,
        optim: Optim | None = None,
        init: Init = "published",
    ):
        super().__init__(weights, architecture, init)
        self.blocks, self.decoder_width, self.stride, self.num_classes = blocks, decoder_width, stride, num_classes
        self.auxiliary, self.auxiliary_weight = auxiliary, auxiliary_weight
        self.dropout, self.drop_path = dropout, drop_path
        self.optim = optim or Optim(1.6e-3, betas=(0.9, 0.999), layer_decay=0.75, schedule="linear", warmup_steps=1500)
        self.network: UPerNet | None = None

    @property
    def net(self) -> UPerNet:
        """The network."""
        assert self.network is not None, "configure_model comes first"
        return self.network

    def problems(self, image_size: int) -> list[str]:
        """Everything that keeps the recipe from running."""
        least = {"decoder_width": (self.decoder_width, 1), "auxiliary": (self.auxiliary, 0)}
        least |= {"stride": (self.stride if self.stride is not None else 1, 1)}
        found = [f"{name}: {value} is not {low} or more" for name, (value, low) in least.items() if value < low]
        if self.auxiliary_weight <= 0:
            found.append(f"auxiliary_weight: {self.auxiliary_weight} is not above 0; auxiliary: 0 leaves it out")
        for name in ("dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                found.append(f"{name}: {getattr(self, name)} is not in [0, 1)")
        if (self.stride or 0) > image_size:
            found.append(f"stride: {self.stride} is more than data.image_size, {image_size}: pixels would be left out")
        try:
            network = self.skeleton_at(image_size)
            self._blocks(network)
            if min(network.grid) < 2:
                found.append(f"data.image_size: {image_size} is one patch, and the decoder's coarsest map takes two")
        except TinymimError as error:
            found.append(str(error))
        return found + upernet.missing()

    def _blocks(self, network: Backbone) -> list[int]:
        """Those that are read."""
        depth = network.depth
        if self.blocks is None:
            return [max(round(depth * part), 1) for part in (1 / 3, 1 / 2, 2 / 3, 1)]
        inside = all(1 <= block <= depth for block in self.blocks)
        if len(self.blocks) != 4 or not inside or sorted(self.blocks) != self.blocks:
            raise TinymimError(f"blocks: {self.blocks} is not four of the backbone's blocks 1 to {depth}, rising")
        return self.blocks

    def settle(self, backbone: Backbone, classes: int) -> UPerNetForm:
        """Cut ``backbone`` after the last block that is read."""
        blocks = self._blocks(backbone)
        backbone.output_block = blocks[-1]
        backbone.vit.blocks = backbone.vit.blocks[: blocks[-1]]
        return UPerNetForm(classes, blocks, self.decoder_width, self.auxiliary, self.dropout)

    def assemble(self, backbone: Backbone, form: UPerNetForm) -> None:
        """Add the decoder."""
        self.network = UPerNet(backbone, form)
        reached = backbone.reached(self.network.taps)
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name in reached)
        classes = form.classes
        figures: dict[str, Metric] = {
            "miou": MulticlassJaccardIndex(classes, ignore_index=UNLABELLED, validate_args=False),
            "pixel_accuracy": MulticlassAccuracy(
                classes, average="micro", ignore_index=UNLABELLED, validate_args=False
            ),
        }
        self.metrics = nn.ModuleDict(figures)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes, H, W)`` of ``(B, 3, H, W)`` images in [0, 1] of any size, by a sliding window."""
        window = self.backbone.image_size[0]
        fill = self.backbone.get_buffer("mean")[0]
        return slide(self.net, images, window, self.stride or max(window * 2 // 3, 1), fill)

    def on_fit_start(self) -> None:
        """Refuse batches of one, where BatchNorm over the decoder's coarsest pooling has a single value a channel."""
        if self.trainer.world_size * getattr(getattr(self.trainer, "datamodule", None), "batch_size", 2) < 2:
            raise TinymimError("data.batch_size: 1, and the decoder's BatchNorm needs 2 images or more in a batch")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Cross-entropy of the decoder, and a share of the auxiliary classifier's."""
        main, *beside = (pixel_loss(logits, batch["mask"]) for logits in self.net.each(batch["image"]))
        loss = main + self.auxiliary_weight * beside[0] if beside else main
        self.log("train/loss", loss.detach(), batch_size=len(batch["mask"]))
        return loss

    def evaluation_step(self, stage: str, batch: dict[str, Any], loader: int) -> None:
        """Mean intersection over union, and accuracy, on the held-out images in the size of their masks."""
        if loader > 0:  # the bank is for nearest neighbours
            return
        mask = batch["mask"]
        logits = self._at_size_of(mask.shape[-2:], batch["image"])
        self.log_means(stage, {"loss": pixel_loss(logits, mask)}, len(mask))
        for name, metric in self.metrics.items():
            assert isinstance(metric, Metric)
            metric.update(logits.argmax(1), mask)
            self.log(f"{stage}/{name}", metric, batch_size=len(mask), add_dataloader_idx=False)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Each pixel's class, in the size of the masks, with the indices of the images."""
        size = batch["mask"].shape[-2:]
        return {"index": batch["index"], "mask": self._at_size_of(size, batch["image"]).argmax(1)}

    def _at_size_of(self, size: torch.Size, images: Tensor) -> Tensor:
        """Logits ``(B, classes, *size)``."""
        logits = self(images)
        if logits.shape[-2:] == size:
            return logits
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    def summary(self) -> list[tuple[str, str]]:
        """What is about to be trained, for people."""
        assert self._trained, "configure_model comes first"
        lines, (whole, beyond) = super().summary(), self._trained
        if whole < self.backbone.depth:
            part = f" and {', '.join(beyond)} of the next" if beyond else ""
            lines.append(("blocks", f"pre-trained up to {whole}{part}; all {self.backbone.depth} are trained now"))
        return lines


def pixel_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy summed over the labelled pixels and divided by the number of all, as mmsegmentation has it.

    So images weigh the same in whatever batches they come, and a batch without labelled pixels has no loss.

    Args:
        logits: ``(B, classes, H, W)``.
        mask: ``(B, H, W)`` classes, :data:`UNLABELLED` where there is none.
    """
    return F.cross_entropy(logits.float(), mask, ignore_index=UNLABELLED, reduction="sum") / mask.numel()
