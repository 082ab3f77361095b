"""Fine-tune, distil its logits, fine-tune DeiT-style from it: the real command on digits, in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.commands import tinymim
from tinymim import files
from tinymim.teachers import weights

SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]
SHORT += ["--data.batch_size=16", "--trainer.precision=32-true", "--trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def said(runs: Path) -> dict[str, Any]:
    """For each command its exit code, and what it wrote to stderr."""
    last = {name: str(runs / name / "checkpoints" / "last.ckpt") for name in ("teacher", "star", "hard")}
    taught = ["--model.deit.teacher", last["teacher"]]
    fits = {
        "teacher": ["finetune_digits", "--model.weights", "digits_mae"],
        "logits": ["logits_digits", "--model.teacher", last["teacher"]],
        "star": ["relation_star_digits"],
        "hard": ["finetune_star_digits", *taught, "--model.weights", last["star"], "--model.head_layout", "uniform"],
        "soft": ["finetune_star_digits", *taught, "--model.deit.kind", "soft", "--model.mixup", "0.8"],
        "no teacher": ["logits_digits"],
        "no classifier": ["logits_digits", "--model.teacher", "digits_mae"],
        "no token": ["finetune_digits", f"--model.deit={{teacher: {last['teacher']}}}"],
    }
    commands = {
        name: ["fit", "-v", "--config", recipe, *SHORT, *arguments, "--run_dir", str(runs / name)]
        for name, (recipe, *arguments) in fits.items()
    }
    predict = ["predict", "--config", "finetune_star_digits", *taught, "--ckpt_path", last["hard"]]
    commands["predict"] = [*predict, "--run_dir", str(runs / "predict")]
    said = {}
    for name, arguments in commands.items():
        result = tinymim(*arguments)
        said[name] = (result.returncode, " ".join(result.stderr.split()))
    return said


def record(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)[weights.RECORD]


def test_fit__a_fine_tuned_checkpoint_gives_its_logits(said: dict[str, Any], runs: Path) -> None:
    for name in ("teacher", "logits"):
        assert said[name][0] == 0, said[name][1]
    assert record(runs / "teacher")["classifier"] == {"classes": 10, "pool": "mean", "neck": 0, "norm": "layer"}
    assert "10 classes, temperature 3 (loss x T²): logits -> mean patch token of block 6" in said["logits"][1]
    assert "train/loss_logits" in (runs / "logits" / "metrics.csv").read_text()
    taught = files.sha256(runs / "teacher" / "checkpoints" / "last.ckpt")
    assert record(runs / "logits")["teacher"]["sha256"] == taught


def test_fit__a_star_student_is_distilled_and_fine_tuned_deit_style(said: dict[str, Any], runs: Path) -> None:
    for name in ("star", "hard", "soft"):
        assert said[name][0] == 0, said[name][1]
    taught = files.sha256(runs / "teacher" / "checkpoints" / "last.ckpt")
    for name in ("hard", "soft"):
        assert f"{name} distillation, weight 0.5: vit_tiny_patch16_224: width 192, depth 6" in said[name][1]
        assert "CLS and distillation token, neck of 320 channels, 10 classes" in said[name][1]
        assert record(runs / name)["deit"] == {"teacher": {"name": "run teacher", "sha256": taught}, "kind": name}
        state = torch.load(runs / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        parts = {key.split(".")[1] for key in state if key.startswith("model.")}
        assert parts == {"backbone", "neck", "norm", "head", "head_dist"}
    assert str(runs / "star" / "checkpoints" / "last.ckpt") in said["hard"][1].replace(" ", ""), "it may be wrapped"
    assert "uniform, 12 in every block; the weights come with 12, 12, 12, 12, 12, 12" in said["hard"][1]
    assert "from scratch" in said["soft"][1]


def test_predict__averages_both_classifiers(said: dict[str, Any], runs: Path) -> None:
    assert said["predict"][0] == 0, said["predict"][1]
    with np.load(runs / "predict" / "predictions.npz") as arrays:
        assert arrays["probabilities"].shape == (360, 10)
        np.testing.assert_allclose(arrays["probabilities"].sum(1), 1, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no teacher", "teacher: none is named"),
        ("no classifier", "logits: the teacher, vit_tiny_patch16_224, has no classifier"),
        ("no token", "vit_tiny_patch16_224 has no distillation token"),
    ],
)
def test_fit__refused_in_a_sentence(name: str, words: str, said: dict[str, Any], runs: Path) -> None:
    code, text = said[name]
    assert code == 1
    assert words in text
    assert "Traceback" not in text
    assert not (runs / name).exists()
