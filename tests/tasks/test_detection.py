from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from tests.conftest import tiny
from tests.methods.test_distillation import NoiseData, trainer
from tinymim.data import ShapesData
from tinymim.errors import TinymimError
from tinymim.methods import Optim
from tinymim.safety.text import plain
from tinymim.tasks import Classifier, Detector
from tinymim.tasks.detection import boxes_of
from tinymim.tasks.fcos import FCOSForm, FCOSNetwork, HeadOutputs
from tinymim.tasks.pyramid import SimplePyramid
from tinymim.teachers import weights
from tinymim.training.exact_resume import ExactResume
from tinymim.vit.backbone import Backbone


def scenes(**options: Any) -> ShapesData:
    small = {"image_size": 32, "batch_size": 4, "train_images": 8, "held_out_images": 6, "bank_size": 1}
    return ShapesData(**{**small, "scene": True, "scale": (1.0, 1.0), "flip": False, **options})


def detector(**options: Any) -> Detector:
    torch.manual_seed(3)
    small = {"scales": [1, 0.5], "width": 32, "convolutions": 1}
    given = {"architecture": tiny(24, 3)} if "weights" not in options else {}
    return Detector(**{**small, **given, "optim": Optim(0.1, warmup_epochs=0), **options})


def fit(module: Detector, folder: Path, epochs: int = 0, data: Any = None, **options: Any) -> dict[str, float]:
    runner = trainer(folder, max_epochs=epochs, **options)
    runner.fit(module, datamodule=data or scenes())
    return {name: float(value) for name, value in runner.callback_metrics.items()}


def batch_of(data: ShapesData) -> dict[str, Any]:
    data.setup("fit")
    return data.on_after_batch_transfer(next(iter(data.val_dataloader()[0])), 0)


@pytest.fixture
def built(tmp_path: Path) -> Detector:
    module = detector()
    fit(module, tmp_path)
    return module.eval()


# The network


@torch.no_grad()
def test_pyramid__each_map_covers_the_same_places_at_its_scale() -> None:
    pyramid = SimplePyramid(6, 32, [4.0, 2.0, 1.0, 0.5]).eval()
    x = torch.randn(1, 6, 16, 16)
    maps = pyramid(x)
    assert [tuple(one.shape[1:]) for one in maps] == [(32, 64, 64), (32, 32, 32), (32, 16, 16), (32, 8, 8)]
    moved = x.clone()
    moved[..., 9, 4] += 5
    for one, other, factor in zip(maps, pyramid(moved), (4, 2, 1, 0.5), strict=True):
        rows, columns = (one != other).any(1)[0].nonzero().unbind(1)
        for places, at in ((rows, 9), (columns, 4)):  # a convolution of 3 reaches one point further
            assert places.min() >= int(at * factor) - 1
            assert places.max() <= int((at + 1) * factor - 1e-6) + 1


