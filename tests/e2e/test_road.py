"""A practitioner's whole road, by the README's commands: JPEGs and a teacher's file in, a timm ViT-T out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import timm
import torch
from PIL import Image

from tests.commands import PROJECT, tinymim
from tinymim.teachers import weights
from tinymim.vit.taps import LOGITS, Tap

SHORT = ["--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1", "--trainer.num_sanity_val_steps", "0"]
SHORT += ["--data.batch_size", "4", "--data.num_workers", "1"]


class Road:
    """Commands that run in a user's folder."""

    def __init__(self, place: Path):
        self.place = place
        self.said: dict[str, str] = {}
        (place / "teachers").mkdir()

    def __call__(self, *arguments: str | Path) -> str:
        environment = {"TINYMIM_TEACHERS": str(self.place / "teachers"), "PYTHONPATH": str(PROJECT)}
        done = tinymim(*arguments, cwd=self.place, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """Images and teacher in; distilled, fine-tuned."""
    road = Road(tmp_path_factory.mktemp("road"))
    photographs(road.place / "images")
    mae_file(road.place / "teachers" / "mae_pretrain_vit_base.pth")
    images = ["--data.root", road.place / "images", *SHORT]
    road.said["fit"] = road("fit", "--config", "relation_vitt", *images)
    start = ["--model.weights", "runs/relation_vitt/checkpoints/last.ckpt"]
    road.said["finetune"] = road("fit", "--config", "finetune_vitt", *start, *images)
    return road


def photographs(folder: Path) -> None:
    """Two classes of 500x400 pictures, in ImageNet's layout."""
    random = np.random.default_rng(0)
    for split, each in (("train", 5), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            for i in range(each):
                coarse = random.integers(0, 128, (8, 10, 3), dtype=np.uint8) + np.uint8(100 * label)
                picture = Image.fromarray(coarse).resize((500, 400), Image.Resampling.BICUBIC)
                picture.save(folder / split / name / f"{i}.jpg", quality=90)


def mae_file(path: Path) -> None:
    """Random weights as MAE's own file for ViT-B has them: under ``model``, the encoder and some of the decoder.

    All its blocks are alike, as drawing each takes seconds.
    """
    torch.manual_seed(0)
    state = timm.create_model("vit_base_patch16_224", num_classes=0, depth=1).state_dict()
    first = {name.removeprefix("blocks.0."): value for name, value in state.items() if name.startswith("blocks.0.")}
    state |= {f"blocks.{number}.{name}": value for number in range(1, 12) for name, value in first.items()}
    state |= {"mask_token": torch.zeros(1, 1, 512), "decoder_embed.weight": torch.zeros(512, 768)}
    state |= {"decoder_pos_embed": torch.zeros(1, 197, 512), "decoder_pred.bias": torch.zeros(768)}
    torch.save({"model": {name: value.half() for name, value in state.items()}}, path)


def test_the_teachers_origin_is_kept(road: Road) -> None:
    results = json.loads((road.place / "runs" / "relation_vitt" / "results.json").read_text())
    assert "mae_vitb16" in road.said["fit"]
    for words in ("mae_pretrain_vit_base.pth", "missing 0", "decoder", "CC-BY-NC-4.0"):
        assert words in results["weights"]
    assert results["steps"] == 2
    assert "val/knn_top1" in results["metrics"]


def test_what_was_fine_tuned_can_be_tested(road: Road) -> None:
    said = road("test", "--config", "runs/finetune_vitt/config.yaml", "--ckpt_path", "last")
    results = json.loads((road.place / "runs" / "finetune_vitt" / "results.json").read_text())
    top1 = results["metrics"]["val/top1"]
    assert top1 in (0.0, 0.25, 0.5, 0.75, 1.0)  # of four images
    assert "top1" in said
    assert f"{top1:.6f}" in said


def test_the_student_opens_in_timm(road: Road) -> None:
    """Its features there are the student's here, normalisation included."""
    checkpoint = road.place / "runs" / "relation_vitt" / "checkpoints" / "last.ckpt"
    said = road("export", checkpoint, "--to", "timm", "--out", "student")
    assert "WARNING: licence CC-BY-NC-4.0: not for commercial use" in said
    assert "cc-by-nc-4.0" in (road.place / "student" / "README.md").read_text()
    student, _, _ = weights.load(checkpoint)
    images = torch.rand(2, 3, 224, 224)
    network = timm.create_model(f"local-dir:{road.place / 'student'}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(network)
    mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        expected = student.eval().features(images)
        tokens = network.forward_features((images - mean) / std)
    torch.testing.assert_close(tokens[:, network.num_prefix_tokens :].mean(1), expected, atol=1e-5, rtol=0)
    assert sum(p.numel() for p in network.parameters()) > 4e6


def test_what_was_fine_tuned_classifies_in_timm(road: Road) -> None:
    checkpoint = road.place / "runs" / "finetune_vitt" / "checkpoints" / "last.ckpt"
    road("export", checkpoint, "--to", "timm", "--out", "classifier")
    network = timm.create_model(f"local-dir:{road.place / 'classifier'}", pretrained=True).eval()
    backbone, _, _ = weights.load(checkpoint, classifier=True)
    config = timm.data.resolve_model_data_config(network)
    mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    images = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        (expected,) = backbone.eval().read(images, [Tap(backbone.depth, LOGITS)]).values()
        torch.testing.assert_close(network((images - mean) / std), expected, atol=1e-5, rtol=0)


def test_features_of_a_folder(road: Road) -> None:
    checkpoint = road.place / "runs" / "relation_vitt" / "checkpoints" / "last.ckpt"
    road("predict", checkpoint, "--images", road.place / "images" / "val", "--out", "features.parquet")
    table = pyarrow.parquet.read_table(road.place / "features.parquet")
    assert table.column("path").to_pylist() == ["cat/0.jpg", "cat/1.jpg", "dog/0.jpg", "dog/1.jpg"]
    assert np.array(table.column("features").to_pylist()).shape == (4, 192)
