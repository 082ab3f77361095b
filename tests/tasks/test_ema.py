"""A running average of the weights beside those that are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from tests.conftest import tiny
from tests.methods.test_distillation import NoiseData, trainer
from tests.tasks.test_classification import classifier
from tinymim.errors import TinymimError
from tinymim.export.export_forms import export_file
from tinymim.tasks import Classifier
from tinymim.teachers import weights

EMA = 0.5
"""Reached in the ninth step: (1 + 8) / (10 + 8)."""


class Diary(pl.Callback):
    """The trained weights before the first step and after each."""

    def __init__(self) -> None:
        self.pages: list[dict[str, Tensor]] = []

    def write(self, module: Any) -> None:
        self.pages.append({name: value.detach().double().clone() for name, value in module.model.named_parameters()})

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.write(module)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        self.write(module)


def averaged(**options: Any) -> Classifier:
    return classifier(architecture=tiny(24, 3), ema=EMA, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, Diary, Path, dict[str, float]]:
    """Twelve steps."""
    folder, diary, module = tmp_path_factory.mktemp("ema"), Diary(), averaged()
    runner = trainer(folder, max_epochs=6, callbacks=[diary])
    runner.fit(module, datamodule=NoiseData())
    runner.save_checkpoint(folder / "ema.ckpt")
    return module, diary, folder / "ema.ckpt", {name: float(value) for name, value in runner.callback_metrics.items()}


def test_average__is_what_the_weights_of_all_steps_come_to(run: Any) -> None:
    module, diary, _, _ = run
    assert len(diary.pages) == 13
    expected = diary.pages[0]
    for step, page in enumerate(diary.pages[1:], start=1):
        decay = min(EMA, (1 + step) / (10 + step))
        expected = {name: decay * kept + (1 - decay) * page[name] for name, kept in expected.items()}
    for name, value in module.average.named_parameters():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(module.average.head.weight, module.model.head.weight, rtol=1e-3)


def test_average__is_not_trained_nor_in_training_mode(run: Any) -> None:
    module = run[0]
    module.train()
    assert module.model.training
    assert not any(inner.training for inner in module.average.modules())
    assert not any(parameter.requires_grad for parameter in module.average.parameters())


def test_evaluation__is_the_averages(run: Any, tmp_path: Path) -> None:
    module, _, path, metrics = run
    data = NoiseData()
    data.setup("fit")
    losses = []
    with torch.no_grad():
        for batch in data.val_dataloader()[0]:
            losses.append(torch.nn.functional.cross_entropy(module.average.eval()(batch["image"]), batch["label"]))
    assert metrics["val/loss"] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)
    for again in (averaged(), classifier(architecture=tiny(24, 3))):  # the recipe need not say so once more
        runner = trainer(tmp_path)
        runner.test(again, datamodule=NoiseData(), ckpt_path=path, verbose=False, weights_only=True)
        assert float(runner.callback_metrics["test/loss"]) == pytest.approx(metrics["val/loss"], rel=1e-5)
        assert again.taken_ema == EMA


def test_checkpoint__gives_the_average_to_whoever_starts_from_it(run: Any, tmp_path: Path) -> None:
    module, _, path, _ = run
    loaded, _, record = weights.load(path, classifier=True)
    assert record["ema"] == EMA
    for name, value in module.average.backbone.vit.state_dict().items():
        assert name.startswith(weights.FOREIGN) or torch.equal(loaded.vit.state_dict()[name], value), name
    assert torch.equal(loaded.classifier.head.weight, module.average.head.weight)  # type: ignore[union-attr]
    again = classifier(weights=str(path))
    trainer(tmp_path, max_epochs=0).fit(again, datamodule=NoiseData())
    for own in ("attn.qkv", "mlp.fc2"):
        first, other = (net.backbone.vit.blocks[2].get_submodule(own).weight for net in (again.net, module.average))
        assert torch.equal(first, other)


def test_export__takes_the_average_and_says_so(run: Any, tmp_path: Path) -> None:
    module, _, path, _ = run
    export_file(str(path), tmp_path / "out.safetensors")
    backbone, _, record = weights.load(tmp_path / "out.safetensors")
    assert record["ema"] == EMA
    weight = "blocks.1.attn.qkv.weight"
    assert torch.equal(backbone.vit.state_dict()[weight], module.average.backbone.vit.state_dict()[weight])


def test_resume__with_and_without_it(run: Any, tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=r"keeps a running average; go on with --model.ema 0.5"):
        trainer(tmp_path, max_epochs=7).fit(
            classifier(architecture=tiny(24, 3)), datamodule=NoiseData(), ckpt_path=run[2], weights_only=True
        )
    plain, runner = classifier(architecture=tiny(24, 3)), trainer(tmp_path, max_epochs=1)
    runner.fit(plain, datamodule=NoiseData())
    runner.save_checkpoint(tmp_path / "plain.ckpt")
    with pytest.raises(TinymimError, match=r"model.ema: 0.5, but this checkpoint has no running average"):
        trainer(tmp_path).fit(averaged(), datamodule=NoiseData(), ckpt_path=tmp_path / "plain.ckpt", weights_only=True)


def test_problems__of_a_decay() -> None:
    assert classifier(architecture=tiny(24, 3), ema=1.0).problems(image_size=16) == [
        "ema: 1.0 is not a decay from 0 to less than 1, such as 0.9999; null is none"
    ]
