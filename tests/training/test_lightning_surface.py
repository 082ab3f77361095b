"""Lightning's whole surface: each Trainer flag, callback, logger, profiler and strategy works, or is refused in a line.

Names are taken from Lightning itself, so that what a new version brings fails here until somebody has looked at it.
"""

from __future__ import annotations

import inspect
import json
import re
import time
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities.types import LRSchedulerConfig

from tests.commands import Completed
from tests.training.conftest import Recipe
from tinymim.config import trainer_parts
from tinymim.training import preflight
from tinymim.training.monitored import _rates

FLAGS = {
    "accelerator": "auto",
    "strategy": "ddp_find_unused_parameters_true",
    "devices": "-1",
    "num_nodes": "0",
    "precision": "bf16-true",
    "logger": "true",
    "callbacks": "[]",
    "fast_dev_run": "2",
    "max_epochs": "-1",
    "min_epochs": "1",
    "max_steps": "2",
    "min_steps": "1",
    "max_time": "00:00:10:00",
    "limit_train_batches": "0.5",
    "limit_val_batches": "0.01",
    "limit_test_batches": "1",
    "limit_predict_batches": "1",
    "overfit_batches": "2",
    "val_check_interval": "2",
    "check_val_every_n_epoch": "0",
    "num_sanity_val_steps": "-1",
    "log_every_n_steps": "1",
    "enable_checkpointing": "false",
    "enable_progress_bar": "true",
    "enable_model_summary": "true",
    "accumulate_grad_batches": "2",
    "gradient_clip_val": "1",
    "gradient_clip_algorithm": "value",
    "deterministic": "warn",
    "benchmark": "true",
    "inference_mode": "false",
    "use_distributed_sampler": "true",
    "profiler": "simple",
    "detect_anomaly": "true",
    "barebones": "true",
    "plugins": "TorchSyncBatchNorm",
    "sync_batchnorm": "true",
    "reload_dataloaders_every_n_epochs": "1",
    "default_root_dir": "elsewhere",
    "enable_autolog_hparams": "false",
    "model_registry": "name",
}
"""A value of each that is not the default; of those that are known to break a run, the one that does."""

KNOWN = inspect.signature(pl.Trainer.__init__).parameters.keys() - {"self"}
"""What the installed Trainer takes; older ones lack some of the flags."""

REFUSED = {"barebones", "check_val_every_n_epoch", "default_root_dir", "devices", "limit_val_batches", "max_epochs"}
REFUSED |= {"fast_dev_run", "num_nodes", "use_distributed_sampler"}

OPTIONS: dict[str, dict[str, Any]] = {
    "EarlyStopping": {"monitor": "val/loss"},
    "ModelCheckpoint": {"monitor": "val/loss", "save_top_k": 2},
    "GradientAccumulationScheduler": {"scheduling": {0: 2}},
    "ModelPruning": {"pruning_fn": "l1_unstructured", "amount": 0.5},
    "OnExceptionCheckpoint": {"dirpath": "exceptions"},
    "StochasticWeightAveraging": {"swa_lrs": 0.01},
    "EMAWeightAveraging": {"decay": 0.9},
}
"""Options without which a class cannot be made, or would do nothing."""


def refusal(result: Completed) -> str:
    """The line of a command that was refused; empty where it worked."""
    assert result.returncode in (0, 1), result.stderr
    assert "Traceback" not in result.stderr
    if result.returncode == 0:
        return ""
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("tinymim fit: "), result.stderr
    return last


def test_flags__are_all_known() -> None:
    assert FLAGS.keys() >= KNOWN


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag in KNOWN])
def test_flag__works_or_is_refused_before_the_first_step(flag: str, tiny_fit: Recipe) -> None:
    line = refusal(tiny_fit(f"--trainer.{flag}", FLAGS[flag]))
    assert bool(line) == (flag in REFUSED), line
    assert flag in line or flag == "devices" or not line


