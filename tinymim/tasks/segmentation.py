"""Semantic segmentation: a class for each pixel, by UPerNet over a backbone that is fine-tuned."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from tinymim import extras
from tinymim.argument_types import check_types
from tinymim.data.segmentation_views import UNLABELLED
from tinymim.errors import TinymimError
from tinymim.methods.base import Errors
from tinymim.methods.optim import Optim
from tinymim.tasks.base import truncate
from tinymim.tasks.dense import DensePredictionTask
from tinymim.tasks.upernet import UPerNet, UPerNetForm
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.initialise import Init
from tinymim.vit.taps import Tap

BAND = 1 << 26
"""Logits that are computed in the size of a mask at once: a quarter of a gigabyte."""


class Segmenter(DensePredictionTask):
    """Fine-tune a backbone on masks, with UPerNet's decoder over four of its blocks (TinyMIM section 4, ADE20K).

    The published code adds to its segmentation backbone a relative position bias in each block and layer scale, which
    no checkpoint of its pre-training has. They are left out: the backbone is the one that was distilled.

    Args:
        weights: a checkpoint, export or teacher card's name; ``None`` starts from scratch. Resampled to the images.
        architecture: needed from scratch, and built for ``data.image_size``; with ``weights``, ``heads`` is compared.
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
        init: first weights of a backbone from scratch: ``published`` or ``timm``'s. The decoder has its own.
    """

    monitor = ("val/miou", "max")
    slot, prefix = "network", "network.backbone.vit."
    part, classes_of = "segmenter", "mask_classes"
    batch_norm = True  # over the decoder's coarsest pooling
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
        check_types(Segmenter, locals())
        super().__init__(weights, architecture, init)
        self.blocks, self.decoder_width, self.stride, self.num_classes = blocks, decoder_width, stride, num_classes
        self.auxiliary, self.auxiliary_weight = auxiliary, auxiliary_weight
        self.dropout, self.drop_path = dropout, drop_path
        self.optim = optim or Optim(1.6e-3, betas=(0.9, 0.999), layer_decay=0.75, schedule="linear", warmup_steps=1500)

    def check_options(self, image_size: int | None, errors: Errors) -> None:
        """Note options that are out of range, and a decoder that is not installed."""
        stride = 1 if self.stride is None else self.stride
        for name, value, least in (
            ("decoder_width", self.decoder_width, 1),
            ("auxiliary", self.auxiliary, 0),
            ("stride", stride, 1),
        ):
            errors.unless(value >= least, f"{name}: {value} is not {least} or more")
        if not 0 < self.auxiliary_weight < math.inf:
            errors.append(f"auxiliary_weight: {self.auxiliary_weight} is no number above 0; auxiliary: 0 leaves it out")
        for name in ("dropout", "drop_path"):
            errors.unless(0 <= getattr(self, name) < 1, f"{name}: {getattr(self, name)} is not in [0, 1)")
        if image_size and stride > image_size:
            errors.append(f"stride: {stride} is more than data.image_size, {image_size}: pixels would be left out")
        errors += extras.missing("UPerNet's decoder needs", "transformers")

    def check_backbone(self, backbone: Backbone, errors: Errors) -> None:
        """Note a grid of a single patch."""
        if min(backbone.grid) < 2:
            size = backbone.image_size[0]
            errors.append(f"data.image_size: {size} is one patch, and the decoder's coarsest map takes two")

    def decoder_form(self, backbone: Backbone, classes: int) -> UPerNetForm:
        """Truncate the backbone after the last of the four blocks that are read."""
        depth, blocks = backbone.depth, self.blocks
        if blocks is None:
            blocks = [max(round(depth * part), 1) for part in (1 / 3, 1 / 2, 2 / 3, 1)]
        if len(blocks) != 4 or sorted(blocks) != blocks or blocks[0] < 1 or blocks[-1] > depth:
            raise TinymimError(f"blocks: {blocks} is not four of the backbone's blocks 1 to {depth}, rising")
        truncate(backbone, blocks[-1], frozen=False)
        return UPerNetForm(classes, blocks, self.decoder_width, self.auxiliary, self.dropout)

    def taps(self, backbone: Backbone, form: UPerNetForm) -> list[Tap]:
        """The outputs of the blocks that the decoder sees."""
        return [Tap(block, "ffn_post") for block in form.blocks]

    def network_on(self, backbone: Backbone, form: UPerNetForm, data: Any) -> UPerNet:
        """The backbone with UPerNet's decoder."""
        shared: dict[str, Any] = {"ignore_index": UNLABELLED, "validate_args": False}
        figures: dict[str, Metric] = {
            "miou": MulticlassJaccardIndex(form.classes, **shared),
            "pixel_accuracy": MulticlassAccuracy(form.classes, average="micro", **shared),
        }
        self.metrics = nn.ModuleDict(figures)
        return UPerNet(backbone, form)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes, H, W)`` of ``(B, 3, H, W)`` images in [0, 1] of any size, by a sliding window."""
        window = self.backbone.image_size[0]
        fill = self.backbone.get_buffer("mean")[0]
        return slide(self.net, images, window, self.stride or max(window * 2 // 3, 1), fill)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Cross-entropy of the decoder, and a share of the auxiliary classifier's."""
        main, *auxiliary = (pixel_loss(logits, batch["mask"]) for logits in self.net.forward_all(batch["image"]))
        loss = main + self.auxiliary_weight * auxiliary[0] if auxiliary else main
        return self.log_training({"loss": loss}, len(batch["mask"]))

    def evaluation_step(self, stage: str, batch: dict[str, Any], loader: int) -> None:
        """Mean intersection over union, and accuracy, on the held-out images in the size of their masks."""
        if loader > 0:  # the bank is for nearest neighbours
            return
        mask, loss = batch["mask"], torch.zeros((), device=self.device)
        for rows, logits in upsampled(self(batch["image"]), mask.shape[-2:]):
            part = mask[:, rows].long()
            loss += pixel_loss(logits, part) * (part.numel() / mask.numel())
            for metric in self.metrics.values():
                metric.update(logits.argmax(1), part)  # type: ignore[operator]
        self.log_means(stage, {"loss": loss}, len(mask))
        for name, metric in self.metrics.items():
            assert isinstance(metric, Metric)
            self.log(f"{stage}/{name}", metric, batch_size=len(mask), add_dataloader_idx=False)

    def on_validation_epoch_end(self) -> None:
        """Refuse held-out images without a labelled pixel, which have no figure."""
        overlap: Any = self.metrics["miou"]
        labelled: Any = overlap.confmat.sum()
        if not self.trainer.sanity_checking and not self.trainer.strategy.reduce(labelled, reduce_op="sum"):
            raise TinymimError(
                "data: no pixel of the held-out masks has a class, so there is no val/miou; 255 is none, and 0 is none "
                "with data.zero_unlabelled"
            )

    on_test_epoch_end = on_validation_epoch_end

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Each pixel's class, in the size of the masks, with the indices of the images."""
        parts = upsampled(self(batch["image"]), batch["mask"].shape[-2:])
        classes = torch.cat([logits.argmax(1).to(torch.uint8) for _, logits in parts], 1)
        return {"index": batch["index"], "mask": classes}

    def summary(self) -> list[tuple[str, str]]:
        """Lines on what is about to be trained: title and text."""
        lines, (whole, beyond) = super().summary(), self._pretrained
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


