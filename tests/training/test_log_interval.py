"""The interval of training values follows the length of a run, where its recipe leaves it open."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tinymim.training.log_interval import LogInterval


@pytest.mark.parametrize(
    ("named", "steps", "interval"),
    [(None, 2, 1), (None, 21, 1), (None, 1000, 10), (None, 4999, 49), (None, 10**6, 50), (30, 2, 30), (0, 2, 0)],
)
def test_interval__of_a_run_of_so_many_steps(named: int | None, steps: int, interval: int) -> None:
    trainer: Any = SimpleNamespace(log_every_n_steps=50 if named is None else named, estimated_stepping_batches=steps)
    LogInterval(named).on_fit_start(trainer, SimpleNamespace())  # type: ignore[arg-type]
    assert trainer.log_every_n_steps == interval
