"""A chain whose stages take no time."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tinymim.experiments import fit_processes
from tinymim.experiments.plan import CHECKPOINT, Plan, Stage
from tinymim.experiments.state import State, begin


class Fake:
    """Plans what the stages do, and knows how they were called."""

    def __init__(self, folder: Path):
        self.folder = folder

    def plan(self, stage: str, *words: str) -> None:
        (self.folder / stage).write_text("\n".join(words))

    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        path.unlink(missing_ok=True)
        return found

    def stages(self) -> list[str]:
        """The stages called since the last time, in order."""
        return [Path(call[2]).parent.name if call[0] == "export" else stage_of(call) for call in self.calls()]


def stage_of(call: list[str]) -> str:
    (place,) = [json.loads(text.partition("=")[2]) for text in call if text.startswith("--run_dir=")]
    return Path(place).name


def in_place_of_forks(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a script of this folder be what fits are forked from, and what a launcher starts."""
    monkeypatch.setattr(fit_processes, "COMMAND", [sys.executable, str(Path(__file__).parent / script)])
    monkeypatch.setattr(fit_processes, "Fork", lambda words, log, *_: fit_processes.start(words, log, 1, ["env"]))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """``tinymim`` is the fake."""
    folder = tmp_path / "fake"
    folder.mkdir()
    monkeypatch.setenv("FAKE", str(folder))
    in_place_of_forks(monkeypatch, "fake.py")
    return Fake(folder)


def stage(name: str, kind: str, parent: str | None, **config: Any) -> Stage:
    whole: dict[str, Any] = {"seed_everything": 0, "trainer": {"max_epochs": 2}, **config} if kind != "export" else {}
    if whole and parent:
        whole["model"] = {"init_args": {"teacher" if kind == "distill" else "weights": f"{parent}/{CHECKPOINT}"}}
    return Stage(name, kind, f"recipe_of_{name}", whole, parent, parent)


def branched(**content: Any) -> Plan:
    """Two students of one, of which one is exported and both are measured."""
    stages = [
        stage("medium", "distill", None),
        stage("tiny", "distill", "medium"),
        stage("other", "distill", "medium"),
        stage("probe", "probe", "tiny"),
        stage("tuned", "finetune", "tiny"),
        stage("shipped", "export", "tiny"),
    ]
    return Plan("branched", {one.name: one for one in stages}, **content)


@pytest.fixture
def state(fake: Fake, tmp_path: Path) -> State:
    """The branched chain, not yet run."""
    place = tmp_path / "chain"
    place.mkdir()
    fresh = begin(place, branched(), "")
    fresh.save()
    fresh.write_recipes()
    return fresh
