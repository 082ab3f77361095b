"""Object detection: torchvision's FCOS on a backbone that is frozen or fine-tuned."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from tinymim import extras
from tinymim.argument_types import check_types
from tinymim.errors import TinymimError
from tinymim.methods.base import Errors
from tinymim.methods.optim import Optim
from tinymim.tasks.base import Blocks, truncate
from tinymim.tasks.dense import DensePredictionTask
from tinymim.tasks.fcos import GROUPS, Boxes, FCOSForm, FCOSNetwork
from tinymim.tasks.pyramid import FACTORS
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.initialise import Init

FIGURES = {"map": "map", "ap50": "map_50", "ap75": "map_75"}
"""Logged names, and torchmetrics': mean average precision over overlaps of 0.5 to 0.95, and at 0.5 and 0.75 (COCO)."""


class Detector(DensePredictionTask):
    """Train torchvision's FCOS on a backbone, or on its frozen features, with both kinds of loss logged apart.

    The classification loss says what, the localisation loss where ("Revealing the Dark Secrets of Masked Image
    Modeling", arXiv 2205.13543, compares how fast either falls); see :meth:`FCOSNetwork.losses` for what each is.
    torchvision divides them by the number of matched points in a batch, so they depend a little on the batch size.

    FCOS has no anchor boxes to fit to the data, and samples nothing, so that a resumed run goes on bit for bit.

    Args:
        weights: a checkpoint, export or teacher card's name; ``None`` starts from scratch. Resampled to the images.
        architecture: needed from scratch, and built for ``data.image_size``; with ``weights``, ``heads`` is compared.
        blocks: how much of the backbone to keep: ``all``, ``trained`` (up to the last block that pre-training trained
            whole), a number, or ``auto``: all, or trained if ``frozen``.
        frozen: train the pyramid and the heads alone.
        scales: of the pyramid's maps, relative to the grid of patches: neighbours of 4, 2, 1 and 0.5, falling. ViTDet's
            are all four, for 16 px patches. A point of the first map answers for boxes whose sides are all within 8
            points of it; each next one takes those twice as large, and the last the rest.
        width: channels of the pyramid and the heads, a multiple of 32; ViTDet's are 256.
        convolutions: in each of the two heads; FCOS has 4.
        drop_path: stochastic depth, rising linearly with depth.
        num_classes: ``None`` takes the data's.
        optim: the optimiser; the defaults are ViTDet's for ViT-B, 1e-4 at a total batch of 64.
        init: first weights of a backbone from scratch: ``published`` or ``timm``'s. Pyramid and heads have their own.
    """

    monitor = ("val/map", "max")
    slot, prefix = "detector", "detector.backbone.vit."
    part, classes_of = "detector", "box_classes"
    lacking = "these images have no boxes; use ShapesData with data.scene: true"

    def __init__(
        self,
        weights: str | None = None,
        architecture: Architecture | None = None,
        blocks: Blocks = "auto",
        frozen: bool = False,
        scales: list[float] | None = None,
        width: int = 256,
        convolutions: int = 4,
        drop_path: float = 0.0,
        num_classes: int | None = None,
        optim: Optim | None = None,
        init: Init = "published",
    ):
        check_types(Detector, locals())
        super().__init__(weights, architecture, init)
        self.blocks, self.frozen = blocks, frozen
        self.scales = list(FACTORS) if scales is None else [float(scale) for scale in scales]
        self.width, self.convolutions = width, convolutions
        self.drop_path, self.num_classes = drop_path, num_classes
        self.optim = optim or Optim(4e-4, 0.1, (0.9, 0.999), warmup_epochs=1, layer_decay=0.7)

    def check_options(self, image_size: int | None, errors: Errors) -> None:
        """Note options that are out of range, or do not go together."""
        errors += extras.missing("COCO's average precision needs", "pycocotools")
        if self.width < GROUPS or self.width % GROUPS:
            errors.append(f"width: {self.width} is no multiple of {GROUPS}, which the heads' GroupNorm needs")
        errors.unless(self.convolutions >= 1, f"convolutions: {self.convolutions} is not 1 or more")
        errors.unless(0 <= self.drop_path < 1, f"drop_path: {self.drop_path} is not in [0, 1)")
        if self.frozen and self.drop_path:
            errors.append(f"drop_path: {self.drop_path} has no effect on a frozen backbone; leave it out")
        if not self._neighbours():
            allowed = ", ".join(f"{factor:g}" for factor in FACTORS)
            errors.append(f"scales: {self.scales} is not one or more neighbours of {allowed}, in that order")

    def _neighbours(self) -> bool:
        """Whether the scales are neighbours in :data:`FACTORS`."""
        first = FACTORS.index(self.scales[0]) if self.scales and self.scales[0] in FACTORS else 0
        return bool(self.scales) and self.scales == list(FACTORS[first:][: len(self.scales)])

    def check_backbone(self, backbone: Backbone, errors: Errors) -> None:
        """Note scales whose maps would not lie on whole pixels."""
        if not self._neighbours():
            return
        finest, coarsest = self.scales[0], self.scales[-1]
        if any(side % finest for side in backbone.patch):
            errors.append(
                f"scales: {finest:g} parts the backbone's patches of {backbone.patch[0]} px into no whole pixels; "
                "leave it out"
            )
        if coarsest < 1 and any(side % 2 for side in backbone.grid):
            errors.append(f"scales: {coarsest:g} halves the grid of patches, {backbone.grid[0]} a side; leave it out")

    def decoder_form(self, backbone: Backbone, classes: int) -> FCOSForm:
        """Truncate the backbone after the block that is read."""
        truncate(backbone, self.blocks, self.frozen)
        return FCOSForm(classes, self.scales, self.width, self.convolutions)

    def network_on(self, backbone: Backbone, form: FCOSForm, data: Any) -> FCOSNetwork:
        """The backbone with pyramid and heads."""
        with torch.device("cpu"):  # it computes its thresholds, which are plain numbers
            self.average_precision = MeanAveragePrecision(backend="pycocotools")
        return FCOSNetwork(backbone, form)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Both losses, with equal weight."""
        losses = self._losses(self.net.losses(self.net(batch["image"]), boxes_of(batch)))
        return self.log_training(losses, len(batch["image"]))

    @staticmethod
    def _losses(parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Under the names they are logged with."""
        return {"loss": torch.stack(list(parts.values())).sum(), **{f"loss_{name}": x for name, x in parts.items()}}

    def evaluation_step(self, stage: str, batch: dict[str, Any], loader: int) -> None:
        """The same losses on held-out images, in eval mode, and what is found in them."""
        if loader > 0:  # the bank is for nearest neighbours
            return
        predictions, targets = self.net(batch["image"]), boxes_of(batch)
        self.log_means(stage, self._losses(self.net.losses(predictions, targets)), len(targets))
        self.average_precision.update(self.net.detections(predictions), targets)

    def on_validation_epoch_end(self) -> None:
        """Report how well boxes are found."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """Report how well boxes are found."""
        self._report("test")

    def _report(self, stage: str) -> None:
        batches: Any = self.all_gather(torch.tensor(self.average_precision.update_count, device=self.device))
        if batches.min() == 0:  # torchmetrics' figures of such a process are another's error
            raise TinymimError(
                f"data: a process of {self.trainer.world_size} had no held-out image; hold out one for each"
            )
        figures = self.average_precision.compute()  # over all processes, in each of them
        self.average_precision.reset()
        if figures["map"] < 0:  # torchmetrics' word for a set without boxes
            if self.trainer.sanity_checking:
                return
            raise TinymimError(f"data: the held-out images have no boxes, so there is no {stage}/map")
        self.log_dict({f"{stage}/{name}": figures[theirs] for name, theirs in FIGURES.items()})

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """The boxes found in each image, the surest first, with the indices of the images: ``box`` ``(B, 100, 4)`` in
        pixels, ``kind`` and ``score`` ``(B, 100)``; rows beyond the last have kind -1, and zeros."""
        detections = self.net.detections(self.net(batch["image"]))
        most = self.net.fcos.detections_per_img

        def rows(name: str, empty: int) -> Tensor:
            padded = []
            for image in detections:
                lack = (0, 0) * (image[name].dim() - 1) + (0, most - len(image[name]))  # the last axis comes first
                padded.append(F.pad(image[name], lack, value=empty))
            return torch.stack(padded)

        return {
            "index": batch["index"],
            "box": rows("boxes", 0),
            "kind": rows("labels", -1),
            "score": rows("scores", 0),
        }

    def summary(self) -> list[tuple[str, str]]:
        """Lines on what is about to be trained: title and text."""
        kind = "frozen features" if self.frozen else "fine-tuning"
        return [*super().summary(), ("reads", f"{kind}, block {self.backbone.output_block}")]


def boxes_of(batch: dict[str, Any]) -> list[Boxes]:
    """The boxes of each image of a batch, cut at its edges; those without area are left out."""
    height, width = batch["image"].shape[-2:]
    kinds, places = batch["targets"]["kind"], batch["targets"]["box"].float()
    places = torch.minimum(places.clamp(min=0), places.new_tensor([width, height, width, height]))
    kept = (kinds >= 0) & (places[..., 2:] > places[..., :2]).all(-1)
    return [{"boxes": box[keep], "labels": kind[keep]} for kind, box, keep in zip(kinds, places, kept, strict=True)]
