"""Supervised use of a backbone for detection: what is in an image, and where."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from tinymim.errors import TinymimError
from tinymim.methods.optim import Optim
from tinymim.tasks.cut import Blocks, cut
from tinymim.tasks.dense import Dense
from tinymim.tasks.fcos import GROUPS, Boxes, FCOSForm, FCOSNetwork
from tinymim.tasks.scales import FACTORS
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.blocks import Tap
from tinymim.vit.initialise import Init

FIGURES = {"map": "map", "ap50": "map_50", "ap75": "map_75"}
"""Logged names, and torchmetrics': mean average precision over overlaps of 0.5 to 0.95, and at 0.5 and 0.75 (COCO)."""


class Detector(Dense):
    """Train torchvision's FCOS on a backbone, or on its frozen features, with both kinds of loss logged apart.

    The classification loss says what, the localisation loss where ("Revealing the Dark Secrets of Masked Image
    Modeling", arXiv 2205.13543, compares how fast either falls); see :meth:`FCOSNetwork.losses` for what each is.
    torchvision divides them by the number of matched points in a batch, so they depend a little on the batch size.

    FCOS has no anchor boxes to fit to the data, and samples nothing, so that a resumed run goes on bit for bit.

    Args:
        weights: a checkpoint or export of this project, or a teacher card's name; ``None`` starts from scratch. Its
            position embeddings are resampled to ``data.image_size``.
        architecture: needed from scratch, and built for ``data.image_size``. With ``weights`` their own record is
            followed, head layout included; of this, ``heads`` alone is compared with it, if given.
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
        init: first weights of a backbone from scratch: the ``published`` ones of TinyMIM and MAE or ``timm``'s, see
            ``tinymim/vit/initialise.py``. Pyramid and heads have their own.
    """

    monitor = ("val/map", "max")
    prefix = "detector.backbone.vit."
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
        super().__init__(weights, architecture, init)
        self.blocks, self.frozen = blocks, frozen
        self.scales = list(FACTORS) if scales is None else [float(scale) for scale in scales]
        self.width, self.convolutions = width, convolutions
        self.drop_path, self.num_classes = drop_path, num_classes
        self.optim = optim or Optim(4e-4, 0.1, (0.9, 0.999), warmup_epochs=1, layer_decay=0.7)
        self.detector: FCOSNetwork | None = None

    @property
    def net(self) -> FCOSNetwork:
        """The network."""
        assert self.detector is not None, "configure_model comes first"
        return self.detector

    def problems(self, image_size: int) -> list[str]:
        """Everything that keeps the recipe from running."""
        found = []
        if self.width < GROUPS or self.width % GROUPS:
            found.append(f"width: {self.width} is no multiple of {GROUPS}, which the heads' GroupNorm needs")
        if self.convolutions < 1:
            found.append(f"convolutions: {self.convolutions} is not 1 or more")
        if not 0 <= self.drop_path < 1:
            found.append(f"drop_path: {self.drop_path} is not in [0, 1)")
        if self.frozen and self.drop_path:
            found.append(f"drop_path: {self.drop_path} has no effect on a frozen backbone; leave it out")
        first = FACTORS.index(self.scales[0]) if self.scales and self.scales[0] in FACTORS else 0
        if not self.scales or self.scales != list(FACTORS[first:][: len(self.scales)]):
            allowed = ", ".join(f"{factor:g}" for factor in FACTORS)
            found.append(f"scales: {self.scales} is not one or more neighbours of {allowed}, in that order")
            return found
        try:
            network = self.skeleton_at(image_size)
            found += self._misfits(network)
            cut(copy.deepcopy(network), self.blocks, self.frozen)
        except TinymimError as error:
            found.append(str(error))
        return found

    def _misfits(self, network: Backbone) -> list[str]:
        """Scales whose maps would not lie on whole pixels."""
        finest, coarsest = self.scales[0], self.scales[-1]
        found = []
        if any(side % finest for side in network.patch):
            found.append(
                f"scales: {finest:g} parts the backbone's patches of {network.patch[0]} px into no whole pixels; "
                "leave it out"
            )
        if coarsest < 1 and any(side % 2 for side in network.grid):
            found.append(f"scales: {coarsest:g} halves the grid of patches, {network.grid[0]} a side; leave it out")
        return found

    def settle(self, backbone: Backbone, classes: int) -> FCOSForm:
        """Cut ``backbone`` after the last block that is read."""
        cut(backbone, self.blocks, self.frozen)
        return FCOSForm(classes, self.scales, self.width, self.convolutions)

    def assemble(self, backbone: Backbone, form: FCOSForm) -> None:
        """Add pyramid and heads."""
        self.detector = FCOSNetwork(backbone, form)
        reached = backbone.reached([Tap(backbone.output_block, "ffn_post")])
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name in reached and not self.frozen)
        with torch.device("cpu"):  # it computes its thresholds, which are plain numbers
            self.average_precision = MeanAveragePrecision(backend="pycocotools")
        self.train()

    def train(self, mode: bool = True) -> Detector:
        """A frozen backbone stays in eval mode."""
        super().train(mode)
        if self.frozen and self.detector is not None:
            self.backbone.eval()
        return self

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Both losses, with equal weight."""
        losses = self._losses(self.net.losses(self.net(batch["image"]), boxes_of(batch)))
        self.log_dict({f"train/{name}": loss.detach() for name, loss in losses.items()}, batch_size=len(batch["image"]))
        return losses["loss"]

    @staticmethod
    def _losses(parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Under the names they are logged with."""
        return {"loss": torch.stack(list(parts.values())).sum(), **{f"loss_{name}": x for name, x in parts.items()}}

    def evaluation_step(self, stage: str, batch: dict[str, Any], loader: int) -> None:
        """The same losses on held-out images, in eval mode, and what is found in them."""
        if loader > 0:  # the bank is for nearest neighbours
            return
        seen, targets = self.net(batch["image"]), boxes_of(batch)
        self.log_means(stage, self._losses(self.net.losses(seen, targets)), len(targets))
        self.average_precision.update(self.net.found(seen), targets)

    def on_validation_epoch_end(self) -> None:
        """Report how well boxes are found."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """Report how well boxes are found."""
        self._report("test")

    def _report(self, stage: str) -> None:
        figures = self.average_precision.compute()  # over all processes, in each of them
        self.average_precision.reset()
        self.log_dict({f"{stage}/{name}": figures[theirs] for name, theirs in FIGURES.items()})

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """The boxes found in each image, the surest first, with the indices of the images: ``box`` ``(B, 100, 4)`` in
        pixels, ``kind`` and ``score`` ``(B, 100)``; rows beyond the last have kind -1, and zeros."""
        found = self.net.found(self.net(batch["image"]))
        most = self.net.fcos.detections_per_img

        def rows(name: str, empty: int) -> Tensor:
            lengths = [(0, 0) * (one[name].dim() - 1) + (0, most - len(one[name])) for one in found]
            return torch.stack([F.pad(one[name], lack, value=empty) for one, lack in zip(found, lengths, strict=True)])

        return {
            "index": batch["index"],
            "box": rows("boxes", 0),
            "kind": rows("labels", -1),
            "score": rows("scores", 0),
        }

    def summary(self) -> list[tuple[str, str]]:
        """What is about to be trained, for people."""
        kind = "frozen features" if self.frozen else "fine-tuning"
        return [*super().summary(), ("reads", f"{kind}, block {self.backbone.output_block}")]


def boxes_of(batch: dict[str, Any]) -> list[Boxes]:
    """The boxes of each image of a batch, cut at its edges; those without area are left out."""
    height, width = batch["image"].shape[-2:]
    kinds, places = batch["targets"]["kind"], batch["targets"]["box"].float()
    places = torch.minimum(places.clamp(min=0), places.new_tensor([width, height, width, height]))
    kept = (kinds >= 0) & (places[..., 2:] > places[..., :2]).all(-1)
    return [{"boxes": place[keep], "labels": kind[keep]} for kind, place, keep in zip(kinds, places, kept, strict=True)]