ODD = {
    "val_check_interval": [0, 0.0, -1],
    "limit_val_batches": [-3],
    "num_sanity_val_steps": [-5],
    "overfit_batches": [-0.5],
    "max_time": ["soon", "00:00:00:00", {"minutes": -1}, {"moons": 1}],
    "min_epochs": [9],
    "min_steps": [-1, 9],
}


def test_options__that_are_none() -> None:
    for option, values in ODD.items():
        for value in values:
            trainer = {"max_epochs": 2, "max_steps": 8, option: value}
            (line,) = trainer_parts.option_errors(trainer, fits=True)
            assert line.startswith(f"trainer.{option}: {value!r}"), line
    usual = {
        "val_check_interval": 0.5,
        "max_time": {"hours": 2},
        "min_epochs": 1,
        "max_epochs": 3,
        "fast_dev_run": False,
    }
    assert trainer_parts.option_errors({**usual, "num_sanity_val_steps": -1, "max_steps": -1}, fits=True) == []
    assert trainer_parts.option_errors({"fast_dev_run": True}, fits=False) == []


PARTS = [
    (option, name)
    for option, module in (
        ("callbacks", pl.callbacks),
        ("logger", pl.loggers),
        ("profiler", pl.profilers),
        ("strategy", pl.strategies),
    )
    for name in module.__all__
]


@pytest.mark.parametrize(("option", "name"), PARTS)
def test_part__by_short_name_works_or_is_refused(option: str, name: str, tiny_fit: Recipe) -> None:
    node = {"class_path": name, "init_args": OPTIONS.get(name, {})}
    added = "+" if option in ("callbacks", "logger") else ""
    line = refusal(tiny_fit(f"--trainer.{option}{added}={json.dumps(node)}"))
    assert bool(line) >= (name in trainer_parts.REFUSED)
    assert name not in ("EarlyStopping", "ModelCheckpoint", "CSVLogger", "TensorBoardLogger", "DDPStrategy") or not line


@pytest.mark.parametrize("option", trainer_parts.MODULES)
def test_names__short_and_whole_are_one_class(option: str) -> None:
    for name, path in trainer_parts.class_paths(option).items():
        assert trainer_parts.expanded(option, name) == {"class_path": path} == trainer_parts.expanded(option, path)
        assert trainer_parts.expanded(option, [{"class_path": name}]) == [{"class_path": path}]


FORMS = {
    "added, with dotted options": ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor={}"],
    "in a list": ["--trainer.callbacks=[{{class_path: EarlyStopping, init_args: {{monitor: {}}}}}]"],
    "alone": ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.init_args.monitor", "{}"],
}


@pytest.mark.parametrize("form", FORMS)
def test_monitor__is_compared_with_what_the_module_logs(form: str, tiny_fit: Recipe) -> None:
    assert refusal(tiny_fit(*(word.format("val/loss") for word in FORMS[form]))) == ""
    wrong = refusal(tiny_fit(*(word.format("val_loss") for word in FORMS[form])))
    assert "EarlyStopping monitors val_loss, which the module does not log; did you mean val/loss?" in wrong
    assert not (tiny_fit.place / f"run{tiny_fit.runs}" / "checkpoints").exists()


def test_monitor__rates_go_by_the_names_that_are_logged() -> None:
    optimizer = torch.optim.AdamW([{"params": [torch.zeros(1)]}, {"params": [torch.ones(1)]}])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    trainer: Any = SimpleNamespace(lr_scheduler_configs=[LRSchedulerConfig(schedule, name="lr")])
    assert _rates(pl.callbacks.LearningRateMonitor(), trainer) == {"lr/pg1", "lr/pg2"}


