"""From the last block's tokens to logits: pooling, perhaps a neck, a norm, and one classifier or two.

The two classifiers are DeiT's (arXiv 2012.12877 section 4), on the CLS token and on the distillation token. The neck is
TinyMIM*-T's: LayerNorm, a linear layer to 1280 channels, GELU, on every token after the last block.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from tinymim.vit.description import HeadForm, Pool  # noqa: F401
from tinymim.vit.norms import SharedBatchNorm


class Head(nn.Module):
    """The classifier of a ViT with ``prefix`` tokens before the patches, each of ``width`` channels (D)."""

    def __init__(self, width: int, prefix: int, form: HeadForm):
        super().__init__()
        self.prefix, self.form = prefix, form
        self.neck: nn.Module = _neck(width, form.neck) if form.neck else nn.Identity()
        pooled = form.neck or width
        self.norm: nn.Module = nn.LayerNorm(pooled, eps=1e-6) if form.norm == "layer" else nn.Identity()
        if form.norm == "batch":
            self.norm = SharedBatchNorm(pooled)
        self.head = nn.Linear(pooled, form.classes)
        self.head_dist = nn.Linear(pooled, form.classes) if form.pool == "cls_dist" else None
        for linear in filter(None, (self.head, self.head_dist)):
            nn.init.trunc_normal_(linear.weight, std=0.01 if form.norm == "batch" else 2e-5)
            nn.init.zeros_(linear.bias)

    def each(self, tokens: Tensor) -> list[Tensor]:
        """Logits ``(B, classes)`` of each classifier, that of the CLS token first, from ``(B, prefix + N, D)``."""
        if self.form.pool == "mean":
            return [self.head(self.norm(self.neck(tokens[:, self.prefix :]).mean(dim=1)))]
        logits = [self.head(self.norm(self.neck(tokens[:, 0])))]  # the neck sees each token alone, so one is enough
        if self.head_dist is not None:
            logits.append(self.head_dist(self.norm(self.neck(tokens[:, 1]))))
        return logits

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of ``(B, prefix + N, D)`` tokens; two classifiers are joined by
        :func:`mean_prediction`."""
        return mean_prediction(self.each(tokens))


def mean_prediction(logits: list[Tensor]) -> Tensor:
    """Logits whose softmax is the mean of the softmaxes of ``(B, classes)`` logits; those of one alone unchanged.

    DeiT's paper adds the softmax outputs of its two classifiers (section 4); its code and timm average their logits,
    which makes another prediction where the two disagree.
    """
    if len(logits) == 1:
        return logits[0]
    return torch.stack([each.float().log_softmax(-1) for each in logits]).logsumexp(0) - math.log(len(logits))


def _neck(width: int, channels: int) -> nn.Sequential:
    linear = nn.Linear(width, channels)
    nn.init.trunc_normal_(linear.weight, std=0.02)  # timm's for a ViT; the paper does not state one
    nn.init.zeros_(linear.bias)
    parts = [("norm", nn.LayerNorm(width, eps=1e-6)), ("linear", linear), ("act", nn.GELU())]
    return nn.Sequential(OrderedDict(parts))
