"""The time left, from what fits of the same kind took."""

from __future__ import annotations

import pytest

from tinymim.experiments import tally


def test_left__a_fit_takes_what_those_of_its_kind_took(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(tally.time, "monotonic", lambda: now[0])
    keys = ["student/pretrain", "student/few", "student/seed1/pretrain", "student/seed1/few", "teacher"]
    counted = tally.Tally(keys)
    now[0] = 110.0  # what a fit takes beside its training is in the rate
    counted.ended(keys[0], "done", 100.0)
    assert "about 7:20 left" in capsys.readouterr().err, "four of the only length that is known"
    now[0] = 121.0
    counted.ended(keys[1], "done", 10.0)
    assert "about 3:02 left" in capsys.readouterr().err, "100 and 10 as before, and a mean of 55 for the teacher"
    now[0] = 231.0
    counted.ended(keys[2], "failed: full")
    assert "student/seed1/pretrain: failed: full" in capsys.readouterr().err
    counted.ended(keys[3], "done", 10.0)
    counted.ended(keys[4], "done")
    assert "about 0:00 left" in capsys.readouterr().err


def test_longest__is_told_by_what_those_of_its_kind_took() -> None:
    keys = ["a/probe", "a/few", "a/all", "b/probe", "b/few", "b/all", "b/new"]
    counted = tally.Tally(keys)
    assert counted.longest(keys) == "a/probe", "the first, while nothing is known"
    for key, seconds in zip(keys, [10.0, 30.0, 50.0], strict=False):
        counted.ended(key, "done", seconds)
    assert counted.longest(["b/probe", "b/few", "b/all", "b/new"]) == "b/all"
    assert counted.longest(["b/probe", "b/few", "b/new"]) == "b/few", "a new kind takes the mean, 30, and comes later"


def test_kind__of_searches_and_studies_is_the_stage_or_the_combination() -> None:
    assert tally.kind("cells/relation/seed2/probe") == tally.kind("scratch/seed1/probe") == "probe"
    assert tally.kind("cells/scratch/few/base_lr0.1/seed0") == "base_lr0.1"
    assert tally.kind("seed0/tiny") == "tiny"