def test_loggers__stand_beside_the_file_that_the_report_reads(tiny_fit: Recipe) -> None:
    assert refusal(tiny_fit("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "mine", run="logged")) == ""
    assert (tiny_fit.place / "logged" / "metrics.csv").is_file()
    assert list((tiny_fit.place / "mine").rglob("metrics.csv"))


def test_missing_package__is_named(tiny_fit: Recipe) -> None:
    for name in ("WandbLogger", "MLFlowLogger", "CometLogger"):
        assert "pip install" in refusal(tiny_fit("--trainer.logger", name)), name


def test_strategy__takes_what_it_hands_on(tiny_fit: Recipe) -> None:
    found = tiny_fit("--trainer.strategy", "DDPStrategy", "--trainer.strategy.find_unused_parameters", "false")
    assert refusal(found) == ""


def test_max_time__ends_a_run_that_resumes_with_a_new_clock(tiny_fit: Recipe) -> None:
    long = ["--trainer.max_epochs=500", "--trainer.max_time=00:00:00:01"]
    first = tiny_fit(*long, run="timed")
    assert first.returncode == 75, first.stderr
    assert "ended by trainer.max_time" in first.stderr
    progress = json.loads((tiny_fit.place / "timed" / "progress.json").read_text())
    assert progress["state"] == "preempted"
    assert tiny_fit(*long, "--ckpt_path=last", run="timed").returncode == 75
    assert json.loads((tiny_fit.place / "timed" / "progress.json").read_text())["step"] > progress["step"]


def test_no_step__is_no_run(tiny_fit: Recipe) -> None:
    assert refusal(tiny_fit(run="done")) == ""
    environment = tiny_fit.place / "done" / "environment.json"
    environment.write_text(re.sub(r'"threads": \d+', '"threads": 70', environment.read_text()))
    longer = tiny_fit("--ckpt_path=last", "--trainer.max_epochs=2", run="done")
    assert "threads: the run had 70, and now has " in longer.stderr
    assert "the run goes on with another recipe than it had: trainer.max_epochs: 1, now 2" in longer.stderr
    again = tiny_fit("--ckpt_path=last", "--trainer.max_epochs=2", run="done")
    assert "nothing to train: the checkpoint is at epoch 2 of 2, step 4" in again.stderr
    assert again.returncode == 0
    shorter = refusal(tiny_fit("--ckpt_path=done/checkpoints/best.ckpt", run="other"))
    assert "trainer.max_epochs: 1, and the run is at epoch 2 already; give more" in shorter
    assert not (tiny_fit.place / "other").exists()
    for option in ("limit_train_batches", "max_epochs", "max_steps"):
        assert f"trainer.{option}: 0 trains nothing" in refusal(tiny_fit(f"--trainer.{option}=0", run="none"))


def test_check__with_overfitting(tiny_fit: Recipe) -> None:
    assert tiny_fit("--trainer.overfit_batches=1", command="check").returncode == 0


class Sleeps(pl.Callback):
    """Makes each step a long one."""

    def on_train_batch_start(self, *args: Any) -> None:
        time.sleep(30)


def test_check__ends_in_time_whatever_a_step_takes(tiny_fit: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "ENOUGH", 1.0)
    done = tiny_fit(f"--trainer.callbacks+={__name__}.Sleeps", command="check")
    assert done.returncode == 0, done.stderr
    assert "measured: no batch of 2 of 8 images ended within 1 s" in done.stderr


NUMBERS = {
    "--trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches: 0 is not 1 or more",
    "--seed_everything=4294967296": "seed_everything: 4294967296 is not from 0 to 4294967295",
    "--model.optim.base_lr=-1": "optim.base_lr: -1.0 is not 0 or more",
    "--model.optim.base_lr=.nan": "optim.base_lr: nan is not 0 or more",
    "--model.optim.betas=[1.5,0.9]": "optim.betas: [1.5, 0.9] are not both in [0, 1)",
    "--model.optim.layer_decay=0": "optim.layer_decay: 0.0 is not above 0 and at most 1",
    "--model.optim.warmup_steps=-1": "optim.warmup_steps: -1 is not 0 or more",
    "--trainer.gradient_clip_val=-1": "trainer.gradient_clip_val: -1 is not 0 or more",
    "--model.student.options.in_chans=1": "options.in_chans: 1",
}


@pytest.mark.parametrize("option", NUMBERS)
def test_numbers__out_of_range_are_one_line(option: str, tiny_fit: Recipe) -> None:
    assert NUMBERS[option] in refusal(tiny_fit(option))
