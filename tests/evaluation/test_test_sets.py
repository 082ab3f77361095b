"""Named test sets take the place of the usual evaluation, and nearest neighbours leave them alone."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.methods.pair import Named, probe
from tests.methods.test_distillation import NoiseData, trainer
from tinymim.evaluation.test_sets import TopKCounts


def test_probe__on_named_sets_reports_these_alone(tmp_path: Path) -> None:
    module, runner = probe(), trainer(tmp_path)
    runner.test(module, datamodule=Named(), verbose=False)
    assert set(runner.callback_metrics) == {"test/all/top1", "test/one/top1"}
    own, baseline = module.test_sets.figures
    assert {name: figures.images for name, figures in own.items()} == {"all": 16, "one": 8}
    assert baseline is None


def test_probe__on_other_data_reports_as_ever(tmp_path: Path) -> None:
    module, runner = probe(), trainer(tmp_path)
    runner.test(module, datamodule=NoiseData(), verbose=False)
    assert set(runner.callback_metrics) == {f"test/{name}" for name in ("loss", "top1", "knn_top1")}


def test_counts__of_a_set_with_classes_of_its_own() -> None:
    counts = TopKCounts([None, [2, 0]])
    logits = torch.tensor([[3.0, 2.0, 1.0], [0.0, 5.0, 1.0], [1.0, 9.0, 2.0]])
    counts.update(0, logits, torch.tensor([0, 0, -1]))
    counts.update(1, logits, torch.tensor([1, 0, 1]))  # of classes 2 and 0: 0, 2, 2 win
    assert counts.compute() == [[2, 1, 1, 2], [3, 0, 2, 3]]
