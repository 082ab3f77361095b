"""FCOS (arXiv 1904.01355), torchvision's, over a ViT with ViTDet's simple feature pyramid (arXiv 2203.16527)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.image_list import ImageList

from tinymim.tasks.network import BackboneWithDecoder
from tinymim.tasks.pyramid import SimplePyramid, map_of
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Tap

GROUPS = 32
"""Groups of the GroupNorm in torchvision's heads, which the channels must be a multiple of."""

Boxes = dict[str, Tensor]
"""Boxes of one image, as torchvision has them: ``boxes`` ``(M, 4)`` in pixels (left, top, right, bottom), ``labels``
from 0, and ``scores`` of detections."""


@dataclass(frozen=True)
class FCOSForm:
    """Form of a detector, all but its backbone and weights; checkpoints record it.

    Args:
        classes: of boxes.
        scales: of the pyramid's maps, relative to the grid of patches, from fine to coarse.
        width: channels of the pyramid and the heads.
        convolutions: in each of the two heads.
    """

    classes: int
    scales: list[float]
    width: int
    convolutions: int

    def describe(self) -> str:
        """One line for people."""
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        return f"FCOS, {self.convolutions} convolutions of {self.width} channels on maps of {scales} x the patches"


class HeadOutputs(NamedTuple):
    """Outputs of the heads for a batch, in float32.

    Args:
        outputs: torchvision's ``cls_logits``, ``bbox_regression`` and ``bbox_ctrness``, each ``(B, P, ...)``.
        anchors: of each image, ``(P, 4)``: the square that each of the P points of all maps stands for, in pixels.
        points: of each map.
        size: height and width of the images.
    """

    outputs: Boxes
    anchors: list[Tensor]
    points: list[int]
    size: tuple[int, int]


class FCOSNetwork(BackboneWithDecoder):
    """A backbone with its pyramid and torchvision's FCOS.

    Args:
        backbone: read at its output block.
        form: of the rest.
    """

    def __init__(self, backbone: Backbone, form: FCOSForm):
        super().__init__(backbone, form)
        pyramid = SimplePyramid(backbone.width, form.width, form.scales)
        strides = [[side / scale for side in backbone.patch] for scale in form.scales]
        anchors = AnchorGenerator(tuple((stride[0],) for stride in strides), ((1.0,),) * len(strides))
        # torchvision would lay them around the upper left corners of what their points see, and round them
        anchors.cell_anchors = [torch.tensor([0.0, 0.0, width, height])[None] for height, width in strides]
        head = FCOSHead(form.width, 1, form.classes, form.convolutions)
        self.fcos = FCOS(pyramid, form.classes, anchor_generator=anchors, head=head, score_thresh=0.05)

    def forward(self, images: Tensor) -> HeadOutputs:
        """Outputs of the heads for ``(B, 3, H, W)`` images in [0, 1], of the size the backbone takes.

        torchvision's own ``forward`` is not used: it would resize and normalise the images, give losses in training
        mode alone, and compute them in the precision of the networks.
        """
        tap = Tap(self.backbone.output_block, "ffn_post")
        tokens = self.backbone.read(images, [tap])[tap][:, self.backbone.prefix :]
        maps = self.fcos.backbone(map_of(tokens, self.backbone.grid))
        outputs = {name: output.float() for name, output in self.fcos.head(maps).items()}
        size = (images.shape[-2], images.shape[-1])
        anchors = self.fcos.anchor_generator(ImageList(images, [size] * len(images)), [level.float() for level in maps])
        return HeadOutputs(outputs, anchors, [level.shape[-2] * level.shape[-1] for level in maps], size)

    def losses(self, predictions: HeadOutputs, targets: list[Boxes]) -> dict[str, Tensor]:
        """torchvision's three losses as two, whose sum is its total.

        ``classification`` is the focal loss of each point's classes; ``localisation`` the generalised IoU loss of the
        boxes and the cross-entropy of the centre-ness, which weighs a box by where in it its point lies. Each is summed
        over the batch and divided by the number of points in it that have a box.
        """
        losses = self.fcos.compute_loss(targets, predictions.outputs, predictions.anchors, predictions.points)
        localisation = losses["bbox_regression"] + losses["bbox_ctrness"]
        return {"classification": losses["classification"], "localisation": localisation}

    def detections(self, predictions: HeadOutputs) -> list[Boxes]:
        """The boxes found in each image, the surest first: at most 100, of scores above 0.05, without doubles."""
        outputs = {name: list(output.split(predictions.points, dim=1)) for name, output in predictions.outputs.items()}
        anchors = [list(each.split(predictions.points)) for each in predictions.anchors]
        return self.fcos.postprocess_detections(outputs, anchors, [predictions.size] * len(anchors))
