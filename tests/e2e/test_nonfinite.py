"""Faults on real digits: the run stops or goes back, and the captured step is run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from tests.commands import refused, spawned, tinymim
from tinymim.cli.main import main
from tinymim.data.sampler import EpochSampler

SHORT = ["--trainer.max_epochs", "2", "--data.batch_size", "16"]
SHORT += ["--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "1"]

ROOT = """
from tinymim.targets import Relation

class Root(Relation):
    def forward(self, teacher, student):
        tokens = next(iter(student.values()))
        apart = (tokens - tokens.detach()).square().sum()
        return {**super().forward(teacher, student), "root": apart.sqrt()}
"""

POISON = """
from tinymim.data import DigitsData

class Poisoned(DigitsData):
    def prepare(self):
        super().prepare()
        self.train.images[{index}] = float("nan")
"""


def replay(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Replay in this process, and give back what it printed."""
    capsys.readouterr()
    assert main(["replay", *map(str, arguments)]) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def rooted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that a target with an infinite gradient, and a finite loss, has stopped at its first step."""
    place = tmp_path_factory.mktemp("root")
    (place / "root_target.py").write_text(ROOT)
    target = "--model.init_args.targets=[{class_path: root_target.Root}]"
    overrides = (target, *SHORT, "--data.batch_size", "4", "--trainer.precision", "32-true", "--run_dir", place / "run")
    result = tinymim("fit", "--config", "relation_digits", *overrides, PYTHONPATH=str(place))
    refused(
        result, "the loss is finite, but the gradients", "at step 1 (epoch 1)", "step_1.pt", "--on_nonfinite rewind"
    )
    assert "no checkpoint had been written yet" in result.stderr
    assert not (place / "run" / "checkpoints").exists()
    return place


def test_replay__finds_the_operation_whose_gradient_is_not_finite(
    rooted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(rooted))
    monkeypatch.setenv("COLUMNS", "160")
    captured = rooted / "run" / "nonfinite" / "step_1.pt"
    assert main(["replay", str(captured)]) == 1
    assert "root_target.Root cannot be imported (it is none of tinymim's own" in capsys.readouterr().err
    said = replay(capsys, captured, "--trust")
    assert "train/loss_root_root" in said
    assert "all finite in the forward pass" in said
    assert "student.vit.blocks.5.attn.qkv.bias" in said
    assert f"called in forward, {rooted / 'root_target.py'}:7" in said
    assert said.splitlines()[-1] == "reproduced: the gradients are not finite again"


def test_replay__says_when_the_fault_is_gone(rooted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mended = "--model.init_args.targets=[{class_path: tinymim.targets.Relation}]"
    said = replay(capsys, rooted / "run" / "nonfinite" / "step_1.pt", mended, "--precision", "bf16-mixed")
    assert "bf16-mixed instead of 32-true" in said
    assert said.splitlines()[-1].startswith("not reproduced: the gradients had been")


def test_replay__stores_nothing_where_a_capture_says(
    rooted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYMIM_TEACHER_CACHE", str(tmp_path / "own"))
    content = torch.load(rooted / "run" / "nonfinite" / "step_1.pt", weights_only=True)
    recipe = yaml.safe_load(content["recipe"])
    options = recipe["model"]["init_args"]
    options |= {"teacher_cache": 2, "targets": [{"class_path": "tinymim.targets.Relation"}]}
    for place in (str(tmp_path / "theirs"), None):
        options["teacher_cache_dir"] = place
        torch.save({**content, "recipe": yaml.safe_dump(recipe)}, tmp_path / "step_1.pt")
        assert replay(capsys, tmp_path / "step_1.pt").splitlines()[-1].startswith("not reproduced")
        assert [path.name for path in tmp_path.iterdir()] == ["step_1.pt"]


def test_replay__refuses_what_it_cannot_run(rooted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captured = str(rooted / "run" / "nonfinite" / "step_1.pt")
    content = torch.load(captured, weights_only=True)
    torch.save({**content, "teacher": "0" * 64}, tmp_path / "other.pt")
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    (tmp_path / "text.pt").write_text("no archive")
    relation = "--model.init_args.targets=[{class_path: tinymim.targets.Relation}]"
    for arguments, words in (
        ([str(tmp_path / "none.pt")], "there is no file at"),
        ([str(tmp_path / "text.pt")], "cannot be read as a capture"),
        ([str(tmp_path / "last.ckpt")], "is no captured step"),
        ([str(tmp_path / "other.pt"), relation], "the step ran with weights of sha256 000"),
        ([captured, relation, "--model.teacher", "mae_vitb16"], "mae_pretrain_vit_base.pth"),
        ([captured, relation, "--model.student.options.embed_dim", "24"], "do not fit these overrides"),
        ([captured, relation, "--model.optim.base_lrr", "1"], "did you mean base_lr?"),
    ):
        assert main(["replay", *arguments]) == 1, words
        assert words in capsys.readouterr().err


def test_rewind__in_two_processes_passes_over_the_bad_step_and_finishes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (list(_epoch(number)) for number in (0, 1))
    # in the second epoch's second step alone, and in the second process, which takes its latter half
    index = next(i for i in second[24:32] if i not in first[: 3 * 16])
    (tmp_path / "poisoned_data.py").write_text(POISON.format(index=index))
    run = tmp_path / "run"
    data = ["--data.class_path", "poisoned_data.Poisoned", "--data.image_size", "32"]
    processes = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "8"]
    processes += ["--trainer.gradient_clip_val", "1"]  # what the message advises
    arguments = ["fit", "-v", "--config", "relation_digits", *data, *SHORT, *processes, "--on_nonfinite", "rewind"]
    result = spawned(*arguments, "--run_dir", run, PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "0.004 x total batch 16 / 256 = 0.00025" in result.stderr
    assert "the loss is not finite at step 5 (epoch 2)" in result.stderr
    last = run / "checkpoints" / "last.ckpt"
    assert f"Going back to {last}, to pass over step 5; rewind 1 of 3" in result.stderr
    results = json.loads((run / "results.json").read_text())
    assert (results["steps"], results["skipped_steps"]) == (6, [5])
    assert results["metrics"]["train/loss"] < 2
    content = torch.load(last, weights_only=True)
    assert content["global_step"] == 6
    assert all(tensor.isfinite().all() for tensor in content["state_dict"].values())
    assert [path.name for path in (run / "nonfinite").glob("*.pt")] == ["step_5_rank1.pt"]
    monkeypatch.syspath_prepend(str(tmp_path))
    replayed = replay(capsys, run / "nonfinite" / "step_5_rank1.pt")
    assert f"not finite in the samples with index {index}" in replayed
    assert "this is process 1 of 2" in replayed
    assert replayed.splitlines()[-1] == "reproduced: the loss is not finite again"


def _epoch(number: int) -> list[int]:
    sampler = EpochSampler(1437, seed=0)
    sampler.set_epoch(number)
    return [draw.index for draw in sampler]


def test_on_nonfinite__is_checked_with_the_rest_of_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["--on_nonfinite", "rewnd", "--max_rewinds", "many"]
    assert main(["check", "relation_digits", *overrides]) == 1
    said = capsys.readouterr().err
    assert "on_nonfinite: 'rewnd' is not one of stop, rewind" in said
    assert "max_rewinds: 'many' is not a whole number" in said
    assert main(["check", "relation_digits", "--on_nonfinite", "rewind", "--trainer.strategy", "ddp_spawn"]) == 1
    assert "cannot restart the processes of strategy ddp_spawn" in capsys.readouterr().err
