"""Plain description of a network, what records, cards and recipes say of it; needs no torch, so that cards are read at
once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tinymim.argument_types import checked

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DEVIATION = (1e-6, 1e6)  # least and greatest standard deviation of images in [0, 1]; a mean is as far from 0 at most
MOST_STD = 10.0
"""Greatest standard deviation of images in [0, 1] that a teacher may state. Theirs is 0.5 at most and 1 divides by
nothing; that of pixel values up to 255, taken for it, is 50 or so. Between them lies what somebody may have meant."""

Init = Literal["published", "timm"]  # rules that a recipe may name
Pool = Literal["mean", "cls", "cls_dist"]


def colour_problem(name: str, values: Sequence[float]) -> str | None:
    """Why the ``mean`` or ``std`` of a teacher's input cannot be that of images in [0, 1]; ``None`` where it can."""
    least, most = (0.0, 1.0) if name == "mean" else (DEVIATION[0], MOST_STD)
    wrong = next((value for value in values if not least <= value <= most), None)
    if wrong is None:
        return None
    if name == "mean":
        what = f"{wrong:g} is not in [0, 1], as the images are"
    else:
        what = f"{wrong:g} is not a spread of images in [0, 1], above 0 and {MOST_STD:g} at most"
    return f"{name}: {what}{'; divide by 255' if 1 < wrong <= 255 else ''}"


Resampling = Literal["timm", "dinov2", "transformers"]


@dataclass
class Architecture:
    """A timm ViT and everything about it that its weights do not say.

    Args:
        arch: timm's name, without weights: a ``vit_*``, ``deit_*``, ``beit*`` or ``eva*`` model. The
            ``deit_*_distilled_*`` ones have a distillation token after the CLS token, as TinyMIM*-T does.
        options: timm's own arguments laid over it (``embed_dim``, ``depth``, ``num_heads``, ``img_size``, ...).
        heads: attention heads, one number for all blocks or one for each; ``None`` keeps the architecture's own. The
            same channels in 3, 6 or 12 heads are three different networks, so this is part of the weights.
        pos_embed: ``learned``, or ``sincos`` for the fixed 2-D sine-cosine embedding of MAE and TinyMIM. A new one has
            timm's order of channels, rows before columns; theirs, columns first, is the same up to the order, which a
            network that is trained from scratch does not see. That of a file is kept as it is.
        resampling: of a learned embedding to another grid, see :func:`tinymim.vit.positions.fit_positions`: ``timm``'s,
            ``dinov2``, as the published code of DINOv2 without registers does it, or ``transformers``, as its port of
            that network does.
        mean: input mean of images in [0, 1], one value a channel.
        std: input standard deviation, likewise.

    Raises:
        TinymimError: arguments of other types, or of other names, such as timm's own, which go into ``options``.
    """

    arch: str = "vit_tiny_patch16_224"
    options: dict[str, Any] = field(default_factory=dict)
    heads: int | list[int] | None = None
    pos_embed: Literal["learned", "sincos"] = "learned"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    resampling: Resampling = "timm"

    def record(self) -> dict[str, Any]:
        """Its fields in plain types; ``resampling`` is new among them, and noted where it is not timm's."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if (name, value) != ("resampling", "timm")}


def _into_options(name: str, value: Any) -> str:
    return f"timm's own arguments go into options: Architecture(..., options={{{name!r}: {value!r}}})"


checked(Architecture, _into_options)


@dataclass(frozen=True)
class HeadForm:
    """Form of a head, all of it but the weights; checkpoints record it.

    Args:
        classes: outputs.
        pool: ``mean`` of the patch tokens, the ``cls`` token, or ``cls_dist``: CLS and distillation token, each with a
            classifier of its own.
        neck: channels of the neck; 0 is none.
        norm: of what is pooled: ``layer``; ``batch``, without affine, for a linear probe; or ``none``.
    """

    classes: int
    pool: Pool = "mean"
    neck: int = 0
    norm: Literal["layer", "batch", "none"] = "layer"

    def describe(self) -> str:
        """One line for people."""
        pooled = {"mean": "mean patch token", "cls": "CLS token", "cls_dist": "CLS and distillation token"}[self.pool]
        return f"{pooled}, {f'neck of {self.neck} channels, ' if self.neck else ''}{self.classes} classes"
