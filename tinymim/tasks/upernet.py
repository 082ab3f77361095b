"""UPerNet (arXiv 1807.10221) over a ViT: four blocks as four scales, transformers' decoder and auxiliary classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from tinymim.seeds import shared_rand
from tinymim.tasks.network import BackboneWithDecoder
from tinymim.tasks.pyramid import Pyramid
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Tap

AUXILIARY_LEVEL = 2
"""The scale, from 0, that the auxiliary classifier sees: the tokens as they are."""


@dataclass(frozen=True)
class UPerNetForm:
    """Form of a segmentation network, all but its backbone and weights; checkpoints record it.

    Args:
        classes: outputs for each pixel.
        blocks: the four (from 1) whose outputs become maps of a quarter, a half, one and two patches a pixel.
        width: channels of the decoder.
        auxiliary: channels of the auxiliary classifier; 0 is none.
        dropout: of the decoder's channels before its classifier.
    """

    classes: int
    blocks: list[int]
    width: int = 768
    auxiliary: int = 256
    dropout: float = 0.1

    def describe(self) -> str:
        """One line for people."""
        auxiliary = f", auxiliary classifier of {self.auxiliary}" if self.auxiliary else ""
        return f"UPerNet of {self.width} channels on blocks {', '.join(map(str, self.blocks))}{auxiliary}"


class SharedDropout2d(nn.Module):
    """Dropout of whole channels, with random numbers that do not depend on how many processes share a step.

    Args:
        rate: probability of dropping one.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)``, some channels of each image zero and the others scaled."""
        if not self.rate or not self.training:
            return x
        kept = shared_rand(len(x), x.shape[1], 1, 1, device=x.device) >= self.rate
        return x * (kept.to(x.dtype) / (1 - self.rate))


class UPerNet(BackboneWithDecoder):
    """A backbone with its pyramid and decoder; one module, whose names are those of the checkpoints.

    Args:
        backbone: read at the form's blocks.
        form: of the rest.
    """

    def __init__(self, backbone: Backbone, form: UPerNetForm):
        from transformers.models.upernet.configuration_upernet import UperNetConfig
        from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead

        super().__init__(backbone, form)
        self.pyramid = Pyramid(backbone.width)
        config = UperNetConfig(hidden_size=form.width, auxiliary_channels=form.auxiliary)
        config.num_labels = form.classes
        widths = [backbone.width] * len(self.pyramid.levels)
        self.decoder = cast(Any, UperNetHead(config, widths))
        # mmsegmentation's decoder has it, transformers' has not
        self.decoder.classifier = nn.Sequential(SharedDropout2d(form.dropout), self.decoder.classifier)
        self.auxiliary = UperNetFCNHead(config, widths, AUXILIARY_LEVEL) if form.auxiliary else None

    @property
    def taps(self) -> list[Tap]:
        """Taps of the backbone that are read."""
        return [Tap(block, "ffn_post") for block in self.form.blocks]

    def forward_all(self, images: Tensor) -> list[Tensor]:
        """Logits ``(B, classes, H, W)`` of the decoder and, where there is one, of the auxiliary classifier.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1], of the size the backbone takes.
        """
        maps = self.maps(images)
        logits = [self.decoder(maps), *([self.auxiliary(maps)] if self.auxiliary else [])]
        return [_enlarged(each, images) for each in logits]

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes, H, W)`` of the decoder."""
        return _enlarged(self.decoder(self.maps(images)), images)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The pyramid, from fine to coarse."""
        readings = self.backbone.read(images, self.taps)
        return self.pyramid([readings[tap][:, self.backbone.prefix :] for tap in self.taps], self.backbone.grid)


def _enlarged(logits: Tensor, images: Tensor) -> Tensor:
    return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