@torch.no_grad()
def test_anchors__are_the_pixels_that_each_point_stands_for() -> None:
    architecture = tiny(24, 3, img_size=24)
    net = FCOSNetwork(Backbone(architecture), FCOSForm(2, [4.0, 1.0, 0.5], 32, 1)).eval()
    seen = net(torch.rand(2, 3, 24, 24))
    assert seen.points == [24 * 24, 6 * 6, 3 * 3]
    expected = [
        [column * stride, row * stride, (column + 1) * stride, (row + 1) * stride]
        for stride in (1, 4, 8)
        for row in range(24 // stride)
        for column in range(24 // stride)
    ]
    for anchors in seen.anchors:
        assert anchors.tolist() == expected


@torch.no_grad()
def test_found__a_hand_made_answer_is_the_box_around_its_point() -> None:
    net = FCOSNetwork(Backbone(tiny(24, 3, img_size=32)), FCOSForm(3, [1.0], 32, 1)).eval()
    seen = net(torch.rand(1, 3, 32, 32))
    outputs = {name: torch.full_like(output, -20.0) for name, output in seen.outputs.items()}
    point = 2 * 8 + 5  # the patch in row 2, column 5: its centre is at (22, 10)
    outputs["cls_logits"][0, point, 1] = outputs["bbox_ctrness"][0, point] = 20.0
    outputs["bbox_regression"][0, point] = torch.tensor([1.0, 0.5, 2.0, 1.5])  # in patches of 4 px, to each side
    (found,) = net.detections(seen._replace(outputs=outputs))
    assert found["labels"].tolist() == [1]
    torch.testing.assert_close(found["boxes"], torch.tensor([[18.0, 8.0, 30.0, 16.0]]))
    assert found["scores"].item() == pytest.approx(1.0)


def test_losses__are_torchvisions_and_add_up_to_its_total(built: Detector) -> None:
    net, batch = built.net, batch_of(scenes())
    targets = boxes_of(batch)
    parts = net.losses(net(batch["image"]), targets)

    class Maps(nn.Module):
        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            x = net.backbone.vit.patch_embed((images - net.backbone.mean) / net.backbone.std)
            x = net.backbone.vit._pos_embed(x)
            for block in net.backbone.vit.blocks:
                x = block(x)
            tokens = x[:, 1:].transpose(1, 2).reshape(len(x), 24, 8, 8)
            return {str(number): one for number, one in enumerate(pyramid(tokens))}

    class Kept(nn.Module):
        def forward(self, images: list[torch.Tensor], targets: Any) -> Any:
            return ImageList(torch.stack(images), [(32, 32)] * len(images)), targets

    pyramid, net.fcos.backbone = net.fcos.backbone, Maps()
    net.fcos.transform = Kept()
    theirs = net.fcos.train()(list(batch["image"]), targets)
    assert set(theirs) == {"classification", "bbox_regression", "bbox_ctrness"}
    torch.testing.assert_close(parts["classification"], theirs["classification"])
    torch.testing.assert_close(sum(parts.values()), sum(theirs.values()))


def test_losses__classification_is_of_the_classes_alone_and_localisation_of_the_boxes(built: Detector) -> None:
    batch = batch_of(scenes())
    seen = built.net(batch["image"])
    before = built.net.losses(seen, boxes_of(batch))

    def after(name: str) -> dict[str, torch.Tensor]:
        changed = seen._replace(outputs={**seen.outputs, name: seen.outputs[name] + 0.3})
        return built.net.losses(changed, boxes_of(batch))

    for name, changes, stays in (
        ("cls_logits", "classification", "localisation"),
        ("bbox_regression", "localisation", "classification"),
        ("bbox_ctrness", "localisation", "classification"),
    ):
        assert after(name)[changes] != before[changes]
        assert after(name)[stays] == before[stays]


def test_boxes__are_cut_at_the_edges_and_left_out_without_area_or_class() -> None:
    place = [[-3.0, 2.0, 5.0, 40.0], [4.0, 4.0, 4.0, 9.0], [33.0, 0.0, 50.0, 9.0], [1.0, 2.0, 3.0, 4.0], [0.0] * 4]
    targets = {"kind": torch.tensor([[2, 1, 1, 0, -1]]), "box": torch.tensor([place])}
    (found,) = boxes_of({"image": torch.zeros(1, 3, 30, 32), "targets": targets})
    assert found["boxes"].tolist() == [[0.0, 2.0, 5.0, 30.0], [1.0, 2.0, 3.0, 4.0]]
    assert found["labels"].tolist() == [2, 0]


def test_losses__an_image_without_a_box_has_one_too(built: Detector) -> None:
    images = torch.rand(2, 3, 32, 32)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    losses = built.net.losses(built.net(images), [empty, empty])
    assert losses["localisation"] == 0 < losses["classification"]


# Training and figures


def test_held_out__losses_and_figures_touch_neither_weights_nor_random_numbers(tmp_path: Path) -> None:
    module, data = detector(drop_path=0.5), scenes()
    fit(module, tmp_path, data=data)
    module.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    random = torch.get_rng_state()
    runner = trainer(tmp_path)
    (first, _) = runner.validate(module, datamodule=data, verbose=False)
    (again, _) = runner.validate(module, datamodule=data, verbose=False)
    assert first == again
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(value, buffers[name]) for name, value in module.named_buffers())
    (tested, _) = runner.test(module, datamodule=data, verbose=False)
    names = {"loss", "loss_classification", "loss_localisation", "map", "ap50", "ap75"}
    assert {name.removeprefix("test/") for name in tested} == names
    assert {name.replace("test", "val"): value for name, value in tested.items()} == first
    assert first["val/loss"] == pytest.approx(first["val/loss_classification"] + first["val/loss_localisation"])


def test_figures__are_those_of_the_boxes_that_are_found(built: Detector, tmp_path: Path, monkeypatch: Any) -> None:
    def right_at_first(seen: HeadOutputs) -> list[dict[str, torch.Tensor]]:
        """The main shapes exactly, and the others not at all."""
        mains = [{name: value[:1] for name, value in one.items()} for one in truths.pop(0)]
        return [{**one, "scores": torch.ones(1)} for one in mains]

    data = scenes()
    data.setup("fit")
    truths = [boxes_of(batch) for batch in data.val_dataloader()[0]]
    images = [one for batch in truths for one in batch]
    monkeypatch.setattr(built.net, "detections", right_at_first)
    (figures, _) = trainer(tmp_path).validate(built, datamodule=data, verbose=False)
    recalls = []
    for kind in range(8):
        here = [one["labels"] == kind for one in images]
        if total := sum(int(is_kind.sum()) for is_kind in here):
            recalls.append(sum(int(is_kind[0]) for is_kind in here) / total)
    # precision is 1 up to that recall, and read at 101 recalls
    expected = sum((int(recall * 100 + 1e-9) + 1) / 101 if recall else 0 for recall in recalls) / len(recalls)
    for name in ("map", "ap50", "ap75"):
        assert figures[f"val/{name}"] == pytest.approx(expected, abs=1e-5)


def test_detector__learns_a_handful_of_scenes(tmp_path: Path) -> None:
    data = scenes(train_images=4, image_size=32, batch_size=4)
    data.setup("fit")
    data.held_out = data.bank = data.train
    module = detector(architecture=tiny(32, 2), width=32, optim=Optim(0.32, warmup_epochs=5))
    fit(module, tmp_path, data=data)
    (before, _) = trainer(tmp_path).validate(module, datamodule=data, verbose=False)
    fit(module, tmp_path, 60, data, check_val_every_n_epoch=60, num_sanity_val_steps=0)
    (after, _) = trainer(tmp_path).validate(module, datamodule=data, verbose=False)
    assert after["val/loss_classification"] < 0.5 * before["val/loss_classification"]
    assert after["val/loss_localisation"] < 0.8 * before["val/loss_localisation"]
    assert after["val/map"] > before["val/map"] + 0.1
    predicted = module.eval().predict_step(batch_of(data), 0)
    assert predicted["box"].shape == (4, 100, 4)
    assert (predicted["kind"] == -1).equal(predicted["score"] == 0)
    best = predicted["box"][:, 0], torch.stack([one["boxes"][0] for one in boxes_of(batch_of(data))])
    assert box_iou(*best).diagonal().mean() > 0.5, "the surest is the main shape"


def test_frozen__the_backbone_stays_as_it_is_and_gets_no_gradient(teacher_card: Path, tmp_path: Path) -> None:
    module = detector(weights="tiny_teacher", frozen=True)
    fit(module, tmp_path, epochs=2)
    assert not module.train().backbone.training
    assert not any(parameter.requires_grad for parameter in module.backbone.parameters())
    stored = weights.read(teacher_card.with_suffix(".safetensors")).state
    own = module.backbone.vit.state_dict()
    assert all(torch.equal(own[name], value) for name, value in stored.items() if name.startswith("blocks."))
    assert dict(module.summary())["reads"] == "frozen features, block 3"
    assert dict(module.summary())["positions"] == "resampled from 4x4 patches to 8x8"


def test_parameters__every_trained_one_is_reached_and_layer_decay_is_the_backbones(tmp_path: Path) -> None:
    module = detector(optim=Optim(0.1, layer_decay=0.5, warmup_epochs=0), blocks=2, drop_path=0.1)
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(module, datamodule=scenes())
    assert module.backbone.depth == 2
    module.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    module.train().training_step(batch_of(scenes()), 0).backward()
    assert [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None] == []
    names = {id(p): name for name, p in module.net.named_parameters()}
    scales = {names[id(p)]: group["lr_scale"] for group in runner.optimizers[0].param_groups for p in group["params"]}
    assert {scale for name, scale in scales.items() if name.startswith("fcos.")} == {1.0}
    assert scales["backbone.vit.blocks.0.attn.qkv.weight"] == 0.5**2
    assert scales["backbone.vit.pos_embed"] == 0.5**3


# Checkpoints


class Stops(pl.Callback):
    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer.should_stop = True


def test_resume__gives_the_weights_of_going_through(tmp_path: Path) -> None:
    def run(*callbacks: pl.Callback, **options: Any) -> tuple[Detector, pl.Trainer]:
        module = detector(drop_path=0.3)
        runner = trainer(tmp_path, max_epochs=2, callbacks=[ExactResume(0), *callbacks], num_sanity_val_steps=0)
        runner.fit(module, datamodule=scenes(scale=(0.4, 1.0)), **options)
        return module, runner

    whole, _ = run()
    part, runner = run(Stops())
    runner.save_checkpoint(tmp_path / "part.ckpt")
    again, _ = run(ckpt_path=tmp_path / "part.ckpt")
    assert any(not torch.equal(value, whole.state_dict()[name]) for name, value in part.state_dict().items())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


def test_checkpoint__is_what_its_recipe_promised_and_other_kinds_are_refused(tmp_path: Path) -> None:
    module = detector()
    runner = trainer(tmp_path, max_epochs=0)
    runner.fit(module, datamodule=scenes())
    runner.save_checkpoint(tmp_path / "detector.ckpt")
    record = weights.read(tmp_path / "detector.ckpt").record
    fresh = detector(num_classes=8)
    assert fresh.problems(32) == []
    assert plain(fresh.checkpoint_record(), "a record") == record
    assert record["detector"] == {"classes": 8, "scales": [1.0, 0.5], "width": 32, "convolutions": 1}
    stored, _, _ = weights.load(tmp_path / "detector.ckpt")
    assert torch.equal(stored.vit.pos_embed, module.backbone.vit.pos_embed)
    with pytest.raises(TinymimError, match=r"its decoder is .*'convolutions': 1.*'convolutions': 2"):
        trainer(tmp_path).fit(detector(convolutions=2), datamodule=scenes(), ckpt_path=tmp_path / "detector.ckpt")
    classifier = Classifier(architecture=tiny(24, 3, img_size=32))
    with pytest.raises(TinymimError, match="is a Detector's, and the recipe trains a Classifier's"):
        trainer(tmp_path).fit(classifier, datamodule=scenes(), ckpt_path=tmp_path / "detector.ckpt")


# Mistakes


@pytest.mark.parametrize(
    ("options", "size", "words"),
    [
        ({"width": 48}, 32, "width: 48 is no multiple of 32"),
        ({"width": 0}, 32, "width: 0"),
        ({"convolutions": 0}, 32, "convolutions: 0"),
        ({"scales": [1, 2]}, 32, "scales: [1.0, 2.0] is not one or more neighbours of 4, 2, 1, 0.5"),
        ({"scales": [2, 0.5]}, 32, "scales: [2.0, 0.5] is not one or more neighbours"),  # boxes in between have no map
        ({"scales": []}, 32, "scales: []"),
        ({"scales": [3]}, 32, "scales: [3.0]"),
        ({"scales": [4], "architecture": tiny(24, 3, patch_size=6)}, 36, "scales: 4 parts the backbone's patches of 6"),
        ({}, 20, "scales: 0.5 halves the grid of patches, 5 a side"),
        ({}, 18, "data.image_size: 18 is no multiple"),
        ({"drop_path": 1.0}, 32, "drop_path: 1.0"),
        ({"drop_path": 0.1, "frozen": True}, 32, "drop_path: 0.1 has no effect on a frozen backbone"),
        ({"blocks": 4}, 32, "blocks: 4 is outside the backbone, which has blocks 1 to 3"),
        ({"architecture": None}, 32, "no architecture to start from scratch"),
    ],
)
def test_problems__each_names_its_option(options: dict[str, Any], size: int, words: str) -> None:
    (found,) = detector(**options).problems(size)
    assert words in found


def test_problems__all_at_once_with_data_that_has_no_boxes(tmp_path: Path) -> None:
    with pytest.raises(TinymimError) as said:
        fit(detector(width=48, convolutions=0), tmp_path, data=NoiseData())
    for words in ("width: 48", "convolutions: 0", "these images have no boxes; use ShapesData with data.scene: true"):
        assert words in str(said.value)


def test_figures__of_held_out_images_without_boxes_are_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(
        "tinymim.tasks.detection.boxes_of", lambda batch: [_no_boxes(image) for image in batch["image"]]
    )
    with pytest.raises(TinymimError, match="the held-out images have no boxes, so there is no val/map"):
        fit(detector(), tmp_path, epochs=1)


def _no_boxes(image: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"boxes": image.new_zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}


def test_figures__of_a_process_without_held_out_images_are_refused_in_all(built: Detector, monkeypatch: Any) -> None:
    monkeypatch.setattr(built, "trainer", SimpleNamespace(world_size=2, sanity_checking=False), raising=False)
    monkeypatch.setattr(built, "all_gather", lambda count: torch.stack([count, torch.tensor(3)]))
    with pytest.raises(TinymimError, match="a process of 2 had no held-out image"):
        built.on_validation_epoch_end()
