"""A backbone with a head or a decoder, and the layers that its learning rate decays over."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tinymim.vit.backbone import Backbone
from tinymim.vit.classifier_head import Head, HeadForm, Pool
from tinymim.vit.conventions import BiasLayer
from tinymim.vit.taps import STEM, Tap


class LayerDecayGroups:
    """Layers of a network for timm's layer-wise decay of the learning rate: all beside its ``backbone`` is head.

    A relative position bias that all blocks share counts to the last layer, as in BEiT's and SimMIM's code, which says
    no more of it: every block learns it. timm's stem would have 1/270 of the rate at a decay of 0.65 and 12 blocks. As
    in timm, tables of relative positions have no weight decay, where the two authors' have.
    """

    backbone: Backbone
    shared_bias: BiasLayer = "last"

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Depth of each parameter."""
        below = (*STEM, "rope", *(["rel_pos_bias"] if self.shared_bias == "stem" else []))
        stem = "|".join(part.removesuffix(".") for part in below)
        return {
            "stem": rf"^backbone\.vit\.(?:{stem})",
            "blocks": r"^backbone\.vit\.blocks\.(\d+)",
            "head": r"^(?!backbone\.)|^backbone\.vit\.(?:norm\.|rel_pos_bias\.)",
        }

    def no_weight_decay(self) -> set[str]:
        """Parameters timm leaves without weight decay."""
        return {f"backbone.vit.{name}" for name in self.backbone.vit.no_weight_decay()}


class BackboneWithDecoder(LayerDecayGroups, nn.Module):
    """A backbone under a decoder; one module, whose names are those of the checkpoints.

    Args:
        backbone: what the decoder reads.
        form: what it is besides its backbone and weights, a dataclass with ``describe``; checkpoints record it.
    """

    def __init__(self, backbone: Backbone, form: Any):
        super().__init__()
        self.backbone, self.form = backbone, form


class BackboneWithHead(LayerDecayGroups, Head):
    """A backbone and its :class:`Head`; one module, whose names are those of the checkpoints.

    Args:
        backbone: read at its output block.
        form: of the head.
    """

    def __init__(self, backbone: Backbone, form: HeadForm):
        super().__init__(backbone.width, backbone.prefix, form)
        self.backbone = backbone

    def each(self, images: Tensor) -> list[Tensor]:
        """Logits ``(B, classes)`` of each classifier, of ``(B, 3, H, W)`` images in [0, 1]."""
        tap = Tap(self.backbone.output_block, "ffn_post")
        return super().each(self.backbone.read(images, [tap])[tap])


def pool_errors(network: Backbone, pool: Pool, deit: bool) -> list[str]:
    """Why ``network``'s tokens cannot be pooled so, or, with ``deit``, why a teacher would have nothing to teach."""
    arch, errors = network.architecture.arch, []
    distilled = "timm's deit_*_distilled_* models have one"
    if pool == "cls" and not network.has_cls:
        errors.append(f"pool: cls, but {arch} has no CLS token; use mean")
    if pool == "cls_dist" and not network.distilled:
        errors.append(f"pool: cls_dist, but {arch} has no distillation token; {distilled}")
    if deit and pool != "cls_dist":
        remedy = "set pool: cls_dist" if network.distilled else f"{arch} has no distillation token, and {distilled}"
        errors.append(
            f"deit: the teacher's part is a classifier on the distillation token, and pool is {pool}; {remedy}"
        )
    return errors
