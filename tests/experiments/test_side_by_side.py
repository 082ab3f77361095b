"""How many fits run at once where nobody says, and on which GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.experiments.conftest import branched, stage
from tinymim.errors import TinymimError
from tinymim.experiments import fit_processes, side_by_side
from tinymim.experiments.plan import Plan
from tinymim.experiments.runner import Runner
from tinymim.experiments.state import begin


def machine(monkeypatch: pytest.MonkeyPatch, gpus: int, cores: int = 64) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(side_by_side, "cores", lambda: cores)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def alike(count: int, **trainer: Any) -> Plan:
    """Fits that need no other."""
    return Plan("alike", {f"fit{n}": stage(f"fit{n}", "distill", None, trainer=trainer) for n in range(count)})


@pytest.mark.parametrize(
    ("gpus", "plan", "jobs"),
    [
        (0, alike(9), 9),
        (0, alike(99), 64),
        (0, branched(), 3),  # both measures and the export of one
        (0, branched(seeds=[0, 1]), 6),
        (8, alike(99), 8),
        (8, alike(3), 3),
        (8, alike(99, devices="auto"), 8),
        (8, alike(99, devices=2), 4),
        (8, alike(99, devices=16), 1),
        (8, alike(99, devices=[3]), 1),
        (8, alike(99, accelerator="cpu"), 64),
        (1, branched(), 1),
    ],
)
def test_at_once__one_a_gpu_or_a_core_of_those_that_need_no_other(
    gpus: int, plan: Plan, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, gpus)
    assert side_by_side.at_once(plan, plan.fits) == jobs


def test_gpus__are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 4)
    assert side_by_side.gpus(alike(1, devices=2)) == [["0", "1"], ["2", "3"]]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7f,1")
    assert side_by_side.gpus(alike(1)) == [["5"], ["GPU-7f"], ["1"]]
    assert side_by_side.gpus(alike(1, accelerator="cpu")) == []


@pytest.mark.parametrize(("jobs", "gpus"), [(None, ["0", "1", "0"]), (4, ["0", "1", "0", "1"]), (1, ["", ""])])
def test_runner__gives_a_fit_the_gpu_that_fewest_use(
    jobs: int | None, gpus: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, 2)
    started: list[str] = []

    class Failing:
        """In place of a fit: fails once as many are at work as may be."""

        pid = 0

        def __init__(self, words: list[str], log: Path | None, threads: int, visible: list[str]):
            started.append(",".join(visible))

        def poll(self) -> int | None:
            return 1 if len(started) >= (jobs or 2) else None

    monkeypatch.setattr(fit_processes, "Fork", Failing)
    with pytest.raises(TinymimError, match="stages failed"):
        Runner(begin(tmp_path, alike(len(gpus)), ""), jobs=jobs).run()
    assert started == gpus
