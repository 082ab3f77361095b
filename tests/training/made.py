"""Checkpoints as training writes them, made by hand: weights far from their start, so that every part counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.classifier_head import Head, HeadForm
from tinymim.vit.conventions import CONVENTIONS, Conventions
from tinymim.vit.taps import Tap

NAMES = ["ant", "bee", "cat"]


def network(architecture: Architecture, classes: HeadForm | None = None, taps: Iterable[Tap] = ()) -> Backbone:
    """A network with random weights everywhere, norms and a probe's statistics among them."""
    generator = torch.Generator().manual_seed(0)
    backbone = Backbone(architecture)
    if classes:
        backbone.classifier = Head(backbone.width, backbone.prefix, classes)
    if taps := list(taps):
        backbone.set_output_block(taps)
    with torch.no_grad():
        for name, value in backbone.state_dict().items():
            if value.is_floating_point():
                start = 1.0 if "norm" in name and name.endswith(("weight", "running_var")) else 0.0
                value.copy_(start + 0.2 * torch.randn(value.shape, generator=generator))
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm1d) and module.running_var is not None:
                module.running_var.abs_()
    return backbone.eval()


def checkpoint(path: Path, made: Backbone, **record: Any) -> Path:
    """A Distiller's checkpoint, or a Classifier's where the network has a classifier."""
    prefix, state = "student.vit.", dict[str, Tensor]()
    if made.classifier:
        prefix = "model.backbone.vit."
        state = {f"model.{key}": value for key, value in made.classifier.state_dict().items()}
        record = {"classifier": asdict(made.classifier.form), **record}
    state |= {prefix + key: value for key, value in made.vit.state_dict().items()}
    common = {"licence": "CC-BY-NC-4.0", CONVENTIONS: Conventions().record()}
    whole = {"backbone": made.record(), "prefix": prefix, **common, **record}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, "tinymim": whole}, path)
    return path
