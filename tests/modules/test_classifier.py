from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import tiny
from tests.modules.test_distiller import NoiseData, distiller, trainer
from tinymim import weights
from tinymim.architecture import Architecture
from tinymim.errors import TinymimError
from tinymim.modules import Classifier, Optim
from tinymim.modules.evaluation import knn_top1


def classifier(**options: Any) -> Classifier:
    torch.manual_seed(2)
    return Classifier(optim=Optim(base_lr=0.3, warmup_epochs=0, layer_decay=0.65), **options)


@pytest.fixture
def student(teacher_card: Path, tmp_path: Path) -> Path:
    """A relation student's checkpoint: its last block is trained up to q, k and v."""
    runner = trainer(tmp_path)
    runner.fit(distiller(), datamodule=NoiseData())
    runner.save_checkpoint(tmp_path / "student.ckpt")
    return tmp_path / "student.ckpt"


def fit(module: Classifier, folder: Path, epochs: int = 1) -> dict[str, float]:
    runner = trainer(folder, max_epochs=epochs)
    runner.fit(module, datamodule=NoiseData())
    return {name: float(value) for name, value in runner.callback_metrics.items()}


def test_classifier__learns_labels_from_scratch(tmp_path: Path) -> None:
    metrics = fit(classifier(architecture=tiny(24, 3)), tmp_path, epochs=25)
    assert metrics["val/top1"] > 0.9, "the held-out images are the training images here"
    assert metrics["val/top5"] == 1.0


def test_classifier__starts_from_the_students_weights_with_all_its_blocks(student: Path, tmp_path: Path) -> None:
    module = classifier(weights=str(student))
    fit(module, tmp_path, epochs=0)
    stored, _, _ = weights.load(student)
    assert module.backbone.depth == 3
    assert torch.equal(module.backbone.vit.blocks[2].attn.qkv.weight, stored.vit.blocks[2].attn.qkv.weight)
    assert module.licence == "Apache-2.0"


def test_classifier__a_probe_reads_the_last_trained_block_and_changes_nothing_below(
    student: Path, tmp_path: Path
) -> None:
    module = classifier(weights=str(student), linear_probe=True)
    metrics = fit(module, tmp_path)
    stored, _, _ = weights.load(student)
    assert module.backbone.depth == stored.output_block == 2
    for key, value in module.backbone.vit.state_dict().items():
        assert torch.equal(value, stored.vit.state_dict()[key]), key
    assert not module.backbone.training
    data = NoiseData()
    data.setup("fit")
    batches = list(data.val_dataloader()[0])
    with torch.no_grad():
        features = torch.cat([stored.features(batch["image"]) for batch in batches])
    labels = torch.cat([batch["label"] for batch in batches])
    assert metrics["val/knn_top1"] == pytest.approx(knn_top1(features, labels, features, labels))


def test_classifier__from_a_teacher_card(teacher_card: Path, tmp_path: Path) -> None:
    module = classifier(weights="tiny_teacher")
    fit(module, tmp_path, epochs=0)
    assert module.backbone.heads == [4, 4, 4]
    assert "tiny_teacher" in dict(module.summary())[""]


@pytest.mark.parametrize(("blocks", "depth"), [("all", 3), ("trained", 2), (1, 1)])
def test_blocks__say_how_much_of_the_backbone_is_kept(blocks: Any, depth: int, student: Path, tmp_path: Path) -> None:
    module = classifier(weights=str(student), blocks=blocks)
    runner = trainer(tmp_path, max_epochs=0)
    runner.fit(module, datamodule=NoiseData())
    assert module.backbone.depth == depth
    runner.save_checkpoint(tmp_path / "cut.ckpt")
    again, _, record = weights.load(tmp_path / "cut.ckpt")
    assert (again.depth, record["backbone"]["output_block"]) == (depth, depth)


def test_blocks__outside_the_backbone(student: Path, tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=r"blocks: 4 .* 1 to 3"):
        fit(classifier(weights=str(student), blocks=4), tmp_path, epochs=0)


def test_heads__other_than_the_checkpoints_are_refused(student: Path, tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=r"head layout.*\[3, 3, 3\].*\[6, 6, 6\]"):
        fit(
            classifier(weights=str(student), architecture=Architecture(options=tiny(12, 3).options, heads=6)),
            tmp_path,
            epochs=0,
        )


def test_weights__a_file_of_another_kind_asks_for_a_card(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "foreign.pth")
    with pytest.raises(TinymimError, match="card"):
        fit(classifier(weights=str(tmp_path / "foreign.pth")), tmp_path, epochs=0)


def test_classifier__neither_weights_nor_architecture() -> None:
    assert "architecture" in " ".join(classifier().problems(image_size=16))


def test_data__without_labels_is_refused(tmp_path: Path) -> None:
    data = NoiseData()
    data.num_classes = None  # type: ignore[misc]
    with pytest.raises(TinymimError, match="labels"):
        trainer(tmp_path, max_epochs=0).fit(classifier(architecture=tiny(24, 3)), datamodule=data)


def test_loss__smoothed_as_by_hand_and_mixed_targets_sum_to_one(tmp_path: Path) -> None:
    module = classifier(architecture=tiny(24, 3), label_smoothing=0.1)
    fit(module, tmp_path, epochs=0)
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    batch = {"image": torch.rand(6, 3, 16, 16), "label": torch.tensor([0, 1, 0, 1, 1, 0])}
    soft = F.one_hot(batch["label"], 2) * 0.9 + 0.05
    expected = -(soft * module(batch["image"]).log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(module.training_step(batch, 0), expected)
    mixing = classifier(architecture=tiny(24, 3), mixup=0.8, cutmix=1.0)
    fit(mixing, tmp_path, epochs=0)
    assert mixing.mix is not None
    _, target = mixing.mix(batch["image"].clone(), batch["label"])
    torch.testing.assert_close(target.sum(-1), torch.ones(6))


def test_drop_path__rises_linearly(tmp_path: Path) -> None:
    module = classifier(architecture=tiny(24, 3), drop_path=0.2)
    fit(module, tmp_path, epochs=0)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in module.backbone.vit.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])