def upsampled(logits: Tensor, size: tuple[int, ...]) -> Iterator[tuple[slice, Tensor]]:
    """Logits in the size of a mask, bilinear, in bands of rows: all classes of a large mask would fill the memory.

    Args:
        logits: ``(B, classes, h, w)``.
        size: of the mask, H and W.

    Yields:
        Rows, and their logits, ``(B, classes, rows, W)``; all at once, up to :data:`BAND` numbers.
    """
    (height, width), given = size, logits.shape[-2]
    rows = max(BAND // (len(logits) * logits.shape[1] * width), 1)
    if rows >= height:
        same = logits.shape[-2:] == size
        yield slice(0, height), logits if same else F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return
    for top in range(0, height, rows):
        centres = torch.arange(top, min(top + rows, height), device=logits.device) + 0.5
        place = (centres * (given / height) - 0.5).clamp(0, given - 1)
        upper = place.long()
        lower = (upper + 1).clamp(max=given - 1)
        band = torch.lerp(logits[..., upper, :], logits[..., lower, :], (place - upper)[:, None].to(logits.dtype))
        yield slice(top, top + len(band[0, 0])), F.interpolate(band, (len(place), width), mode="bilinear")


def slide(
    predict: Callable[[Tensor], Tensor], images: Tensor, window: int, stride: int, fill: Tensor | float = 0.0
) -> Tensor:
    """Mean prediction of each pixel over the windows that show it, for a network that takes images of one size.

    As mmsegmentation has it: windows begin ``stride`` apart, and the last ones end at the image's edge.

    Args:
        predict: from ``(B, 3, window, window)`` to ``(B, C, window, window)``.
        images: ``(B, 3, H, W)``; sides shorter than the window are lengthened, to the right and below.
        window: side, in pixels.
        stride: in pixels.
        fill: the colour of what is added, ``(3, 1, 1)``; nothing is returned of it.

    Returns:
        ``(B, C, H, W)``.
    """
    height, width = images.shape[-2:]
    lack = (0, max(window - width, 0), 0, max(window - height, 0))
    images = F.pad(images - fill, lack) + fill if any(lack) else images
    rows, columns = (_starts(side, window, stride) for side in images.shape[-2:])
    total: Tensor | None = None
    for top in rows:
        for left in columns:
            box = (..., slice(top, top + window), slice(left, left + window))
            predicted = predict(images[box]).float()
            if total is None:
                total = predicted.new_zeros(*predicted.shape[:2], *images.shape[-2:])
                count = predicted.new_zeros(images.shape[-2:])
            total[box] += predicted
            count[box] += 1
    assert total is not None
    return (total / count)[..., :height, :width]


def _starts(side: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along a side."""
    last = side - window
    return sorted({min(start, last) for start in range(0, last + stride, stride)})
