"""The lines before a run, and the sentences on what is worth a second look."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest

from tests.data.images import class_folders, prepared
from tests.training.conftest import Recipe
from tinymim.methods.base import size
from tinymim.methods.optim import Optim
from tinymim.training import overview
from tinymim.training.run_folder import SUMMARY

FOUR = ["training", "images", "schedule", "run"]


def trainer(data: Any, epochs: int = 10, world: int = 1, rate: float = 1e-3, **module: Any) -> Any:
    """A trainer of so many processes that is about to begin."""
    batches = max(len(data.train) // world // data.batch_size, 1)
    return SimpleNamespace(
        datamodule=data,
        world_size=world,
        accumulate_grad_batches=1,
        num_training_batches=batches,
        estimated_stepping_batches=epochs * batches,
        max_epochs=epochs,
        max_steps=-1,
        precision="32-true",
        optimizers=[SimpleNamespace(defaults={"lr": rate})],
        lightning_module=SimpleNamespace(**module),
        limit_train_batches=1.0,
    )


@pytest.mark.parametrize(
    ("batch", "world", "said"),
    [
        (
            5,
            1,
            ["few steps: an epoch of 16 images is 3 steps of 5, and the run 30; --data.batch_size 2 makes an epoch 8"],
        ),
        (
            64,
            1,
            ["few steps: an epoch of 16 images is 1 step of 16, and the run 10; --data.batch_size 2 makes an epoch 8"],
        ),
        (
            4,
            2,
            ["few steps: an epoch of 16 images is 2 steps of 8, and the run 20; --data.batch_size 1 makes an epoch 8"],
        ),
        (2, 1, ["few steps: 80 in all, in which a network learns little; more --trainer.max_epochs are more"]),
        (1, 1, []),
    ],
)
def test_remarks__few_steps_and_the_batch_that_makes_more(batch: int, world: int, said: list[str], tmp_path) -> None:
    class_folders(tmp_path / "train", "ab", each=8)
    class_folders(tmp_path / "val", "ab", each=1)
    few, *lines = overview.remarks(trainer(prepared(tmp_path, batch_size=batch), world=world), pl.LightningModule())
    assert few == "few held-out images: 2, each 50 points of accuracy, known to ±69 (95 %)"
    assert lines == said


def test_remarks__a_rate_at_which_nothing_is_learnt(tmp_path) -> None:
    class_folders(tmp_path, "ab", each=8)
    data = prepared(tmp_path, batch_size=1)
    few, line = overview.remarks(trainer(data, 100, rate=2.3e-6, from_scratch=True), pl.LightningModule())
    assert few.endswith("(95 %); --data.held_out 0.2 holds a fifth of all out")
    assert line.startswith("low learning rate: 2.3e-06 ")
    assert overview.remarks(trainer(data, 100, rate=2.3e-6), pl.LightningModule()) == [few], (
        "fine-tuning wants low ones"
    )


def test_remarks__a_warm_up_that_outlasts_the_run(tmp_path) -> None:
    class_folders(tmp_path, "ab", each=8)
    data = prepared(tmp_path, batch_size=1)
    optim = Optim(1e-3, warmup_epochs=20)
    _, few, line = overview.remarks(trainer(data, 2, optim=optim), pl.LightningModule())
    steps = 2 * len(data.train)
    assert few.startswith("few steps: ")
    assert line == (
        f"long warm-up: the learning rate rises for {10 * steps} steps, and the run has {steps}, so it ends at "
        f"{1e-3 * (steps - 1) / (10 * steps):.2g} and never reaches 0.001; lower --model.optim.warmup_epochs"
    )
    assert (
        "lower --model.optim.warmup_steps"
        in overview._on_warmup(trainer(data, 2, optim=Optim(1e-3, warmup_steps=steps)), steps, 1e-3)[0]
    )
    assert overview._on_warmup(trainer(data, 40, optim=optim), 20 * steps, 1e-3) == []


def test_schedule__epochs_steps_rate_and_precision(tmp_path) -> None:
    class_folders(tmp_path, "ab", each=8)
    run = trainer(prepared(tmp_path, batch_size=5), rate=0.00123)
    assert overview.schedule(run) == "10 epochs x 3 steps of 5, learning rate 0.0012, 32-true"
    assert overview.schedule(run, "because").endswith("32-true (because)")


@pytest.mark.parametrize(
    ("count", "words"), [(999, "999"), (180_000, "0.18 M"), (2_691_648, "2.7 M"), (86_000_000, "86 M")]
)
def test_size__of_a_network(count: int, words: str) -> None:
    assert size(SimpleNamespace(parameters=lambda: [SimpleNamespace(numel=lambda: count)])) == words  # type: ignore[arg-type]


def test_fit__says_few_lines_and_keeps_all(tiny_fit: Recipe) -> None:
    done = tiny_fit(run="brief")
    assert done.returncode == 0, done.stderr
    assert "keys matched" not in done.stderr
    titles = [line.split()[0] for line in done.stderr.splitlines() if line]
    assert [title for title in titles if title in FOUR] == FOUR, "of a run of two steps, too"
    assert " 0:00 of training (measured: " in done.stderr
    (line,) = [
        line
        for line in tiny_fit("--trainer.limit_train_batches=1", run="one").stderr.splitlines()
        if line[:4] == "run "
    ]
    assert line.split() == ["run", "one"]
    kept = (tiny_fit.place / "brief" / SUMMARY).read_text()
    assert "keys matched" in kept
    assert "learning rate: " in kept
    assert "keys matched" in tiny_fit("-v", run="whole").stderr
