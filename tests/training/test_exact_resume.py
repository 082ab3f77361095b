"""A run that is cut off, anywhere, and resumed ends with the bits of one that never stopped."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tinymim.cli.main import main
from tinymim.targets import Relation
from tinymim.training.preemption import Preempted
from tinymim.vit.taps import Readings


class Ends(Relation):
    """Sends this process SIGTERM in the forward pass called END: a number in training, v and a number elsewhere."""

    end = ""
    passes: dict[str, int] = {}

    def forward(self, teacher: Readings, student: Readings) -> dict[str, torch.Tensor]:
        kind = "" if self.training else "v"
        Ends.passes[kind] = Ends.passes.get(kind, 0) + 1
        if f"{kind}{Ends.passes[kind]}" == Ends.end:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(teacher, student)


TARGET = f"--model.targets=[{{class_path: {__name__}.Ends}}]"
SHORT = ["--trainer.max_epochs=3", "--trainer.limit_train_batches=4", "--trainer.limit_val_batches=2"]
SHORT += ["--trainer.check_val_every_n_epoch=2", "--trainer.num_sanity_val_steps=0", "--data.batch_size=16"]
SHORT += ["--trainer.enable_progress_bar=false", "--trainer.logger=false", "--model.drop_path=0.3"]


def fit(run: Path, *arguments: str, end: str = "", config: str = "relation_digits") -> int:
    """The exit code of a fit of 12 steps, validated after 8 and 12."""
    Ends.end, Ends.passes = end, {}
    return main(["fit", "--config", config, *SHORT, "--run_dir", str(run), *arguments])


def state(run: Path) -> dict[str, torch.Tensor]:
    """Weights and the optimiser's moments."""
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    moments = content["optimizer_states"][0]["state"]
    return {
        **content["state_dict"],
        **{f"{number} {name}": tensor for number, kept in moments.items() for name, tensor in kept.items()},
    }


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert fit(run, TARGET) == 0
    return run


# steps 4 and 8 end epochs, 8 and 12 are validated; v2 is in the first validation
@pytest.mark.parametrize(("end", "step"), [("1", 1), ("4", 4), ("6", 6), ("8", 8), ("v2", 8), ("12", 12)])
def test_fit__ended_by_a_signal_goes_on_bit_for_bit(whole: Path, tmp_path: Path, end: str, step: int) -> None:
    run = tmp_path / "run"
    assert fit(run, TARGET, end=end) == Preempted.code
    progress = json.loads((run / "progress.json").read_text())
    assert (progress["state"], progress["step"], progress["steps"]) == ("preempted", step, 12)
    assert fit(run, TARGET, "--ckpt_path", "last") == 0
    assert_same(state(run), state(whole))
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["ckpt_path"] is None, "which would follow the recipe into other folders"
    expected = json.loads((whole / "results.json").read_text())["metrics"]
    results = json.loads((run / "results.json").read_text())["metrics"]
    assert results == {name: expected[name] for name in results}
    assert "val/knn_top1" in results
    assert json.loads((run / "progress.json").read_text())["state"] == "done"


