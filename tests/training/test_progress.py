"""Progress in a terminal, and in lines where standard error is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tinymim.training import progress
from tinymim.training.progress import EvaluationLines, FitLines, TerminalProgress, clock, progress_bar


def trainer(**state: Any) -> Any:
    common = {
        "global_step": 0,
        "current_epoch": 0,
        "max_epochs": 20,
        "estimated_stepping_batches": 200,
        "callback_metrics": {"train/loss": torch.tensor(1.25), "val/knn_top1": torch.tensor(0.5), "other": 1.0},
        "datamodule": SimpleNamespace(batch_size=8),
        "world_size": 2,
        "accumulate_grad_batches": 1,
        "sanity_checking": False,
    }
    return SimpleNamespace(**{**common, **state})


def test_fit_lines__ten_in_a_run_with_loss_metric_speed_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    bar, running = FitLines(), trainer()
    bar.on_train_start(running, None)  # type: ignore[arg-type]
    for epoch in range(20):
        running.current_epoch, running.global_step = epoch, 10 * (epoch + 1)
        bar.on_train_epoch_end(running, None)  # type: ignore[arg-type]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("epoch 2/20: loss 1.2500, 10-NN 50.0%, ")
    assert lines[-1].endswith(" images/s, 0:00 left")


@pytest.mark.parametrize("bar", [FitLines(), TerminalProgress()], ids=["lines", "terminal"])
def test_figures__of_an_epoch_that_is_over_say_which(bar: Any, capsys: pytest.CaptureFixture[str]) -> None:
    running = trainer(state=SimpleNamespace(fn="other"))
    bar._trainer = running
    bar.on_train_start(running, None)
    shown = []
    for epoch in range(6):
        running.current_epoch = epoch
        if epoch in (2, 5):
            bar.on_validation_end(running, None)
        shown.append(bar._pace.figures(running)["10-NN"])
    getattr(bar, "_stop_progress", list)()
    assert shown == ["50.0%", "50.0%", "50.0%", "50.0% (epoch 3)", "50.0% (epoch 3)", "50.0%"]
    assert bar._pace.figures(running)["loss"] == "1.2500"


def test_fit_lines__a_run_of_steps_and_another_rank(capsys: pytest.CaptureFixture[str]) -> None:
    bar, running = FitLines(), trainer(max_epochs=-1, estimated_stepping_batches=20)
    bar.on_train_start(running, None)  # type: ignore[arg-type]
    for step in range(1, 21):
        running.global_step = step
        for _ in range(2):  # accumulated batches of a step
            bar.on_train_batch_end(running, None)  # type: ignore[arg-type]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"step {step}/20" for step in range(2, 21, 2)]
    bar.disable()
    running.global_step = 40
    bar.on_train_epoch_end(trainer(current_epoch=19), None)  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.1, []),
        (12, ["2 of 5, 0:36", "4 of 5, 0:12"]),
        (60, ["1 of 5, 4:00", "2 of 5, 3:00", "3 of 5, 2:00", "4 of 5, 1:00", "5 of 5, 0:00"]),
    ],
)
def test_evaluation_lines__count_over_all_loaders_and_are_apart(
    seconds: float, said: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bar, now = EvaluationLines(), 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    bar.on_test_start(SimpleNamespace(num_test_batches=[3, 2]), None)  # type: ignore[arg-type]
    for _ in range(5):
        now += seconds
        bar.on_test_batch_end()
    assert capsys.readouterr().err.splitlines() == [f"test: batch {line} left" for line in said]


def test_terminal__epochs_from_one_and_the_figures_of_the_run() -> None:
    bar = TerminalProgress()
    for epochs, text in ((20, "Epoch 3/20"), (-1, "Epoch 3")):
        bar._trainer = trainer(max_epochs=epochs)
        assert bar._get_train_description(2).rstrip() == text
    bar.on_train_start(running := trainer(), None)  # type: ignore[arg-type]
    bar._stop_progress()
    running.global_step = 10
    figures = bar.get_metrics(running, None)  # type: ignore[arg-type]
    assert list(figures) == ["loss", "10-NN", "images/s", "left"]
    running.callback_metrics = {}
    assert bar.get_metrics(running, None) == figures, "the loss is read a few times a second, not at each step"  # type: ignore[arg-type]


def test_progress_bar__by_command_and_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes any stream for a terminal
    assert isinstance(progress_bar("fit"), TerminalProgress)
    monkeypatch.delenv("FORCE_COLOR")
    assert isinstance(progress_bar("fit"), FitLines)
    assert isinstance(progress_bar("test"), EvaluationLines)


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 61.4, 3723)] == ["0:00", "1:01", "1:02:03"]
