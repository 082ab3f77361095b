"""The time left, from what tasks of the same kind took."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinymim.experiments import tally
from tinymim.experiments.workers import Task


def task(place: str) -> Task:
    return Task(place, Path("run") / place, [], 0, {})


def test_left__a_task_takes_what_those_of_its_kind_took(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(tally.time, "monotonic", lambda: now[0])
    places = ["student/pretrain", "student/few", "student/seed1/pretrain", "student/seed1/few", "teacher"]
    tasks = [task(place) for place in places]
    counted = tally.Tally(tasks, lambda task, record: "")
    now[0] = 110.0  # what a fit takes beside its training is in the rate
    counted.finished(tasks[0], {"status": "done", "seconds": 100.0})
    assert "about 7:20 left" in capsys.readouterr().err, "four of the only length that is known"
    now[0] = 121.0
    counted.finished(tasks[1], {"status": "done", "seconds": 10.0})
    assert "about 3:02 left" in capsys.readouterr().err, "100 and 10 as before, and a mean of 55 for the teacher"
    now[0] = 231.0
    counted.finished(tasks[2], {"status": "failed", "error": "full"})
    assert counted.failures == ["student/seed1/pretrain: full"]
    counted.finished(tasks[3], {"status": "done", "seconds": 10.0})
    counted.finished(tasks[4], {"status": "done", "seconds": 0.0})
    assert "about 0:00 left" in capsys.readouterr().err


def test_left__of_searches_and_studies_the_kind_is_the_row_or_the_combination() -> None:
    assert tally.kind(task("cells/relation/seed2")) == "relation"
    assert tally.kind(task("cells/scratch/few/base_lr0.1/seed0")) == "base_lr0.1"
    assert tally.kind(task("student/probe")) == tally.kind(task("scratch/seed1/probe")) == "probe"