def test_fit__cut_off_without_warning_goes_on_from_its_last_step(whole: Path, tmp_path: Path, monkeypatch) -> None:
    run = tmp_path / "run"

    def killed(*_: Any) -> None:
        if Ends.passes.get("") == 6:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("tinymim.methods.distillation.Distiller.on_train_batch_start", killed)
        with pytest.raises(RuntimeError, match="killed"):
            fit(run, TARGET, "--checkpoint.every_steps", "1", "--checkpoint.keep", "3")
    kept = sorted(path.name for path in (run / "checkpoints").glob("step-*.ckpt"))
    assert kept == ["step-00000004.ckpt", "step-00000005.ckpt", "step-00000006.ckpt"]
    data = run / "checkpoints" / "step-00000006.ckpt"
    data.write_bytes(data.read_bytes()[:-1])
    assert fit(run, TARGET, "--ckpt_path", "last", "--data.num_workers", "1") == 0, "from step 5, and with a worker"
    assert_same(state(run), state(whole))


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ("masked_mae_digits", []),
        (
            "finetune_digits",
            ["--model.mixup=0.8", "--model.cutmix=1.0", "--model.label_smoothing=0.1", "--model.ema=0.5"],
        ),
        ("probe_digits", []),
    ],
)
def test_fit__random_masks_mixing_and_modes_go_on_as_well(
    tmp_path: Path, config: str, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit(tmp_path / "whole", *options, config=config) == 0
    from tinymim.data.digits import Digits

    read, calls = Digits.__getitems__, []

    def ends(self: Digits, draws: Any) -> Any:
        calls.append(self.seed)
        if calls.count(0) == 6:  # of the augmented set: in the sixth batch
            os.kill(os.getpid(), signal.SIGUSR1)
        return read(self, draws)

    with monkeypatch.context() as patch:
        patch.setattr(Digits, "__getitems__", ends)
        assert fit(tmp_path / "run", *options, config=config) == Preempted.code
    assert fit(tmp_path / "run", *options, "--ckpt_path", "last", config=config) == 0
    assert_same(state(tmp_path / "run"), state(tmp_path / "whole"))


def test_fit__accumulated_batches_share_a_step_as_one_batch_does(tmp_path: Path) -> None:
    double = [
        "--trainer.precision=64-true",
        "--model.drop_path=0.3",
        "--model.mask_ratio=0.5",
        "--model.teacher_cache=null",
        "--data.batch_size=8",
    ]
    assert fit(tmp_path / "whole", *double) == 0
    halves = ["--data.batch_size=4", "--trainer.accumulate_grad_batches=2", "--trainer.limit_train_batches=8"]
    run = tmp_path / "run"
    assert fit(run, *double, TARGET, end="6") == Preempted.code
    assert fit(run, *double, *halves, TARGET, "--ckpt_path", "last", end="5") == Preempted.code, "mid-step, step 9"
    assert json.loads((run / "progress.json").read_text())["step"] == 9
    assert fit(run, *double, TARGET, "--ckpt_path", "last") == 0
    one, other = state(run), state(tmp_path / "whole")
    assert one.keys() == other.keys()
    for name in one:
        assert torch.allclose(one[name], other[name], rtol=1e-9, atol=1e-12), name


def test_resume__another_total_batch_is_refused(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(whole, TARGET, "--ckpt_path", "last", "--data.batch_size=32") == 1
    assert "total batch of 16, and this one has 32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("exp_avg", torch.zeros(1), r"has a exp_avg of shape [1], where ["),
        ("exp_avg_sq", None, "has no exp_avg_sq"),
        ("step", torch.zeros(5), "has a step of shape [5], where [] belongs"),
    ],
)
def test_resume__from_an_optimiser_state_of_other_shapes_is_refused(
    key: str, value: torch.Tensor | None, words: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    moments = content["optimizer_states"][0]["state"]
    moments[2] = {name: kept for name, kept in moments[2].items() if name != key}
    if value is not None:
        moments[2][key] = value
    torch.save(content, tmp_path / "bad.ckpt")
    more = ["--ckpt_path", str(tmp_path / "bad.ckpt"), "--trainer.max_epochs=4"]
    assert fit(tmp_path / "run", TARGET, *more) == 1
    said = capsys.readouterr().err
    assert words in said
    assert "the optimiser state of student.vit." in said


def test_checkpoint__options_are_checked_with_the_rest_of_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "relation_digits", "--checkpoint.every_step=5", "--checkpoint.keep=0"]) == 1
    said = capsys.readouterr().err
    assert "checkpoint.every_step: no such option of Saving; did you mean every_steps?" in said
    assert "checkpoint.keep: 0 is not 1 or more" in said


def test_config__says_when_it_saves(whole: Path) -> None:
    saved = yaml.safe_load((whole / "config.yaml").read_text())["checkpoint"]
    assert saved == {"every_steps": None, "every_minutes": 10.0, "keep": 2}


def test_check__writes_nothing_though_an_epoch_ends(tmp_path: Path) -> None:
    place = tmp_path / "run"
    short = ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--data.batch_size=16"]
    assert main(["check", "relation_digits", *short, "--trainer.check_val_every_n_epoch=1", f"--run_dir={place}"]) == 0
    assert not place.exists()
