"""Attention distance, entropy and diversity of heads (arXiv 2205.13543)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tinymim.analysis.layers import Layer
from tinymim.analysis.statistics import Moments

ELEMENTS = 2**19
"""Elements of the maps that are held at a time, unless one image has more: measured on two cores."""

MEASURES = ("distance_px", "entropy_nats", "diversity_kl", "diversity_js", "prefix_mass")

Direction = Literal["forward", "reverse", "both"]


@dataclass
class HeadOptions:
    """Choices that the paper leaves open.

    Args:
        cls: CLS, distillation token and registers in the maps. ``drop`` takes their rows and columns out and scales
            what is left of each row to sum to 1. ``keep`` leaves them in entropy and diversity; as they have no place,
            the distance is that of ``drop``.
        kl: of head h against each other head g. ``forward`` is KL(A_h ‖ A_g), ``reverse`` KL(A_g ‖ A_h), ``both``
            their mean. Their means over a layer's heads agree.
    """

    cls: Literal["drop", "keep"] = "drop"
    kl: Direction = "both"


class HeadMeasures:
    """Attention distance, entropy and diversity of every head, over all images it is given.

    Per-image numbers are averaged, never maps, since entropy and KL are not linear in them.
    """

    def __init__(self, options: HeadOptions | None = None):
        self.options = options or HeadOptions()
        self._moments: dict[int, Moments] = {}
        self._uniform: dict[int, dict[str, float]] = {}

    @torch.inference_mode()
    def add(self, layer: Layer) -> None:
        """A block over a batch."""
        if layer.block not in self._moments:
            self._moments[layer.block] = Moments()
            self._uniform[layer.block] = uniform(layer, self.options)
        each = layer.heads * layer.tokens.shape[1] * (layer.prefix + layer.distances.shape[1])
        step = max(ELEMENTS // each, 1)
        for first in range(0, len(layer.tokens), step):
            maps = layer.maps(slice(first, first + step))
            self._moments[layer.block].add(measure(maps, layer.distances, layer.prefix, self.options))

    def records(self) -> list[dict[str, Any]]:
        """One for each head of each block, both from 1: every measure, its standard deviation over images (``_sd``),
        its ratio to that of uniform attention over what a query may see; ``diversity_*`` of a lone head are nan."""
        records = []
        for block, moments in sorted(self._moments.items()):
            for head, values in enumerate(zip(moments.mean.tolist(), moments.sd.tolist(), strict=True), 1):
                record = {"block": block, "head": head}
                for name, mean, sd in zip(MEASURES, *values, strict=True):
                    record |= {name: mean, f"{name}_sd": sd}
                    if most := self._uniform[block].get(name):
                        ratio = f"{name.partition('_')[0]}_ratio"
                        record |= {ratio: mean / most, f"{ratio}_sd": sd / most}
                records.append({**record, "images": moments.count})
        return records


def measure(maps: Tensor, distances: Tensor, prefix: int, options: HeadOptions) -> Tensor:
    """All :data:`MEASURES` of every head on every image, ``(b, H, 5)``: means over queries.

    Args:
        maps: log attention ``(b, W, H, prefix + Q, prefix + K)``; -inf is attention of 0.
        distances: ``(Q, K)`` in pixels.
        prefix: tokens before the patches.
        options: of the prefix and the KL.
    """
    mass = maps[..., prefix:, :prefix].exp().sum(-1).mean((1, 3))
    logs = F.log_softmax(maps[..., prefix:, prefix:], dim=-1) if prefix else maps
    attention = logs.exp()
    distance = (attention * distances).sum(-1).mean((1, 3))
    if prefix and options.cls == "keep":
        logs, attention = maps, maps.exp()
    entropy, kl, js = information(logs, attention, options.kl)
    return torch.stack([distance, entropy, kl, js, mass], dim=-1)


def information(logs: Tensor, maps: Tensor, direction: Direction) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy of each head, and its mean KL and Jensen-Shannon divergence from the others, in nats: three ``(b, H)``,
    means over queries.

    With S_h = sum A_h ln A_h, KL(A_h ‖ A_g) = S_h - sum A_h ln A_g, so one product of maps with logarithms gives all
    pairs; JS = (S_h + S_g - sum (A_h + A_g) ln (A_h + A_g)) / 2 + ln 2. Sums over keys are float32, those over
    queries float64. ``logs`` are log attention, ``(b, W, H, Q, K)``, and ``maps`` its exponential.
    """
    _, windows, heads, queries, _ = maps.shape
    number, others = windows * queries, heads - 1 or math.nan
    logs = logs.clamp(min=torch.finfo(logs.dtype).min)  # so that 0 · ln 0 is 0
    products = (a.transpose(1, 2) @ b.transpose(1, 2).mT for a, b in zip(maps, logs, strict=True))  # in place by image
    crossed = torch.stack([product.sum((0, 1), dtype=torch.float64) for product in products]) / number
    negative_entropy = crossed.diagonal(dim1=1, dim2=2)
    pairs = negative_entropy.unsqueeze(2) - crossed
    sides = {"forward": [2], "reverse": [1], "both": [1, 2]}[direction]
    kl = torch.stack([pairs.sum(side) for side in sides]).mean(0) / others
    js = torch.zeros_like(crossed)
    for head in range(heads - 1):
        mixed = maps[:, :, head : head + 1] + maps[:, :, head + 1 :]
        terms = mixed.clamp(min=torch.finfo(mixed.dtype).tiny).log_().mul_(mixed)
        shared = terms.sum(-1).sum((1, 3), dtype=torch.float64) / number
        sums = negative_entropy[:, head : head + 1] + negative_entropy[:, head + 1 :]
        js[:, head, head + 1 :] = (sums - shared) / 2 + math.log(2)
    return -negative_entropy, kl, (js + js.mT).sum(2) / others


def uniform(layer: Layer, options: HeadOptions) -> dict[str, float]:
    """Distance and entropy of attention that is the same to all that a query may attend to; nan where that is the
    query alone."""
    allowed = torch.ones_like(layer.distances)[None] if layer.allowed is None else layer.allowed.float()
    keys = allowed.sum(-1)
    distance = ((allowed * layer.distances).sum(-1) / keys).mean()
    kept = layer.prefix if options.cls == "keep" else 0
    values = {"distance_px": distance.item(), "entropy_nats": (keys + kept).log().mean().item()}
    return {name: value or math.nan for name, value in values.items()}
