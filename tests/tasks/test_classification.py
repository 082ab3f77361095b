from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.data import Mixup

from tests.conftest import tiny
from tests.methods.test_distillation import NoiseData, distiller, trainer
from tinymim.data import TorchvisionData
from tinymim.errors import TinymimError
from tinymim.evaluation.knn import knn_top1
from tinymim.methods import Optim
from tinymim.tasks import Classifier
from tinymim.tasks.base import regroup_heads
from tinymim.tasks.classification import mixed
from tinymim.teachers import weights
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone


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
    assert "val/top5" not in metrics, "of three classes it is 1 by definition"


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


def test_heads__of_other_blocks_than_the_checkpoints_are_refused(student: Path) -> None:
    deeper = Architecture(options={**tiny(12, 3).options, "depth": 4}, heads=3)
    with pytest.raises(TinymimError, match=r"has 3 blocks, and the recipe's network 4; --model.architecture null"):
        classifier(weights=str(student), architecture=deeper).start()


def test_heads__other_than_the_checkpoints_are_refused(student: Path, tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=r"head layout.*\[3, 3, 3\].*\[6, 6, 6\]"):
        fit(
            classifier(weights=str(student), architecture=Architecture(options=tiny(12, 3).options, heads=6)),
            tmp_path,
            epochs=0,
        )


def test_weights__a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "foreign.pth")
    with pytest.raises(TinymimError, match=r"foreign\.pth holds .*no ViT"):
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


def test_mixed__the_last_of_an_odd_batch_stays_as_it_is() -> None:
    images, labels = torch.rand(5, 3, 4, 4), torch.tensor([0, 1, 2, 0, 1])
    blended, target = mixed(Mixup(mixup_alpha=1.0, label_smoothing=0.3, num_classes=3), images.clone(), labels)
    assert torch.equal(blended[-1], images[-1])
    torch.testing.assert_close(target[-1], torch.tensor([0.1, 0.8, 0.1]))
    assert not (blended[:4] == images[:4]).flatten(1).all(1).any()
    torch.testing.assert_close(target.sum(-1), torch.ones(5))


def test_drop_path__rises_linearly(tmp_path: Path) -> None:
    module = classifier(architecture=tiny(24, 3), drop_path=0.2)
    fit(module, tmp_path, epochs=0)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in module.backbone.vit.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


@pytest.fixture
def published(teacher_card: Path, tmp_path: Path) -> Path:
    """A student whose last block was trained with the teacher's 4 heads."""
    runner = trainer(tmp_path)
    runner.fit(distiller(head_layout="published"), datamodule=NoiseData())
    runner.save_checkpoint(tmp_path / "published.ckpt")
    return tmp_path / "published.ckpt"


def test_head_layout__kept_or_one_number_in_every_block(published: Path, tmp_path: Path) -> None:
    images = torch.rand(2, 3, 16, 16)
    stored = weights.load(published)[0].eval()
    found = {}
    for layout in ("kept", "uniform", "published"):
        module = classifier(weights=str(published), head_layout=layout)
        fit(module, tmp_path, epochs=0)
        found[layout] = module.backbone.heads
        with torch.no_grad():
            same = torch.equal(module.backbone.eval().features(images, 3), stored.features(images, 3))
        assert same == (layout == "kept"), "the same weights in other heads are another network"
        assert module.backbone.record()["architecture"]["heads"] == found[layout]
        said = dict(module.summary())["head layout"]
        one = f"{layout}, {found[layout][0]} in every block; the weights come with 3, 3, 4"
        assert said == ("kept" if layout == "kept" else one)
    assert found == {"kept": [3, 3, 4], "uniform": [3, 3, 3], "published": [3, 3, 3]}
    backbone = Backbone(replace(tiny(24, 3), heads=[6, 6, 4]))
    assert regroup_heads(backbone, "uniform").startswith("uniform, 6 in every block")
    assert regroup_heads(backbone, "published").startswith("published, 3 in every block")
    assert backbone.heads == [3, 3, 3]


def test_heads__a_number_is_of_all_blocks_but_the_one_with_its_teachers(published: Path, tmp_path: Path) -> None:
    same, other, listed = (Architecture(options=tiny(12, 3).options, heads=heads) for heads in (3, 6, [3, 3, 3]))
    module = classifier(weights=str(published), architecture=same)
    fit(module, tmp_path, epochs=0)
    assert module.backbone.heads == [3, 3, 4]
    for wrong in (other, listed):
        with pytest.raises(TinymimError, match=r"head layout.*\[3, 3, 4\]"):
            fit(classifier(weights=str(published), architecture=wrong), tmp_path, epochs=0)


STAR = "deit_tiny_distilled_patch16_224"


def star(width: int = 24, heads: int = 12) -> Architecture:
    return Architecture(STAR, tiny(width, heads).options)


