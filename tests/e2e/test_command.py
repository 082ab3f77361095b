"""The real command on real digits and real files: once in a process of its own, then in this one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.commands import PROJECT, refused, spawned, tinymim

FEW = ("--data.fraction", "0.3", "--data.batch_size", "39")
"""Of the demo's images, in as many steps."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of the demo's distillation, of fewer images."""
    folder = tmp_path_factory.mktemp("runs") / "relation"
    short = ("--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "1", *FEW)
    result = spawned("fit", "--config", "relation_digits", *short, "--run_dir", folder)
    assert result.returncode == 0, result.stderr
    return folder


def test_fit__says_what_it_trains_and_keeps_records(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert (results["epochs"], results["steps"]) == (2, 22)
    assert results["metrics"]["val/knn_top1"] > 0.3
    assert "matched 76, missing 0, unexpected 0" in results["weights"]
    environment = json.loads((run / "environment.json").read_text())
    assert environment["git"] == {} or len(environment["git"]["revision"]) == 40
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0]
    recipe = yaml.safe_load((run / "config.yaml").read_text())
    assert recipe["trainer"]["max_epochs"] == 2
    assert recipe["data"]["init_args"]["seed"] == 0, "interpolations are resolved"
    steps = {"step-00000011.ckpt", "step-00000022.ckpt"}
    weights = {path.name for path in (run / "checkpoints").glob("*.ckpt")}
    assert weights == {"best.ckpt", "last.ckpt"} | steps
    assert (run / "checkpoints" / "last.ckpt").readlink() == Path("step-00000022.ckpt")
    assert "train/loss_relation_qk" in (run / "metrics.csv").read_text()
    assert list(run.glob("events.out.*"))


def test_fit__neither_overwrites_nor_resumes_by_accident(run: Path) -> None:
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    refused(
        tinymim("fit", "--config", "relation_digits", "--run_dir", run),
        "--ckpt_path last",
        "--overwrite true",
        "--run_dir",
    )
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before


def test_fit__resumes_where_it_was(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "copy", symlinks=True)
    overrides = ("--trainer.max_epochs", "3", *FEW, "--run_dir", tmp_path / "copy")
    result = tinymim("fit", "--config", "relation_digits", *overrides, "--ckpt_path", "last")
    assert result.returncode == 0, result.stderr
    assert "resuming from" in result.stderr
    assert "epoch 3/3" in result.stderr
    assert "epoch 1/3" not in result.stderr
    results = json.loads((tmp_path / "copy" / "results.json").read_text())
    assert results["steps"] == 33
    assert results["seconds"] > json.loads((run / "results.json").read_text())["seconds"], "earlier pieces count"
    assert (tmp_path / "copy" / "metrics-1.csv").read_text() == (run / "metrics.csv").read_text()


def test_predict__writes_one_row_an_image(run: Path, tmp_path: Path) -> None:
    checkpoint = run / "checkpoints" / "last.ckpt"
    result = tinymim(
        "predict", "--config", "relation_digits", "--ckpt_path", checkpoint, "--run_dir", tmp_path / "predictions"
    )
    assert result.returncode == 0, result.stderr
    with np.load(tmp_path / "predictions" / "predictions.npz") as arrays:
        assert arrays["index"].tolist() == list(range(360))
        assert arrays["features"].shape == (360, 48)


def test_test__repeats_the_figures_of_the_run(run: Path) -> None:
    result = tinymim("test", "--config", "relation_digits", *FEW, "--ckpt_path", run / "checkpoints" / "last.ckpt")
    assert result.returncode == 0, result.stderr
    expected = json.loads((run / "results.json").read_text())["metrics"]["val/knn_top1"]
    assert result.stdout.count(f"{expected:.6f}") == 1, "held-out images and bank share one figure"
    assert json.loads((run / "test.json").read_text())["metrics"]["test/knn_top1"] == pytest.approx(expected)


def test_classifier__reads_another_head_layout_never(run: Path, tmp_path: Path) -> None:
    weights = f"--model.init_args.weights={run / 'checkpoints' / 'last.ckpt'}"
    result = tinymim(
        "fit",
        "--config",
        "finetune_digits",
        weights,
        "--model.init_args.architecture.heads",
        "6",
        "--run_dir",
        tmp_path / "a",
    )
    refused(result, "head layout", "[3, 3, 3, 3, 3, 3]", "[6, 6, 6, 6, 6, 6]")


def test_fit__a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "copy", symlinks=True)
    last = tmp_path / "copy" / "checkpoints" / "last.ckpt"
    (tmp_path / "broken.py").write_text(
        "from tinymim.targets import Relation\n"
        "class Broken(Relation):\n"
        "    steps = 0\n"
        "    def forward(self, teacher, student):\n"
        "        Broken.steps += self.training\n"
        "        factor = float('nan') if Broken.steps > 3 else 1\n"
        "        return {k: v * factor for k, v in super().forward(teacher, student).items()}\n"
    )
    before = last.read_bytes()
    overrides = ("--trainer.max_epochs", "3", *FEW, "--run_dir", tmp_path / "copy", "--ckpt_path", "last")
    result = tinymim(
        "fit",
        "--config",
        "relation_digits",
        "--model.init_args.targets=[{class_path: broken.Broken}]",
        *overrides,
        PYTHONPATH=str(tmp_path),
    )
    refused(result, "not finite at step 26", "last.ckpt", "base_lr")
    assert last.read_bytes() == before


def test_distill__prints_the_table_of_student_and_scratch(tmp_path: Path) -> None:
    recipe = tmp_path / "short.yaml"
    trainer = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    short = {"extends": [], "trainer": trainer, "data": {"init_args": {"batch_size": 16}}}
    for name in ("probe", "finetune"):
        (tmp_path / f"{name}.yaml").write_text(
            yaml.safe_dump({**short, "extends": [os.path.relpath(PROJECT / "recipes" / f"{name}_digits", tmp_path)]})
        )
    compare = {name: str(tmp_path / f"{name}.yaml") for name in ("probe", "finetune")}
    base = os.path.relpath(PROJECT / "recipes" / "relation_digits", tmp_path)
    recipe.write_text(yaml.safe_dump({**short, "extends": [base], "compare": compare}))
    result = tinymim("distill", recipe, "--run_dir", tmp_path / "demo")
    assert result.returncode == 0, result.stderr
    for word in ("10-NN", "linear probe", "fine-tuned", "parameters", "seconds", "short", "from scratch", "175,248"):
        assert word in result.stdout
    assert str(tmp_path / "demo") in result.stdout.replace("\n", "")
    again = tinymim("distill", recipe, "--run-dir", tmp_path / "demo")
    assert again.returncode == 0, again.stderr
    assert "epoch" not in again.stderr, "finished runs are kept"
    assert again.stdout == result.stdout


def test_resume__refused_leaves_the_records_as_they_were(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, symlinks=True)
    before = (copy / "config.yaml").read_bytes()
    overrides = ("--model.student.options.num_heads", "6", "--ckpt_path", "last", "--run_dir", copy)
    refused(tinymim("fit", "--config", "relation_digits", *overrides), "head layout", "[3, 3, 3, 3, 3, 3]")
    assert (copy / "config.yaml").read_bytes() == before
    (tmp_path / "metrics.csv").touch()
    elsewhere = ("--ckpt_path", run / "checkpoints" / "last.ckpt", "--run_dir", tmp_path)
    refused(tinymim("fit", "--config", "relation_digits", *elsewhere), "holds a run already", "--overwrite true")


def test_checkpoint__of_another_kind_or_of_random_weights_is_refused(run: Path) -> None:
    checkpoint = run / "checkpoints" / "last.ckpt"
    refused(tinymim("test", "--config", "finetune_digits", "--ckpt_path", checkpoint), "a Distiller's", "model.weights")
    refused(tinymim("predict", "--config", "relation_digits", "--run_dir", run), "weights are random")


def test_probe__is_tested_from_its_own_checkpoint(run: Path, tmp_path: Path) -> None:
    weights = ("--model.weights", run / "checkpoints" / "last.ckpt", "--trainer.max_epochs", "1", *FEW)
    weights += ("--run_dir", tmp_path / "p")
    assert tinymim("fit", "--config", "probe_digits", *weights).returncode == 0
    checkpoint = tmp_path / "p" / "checkpoints" / "last.ckpt"
    result = tinymim("test", "--config", "probe_digits", *FEW, "--ckpt_path", checkpoint)
    assert result.returncode == 0, result.stderr
    expected = json.loads((tmp_path / "p" / "results.json").read_text())["metrics"]["val/top1"]
    assert f"{expected:.6f}" in result.stdout


def test_check__reports_sizes_speed_and_time() -> None:
    result = tinymim("check", "relation_digits", "--data.batch_size", "32")
    assert result.returncode == 0, result.stderr
    said = " ".join(result.stderr.split())
    for word in (
        "width 192, depth 6, heads 6",
        "width 48, depth 6, heads 3",
        "6 heads of 32 -> 6 heads of 8",
        "block 6 -> 6",
        "block 5 of 6",
        "that the loss cannot reach",
        "images/s",
        "for the whole run",
        "GiB",
    ):
        assert word in said, said
    assert not (PROJECT / "runs" / "relation_digits" / "config.yaml").exists() or "holds a run" not in said


def test_check__lists_every_mistake_at_once() -> None:
    refused(
        tinymim(
            "check",
            "relation_digits",
            "--trainer.max_epoch=3",
            "--model.init_args.optim.base_lrr=1",
            "--model.init_args.teacher=digits_mea",
            "--data.init_args.batch_size=many",
        ),
        "4 mistakes",
        "trainer.max_epoch: no such option",
        "did you mean max_epochs?",
        "did you mean base_lr?",
        "no card 'digits_mea'; near it: digits_mae",
        "data.init_args.batch_size: 'many' is not a whole number",
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "--model.init_args.targets=[{class_path: tinymim.targets.Relation, init_args: {heads: 5}}]",
            ("heads: 5", "1, 2, 3"),
        ),
        (
            "--model.init_args.targets=[{class_path: tinymim.targets.CLS, init_args: {teacher_block: 7}}]",
            ("teacher_block: 7 is out of range", "1 to 6"),
        ),
    ],
    ids=["indivisible heads", "target block out of range"],
)
def test_fit__refuses_what_cannot_be_aligned(override: str, words: tuple[str, ...], tmp_path: Path) -> None:
    refused(tinymim("fit", "--config", "relation_digits", override, "--run_dir", tmp_path / "a"), *words)
    assert not (tmp_path / "a").exists(), "nothing is written before the recipe is right"


def test_fit__refuses_a_damaged_teacher(tmp_path: Path) -> None:
    card = yaml.safe_load((PROJECT / "teachers" / "digits_mae.yaml").read_text())
    data = (PROJECT / "teachers" / "digits_mae.safetensors").read_bytes()
    arguments = ("fit", "--config", "relation_digits", "--run_dir", tmp_path / "a", "--model.init_args.teacher")
    (tmp_path / "digits_mae.safetensors").write_bytes(data[: len(data) // 2])
    (tmp_path / "sum.yaml").write_text(yaml.safe_dump(card))
    refused(tinymim(*arguments, tmp_path / "sum.yaml"), "sha256", card["sha256"], "make teacher")
    (tmp_path / "nosum.yaml").write_text(yaml.safe_dump({**card, "sha256": None}))
    refused(tinymim(*arguments, tmp_path / "nosum.yaml"), "digits_mae.safetensors is truncated or not a weights file")


def test_fit__refuses_an_unwritable_run_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(tinymim("fit", "--config", "relation_digits", "--run_dir", tmp_path / "file" / "run"), "cannot be written")


def test_fit__without_images_or_teacher_says_where_to_get_both() -> None:
    result = tinymim("fit", "relation_vitt", IMAGENET="")
    refused(result, "data.root", "mae_pretrain_vit_base.pth", "tinymim distill relation_digits")


def test_fit__unknown_recipe_gives_the_nearest_names() -> None:
    refused(tinymim("fit", "--config", "relation_digit"), "unknown recipe 'relation_digit'", "relation_digits")


def test_teachers__lists_cards_and_what_is_missing() -> None:
    result = tinymim("teachers", COLUMNS="120")
    assert result.returncode == 0
    assert "digits_mae" in result.stdout
    assert "present" in result.stdout
    assert "CC-BY-NC-4.0" in result.stdout


def test_help__loads_nothing_heavy() -> None:
    code = "import sys; from tinymim.cli.main import main; main([]); sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    for word in ("fit", "validate", "test", "predict", "distill", "study", "check", "replay", "teachers"):
        assert word in result.stdout


def test_make_help__lists_targets_and_says_what_lists_recipes() -> None:
    said = subprocess.run(["make", "help"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert "tinymim recipes" in said
    assert "study-digits" in said
