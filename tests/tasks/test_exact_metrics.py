"""Metrics under Lightning's precisions of half the bits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchmetrics import MeanMetric, R2Score

from tests.conftest import tiny
from tests.tasks.test_scene_tasks import module
from tinymim.tasks.exact_metrics import ExactMetrics
from tinymim.vit.backbone import Backbone


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_states__keep_counting_in_half_precision(dtype: torch.dtype) -> None:
    network = nn.ModuleDict(
        {"layer": nn.Linear(1, 1), "metrics": ExactMetrics({"mean": MeanMetric(), "r2": R2Score()})}
    )
    network.to(dtype)
    metrics = network["metrics"]
    assert network["layer"].weight.dtype == dtype
    for number in range(512):
        metrics["mean"].update(torch.tensor(float(number >= 256), dtype=dtype))
        metrics["r2"].update(torch.tensor([float(number % 7)]), torch.tensor([float(number % 5)]))
    assert float(metrics["mean"].compute()) == 0.5
    exact = R2Score()
    exact.update(torch.arange(512.0) % 7, torch.arange(512.0) % 5)
    assert float(metrics["r2"].compute()) == pytest.approx(float(exact.compute()), rel=1e-4)


def test_figures__of_scenes_are_exact_in_a_network_of_bfloat16() -> None:
    tasks, backbone = module("size"), Backbone(tiny(24, 3))
    network = tasks.network_on(backbone, tasks.decoder_form(backbone, 0), SimpleNamespace())
    tasks.to(torch.bfloat16)
    network.to(torch.bfloat16)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    assert tasks.figures["size"]["error"].weight.dtype == torch.float32