def test_star__layer_decay_and_weight_decay_of_its_parts(tmp_path: Path) -> None:
    module = classifier(architecture=star(), pool="cls_dist", neck=16)
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(module, datamodule=NoiseData())
    names = {id(parameter): name for name, parameter in module.net.named_parameters()}
    found = {
        names[id(p)]: (group["lr_scale"], group["weight_decay"])
        for group in runner.optimizers[0].param_groups
        for p in group["params"]
    }
    assert found["backbone.vit.dist_token"] == found["backbone.vit.cls_token"] == (pytest.approx(0.65**4), 0.0)
    for name in ("neck.linear.weight", "head.weight", "head_dist.weight"):
        assert found[name] == (1.0, 0.05), name
    assert found["neck.norm.weight"] == found["norm.weight"] == (1.0, 0.0)
    assert "backbone.vit.norm.weight" not in found, "nothing reads timm's final norm"


def test_star__both_classifiers_learn_from_labels_without_a_teacher(tmp_path: Path) -> None:
    module = classifier(architecture=star(), pool="cls_dist", neck=16)
    fit(module, tmp_path, epochs=1)
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.eval()
    batch = {"image": torch.rand(6, 3, 16, 16), "label": torch.tensor([0, 1, 0, 1, 1, 0])}
    cls, dist = module.net.each(batch["image"])
    assert not torch.allclose(cls, dist)
    expected = (F.cross_entropy(cls, batch["label"]) + F.cross_entropy(dist, batch["label"])) / 2
    loss = module.training_step(batch, 0)
    torch.testing.assert_close(loss, expected)
    module.zero_grad()
    loss.backward()
    for part in (module.net.head, module.net.head_dist, module.backbone.vit.dist_token):
        parameters = [part] if isinstance(part, torch.nn.Parameter) else part.parameters()  # type: ignore[union-attr]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
    predicted = module.predict_step({**batch, "index": torch.arange(6)}, 0)["probabilities"]
    torch.testing.assert_close(predicted, (cls.softmax(-1) + dist.softmax(-1)) / 2)


def test_classifier__of_another_pooling_is_no_continuation(tmp_path: Path) -> None:
    module = classifier(architecture=tiny(24, 3), pool="cls")
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(module, datamodule=NoiseData())
    runner.save_checkpoint(tmp_path / "cls.ckpt")
    with pytest.raises(TinymimError, match=r"its classifier is .*'cls'.*'mean'"):
        trainer(tmp_path, max_epochs=2).fit(
            classifier(architecture=tiny(24, 3)), datamodule=NoiseData(), ckpt_path=tmp_path / "cls.ckpt"
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pool": "cls_dist"}, "pool: cls_dist, but .* has no distillation token"),
        ({"neck": -1}, "neck: -1"),
        ({"linear_probe": True, "neck": 8}, "linear_probe: .*no neck"),
    ],
)
def test_problems__of_the_classifier(options: dict[str, Any], words: str) -> None:
    found = classifier(architecture=tiny(24, 3), **options).problems(image_size=16)
    assert len(found) == 1
    assert re.match(words, found[0])


def test_classes__fewer_than_the_datas_are_refused_and_more_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = NoiseData()
    data.num_classes = 4
    problems = classifier(architecture=tiny(24, 3), num_classes=2).problems(16, data)
    assert problems == ["num_classes: 2, and the data has 4 classes; leave it out"]
    for number in (0, -1):
        (problem,) = classifier(architecture=tiny(24, 3), num_classes=number).problems(16, data)
        assert problem == f"num_classes: {number} is not 1 or more; leave it out to take the data's"
    module, runner = classifier(architecture=tiny(24, 3), num_classes=9), trainer(tmp_path, max_epochs=0)
    data.classes = list("abcd")
    runner.fit(module, datamodule=data)
    assert "num_classes: 9, and the data has" in capsys.readouterr().err
    assert "classes" not in module.provenance_record()


def test_classes__images_without_labels_are_refused_though_the_number_is_given(tmp_path: Path) -> None:
    data = NoiseData()
    data.num_classes = None
    with pytest.raises(TinymimError, match="these images have no labels"):
        trainer(tmp_path).fit(classifier(architecture=tiny(24, 3), num_classes=4), datamodule=data)


def test_probe__steps_of_one_image_are_refused(teacher_card: Path, tmp_path: Path) -> None:
    data = NoiseData()
    data.batch_size = 1
    with pytest.raises(TinymimError, match="BatchNorm needs two or more"):
        trainer(tmp_path).fit(classifier(weights="tiny_teacher", linear_probe=True), datamodule=data)


def test_problems__of_images_known_to_have_no_labels() -> None:
    data = TorchvisionData("STL10", train_split="unlabeled", image_size=16)
    found = classifier(architecture=tiny(24, 3)).problems(image_size=16, data=data)
    assert found == ["data.train_split: STL10 has no labels in unlabeled; a classifier needs them"]
    labelled = TorchvisionData("STL10", image_size=16)
    assert classifier(architecture=tiny(24, 3)).problems(image_size=16, data=labelled) == []
