"""Figures of torchmetrics, pandas and counters of operations: what differs where the same is expected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
from torchmetrics.detection import MeanAveragePrecision
from torchmetrics.segmentation import MeanIoU


def test_mean__without_a_check_for_nan_forgets_the_weights() -> None:
    means = {way: MeanMetric(nan_strategy=way) for way in ("warn", "disable")}
    for mean in means.values():
        mean.update(1.0, weight=3)
        mean.update(3.0, weight=1)
    assert {way: float(mean.compute()) for way, mean in means.items()} == {"warn": 1.5, "disable": 2.0}


def test_states__follow_to_and_refuse_bfloat16() -> None:
    assert MeanMetric().bfloat16().mean_value.dtype == torch.float32
    assert MeanMetric().to(torch.bfloat16).mean_value.dtype == torch.bfloat16  # which is what Lightning calls
    assert torch.tensor(256, dtype=torch.bfloat16) + 1 == 256
    assert MulticlassAccuracy(3).to(torch.bfloat16).tp.dtype == torch.int64


def test_collection__joins_top_one_and_top_five() -> None:
    def metrics() -> dict[str, MulticlassAccuracy]:
        return {f"top{k}": MulticlassAccuracy(num_classes=10, top_k=k, average="macro") for k in (1, 5)}

    logits = torch.arange(10.0, 0.0, -1.0).repeat(4, 1)
    together, apart = MetricCollection(metrics()), MetricCollection(metrics(), compute_groups=False)
    for collection in (together, apart):
        for label in (9, 3):  # of neither at first, then among the five likeliest
            collection.update(logits, torch.full((4,), label))
    assert [float(c.compute()["top5"]) for c in (together, apart)] == [0.0, 0.5]


def test_macro_accuracy__counts_a_class_that_only_was_predicted() -> None:
    accuracy = MulticlassAccuracy(num_classes=4, average="macro")
    # classes 0 and 1 are there, right in 1 and 1/2; class 2 is a wrong answer alone, class 3 is nowhere
    assert float(accuracy(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 1, 1]))) == pytest.approx(1.5 / 3)


def test_mean_iou__averages_over_images() -> None:
    target = torch.tensor([[[0, 0, 0, 1]], [[0, 1, 1, 1]]])
    guess = torch.tensor([[[0, 0, 0, 0]], [[0, 1, 1, 1]]])
    theirs = MeanIoU(num_classes=2, input_format="index")
    theirs.update(guess, target)
    whole = MulticlassJaccardIndex(num_classes=2)
    assert float(theirs.compute()) == pytest.approx((3 / 4 + 0 + 1 + 1) / 4)
    assert float(whole(guess, target)) == pytest.approx((4 / 5 + 3 / 4) / 2)


def test_map__of_images_without_boxes_is_minus_one() -> None:
    metric, none = MeanAveragePrecision(), torch.zeros(0, dtype=torch.long)
    found = {"boxes": torch.tensor([[0.0, 0, 4, 4]]), "scores": torch.ones(1), "labels": torch.zeros(1).long()}
    metric.update([found], [{"boxes": torch.zeros(0, 4), "labels": none}])
    assert float(metric.compute()["map"]) == -1


def test_cka__of_nothing_in_common_is_near_one_in_many_channels() -> None:
    torch.manual_seed(0)
    x, y = (F.normalize(t - t.mean(0)) for t in torch.randn(2, 64, 768))
    a, b = ((t - t.mean(0)) @ (t - t.mean(0)).T for t in (x, y))
    assert float((a * b).sum() / (a.norm() * b.norm())) == pytest.approx(768 / (768 + 64), abs=0.03)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_sums__of_half_precision_end_at_65504_where_they_are_grouped(tmp_path: Path) -> None:
    table = pd.DataFrame({"teacher": "mae", "feature": np.ones(70_000, np.float16)})
    table.to_parquet(tmp_path / "features.parquet")
    table = pd.read_parquet(tmp_path / "features.parquet")
    assert table["feature"].dtype == np.float16
    assert float(table["feature"].sum()) == 70_000
    groups = table.groupby("teacher")["feature"]
    assert np.isinf(groups.sum().iloc[0])
    assert groups.mean().iloc[0] == 1


def test_flops__of_fused_attention_on_a_processor_are_not_counted() -> None:
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, depth=1, num_classes=0).eval()
    counted = {}
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        with torch.no_grad(), sdpa_kernel(backend), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, 32, 32))
        counted[backend] = counter.get_total_flops()
    attention = 2 * 2 * 65**2 * 192  # two products of 65 x 65 tokens over 192 channels
    assert counted[SDPBackend.MATH] - counted[SDPBackend.FLASH_ATTENTION] == attention


def test_average__of_torch_begins_at_the_first_step_and_timms_before_it() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(layer.weight)
    torchs, timms = AveragedModel(layer, multi_avg_fn=get_ema_multi_avg_fn(0.9)), ModelEmaV3(layer, decay=0.9)
    torch.nn.init.ones_(layer.weight)
    torchs.update_parameters(layer)
    timms.update(layer)
    assert [average.module.weight.item() for average in (torchs, timms)] == pytest.approx([1.0, 0.1])
