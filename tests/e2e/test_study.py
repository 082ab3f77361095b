"""Studies that run, break off, go on and fail, with real cells of a step or two."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import Forked
from tinymim.cli import study_command
from tinymim.errors import TinymimError

TARGETS = """
import os, pathlib, time
from tinymim.targets import CLS

class Slow(CLS):
    '''Stays in the second step until a file called `go` is beside this one.'''
    steps = 0
    def forward(self, teacher, student):
        here = pathlib.Path(__file__).parent
        self.steps += self.training
        if self.steps > 1 and not (here / "go").exists():
            (here / "new").write_text(str(os.getpid()))
            (here / "new").rename(here / "pid")
        while self.steps > 1 and not (here / "go").exists():
            time.sleep(0.05)
        return super().forward(teacher, student)

class Wrong(CLS):
    def forward(self, teacher, student):
        raise ValueError("so it goes")

class Killed(CLS):
    def forward(self, teacher, student):
        os.kill(os.getpid(), 9)
"""

SHORT = {
    "trainer.max_epochs": 1,
    "trainer.limit_train_batches": 1,
    "trainer.limit_val_batches": 1,
    "trainer.num_sanity_val_steps": 0,
    "data.batch_size": 16,
}


def write_study(folder: Path, rows: dict[str, Any], **changes: Any) -> Path:
    """A study of tiny cells whose one question asks about all rows."""
    later = {**SHORT, "trainer.enable_checkpointing": False}
    content = {
        "seeds": [0],
        "budget": SHORT,
        "stages": {name: {"recipe": f"{name}_digits", "set": later} for name in ("probe", "finetune")},
        "rows": rows,
        "questions": {"all": {"title": "All", "rows": list(rows), "paper": dict.fromkeys(rows, 1.0)}},
        **changes,
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def cls(target: str | None = None, **settings: Any) -> dict[str, Any]:
    targets = {"model.targets": [{"class_path": f"odd_targets.{target}"}]} if target else {}
    return {"recipe": "cls_digits", "set": {**targets, **settings}}


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def states(place: Path) -> dict[str, str]:
    return {cell["row"]: cell["status"] for cell in json.loads((place / "study.json").read_text())["cells"]}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a study; the targets beside it can be imported."""
    (tmp_path / "odd_targets.py").write_text(TARGETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "odd_targets", raising=False)
    return tmp_path / "run"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks /proc whether a process lives")
def test_study__killed_in_the_middle_goes_on_where_it_was(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beside = place.parent
    path = write_study(beside, {"scratch": {"recipe": None}, "slow": cls("Slow", **{"trainer.max_epochs": 2})})
    arguments = [str(path), "--run_dir", str(place), "--jobs", "3"]
    process = Forked("study", *arguments, log=beside / "log", PYTHONPATH=str(beside))
    try:
        written = place / "study.json"
        wait_for(lambda: written.exists() and states(place) == {"scratch": "done"}, "the first cell")
        wait_for((beside / "pid").exists, "the second step of the other")
        assert process.poll() is None
        with pytest.raises(TinymimError, match="another command is working in"):
            study_command.main(arguments)
    finally:
        process.kill()
        process.wait()
    worker = int((beside / "pid").read_text())
    wait_for(lambda: not alive(worker), "the worker's end")
    assert states(place) == {"scratch": "done"}
    assert "| slow | - | - | - | 0 | 1.0 |" in (place / "tables" / "all.md").read_text()
    record = place / "cells" / "scratch" / "seed0" / "probe" / "results.json"
    before = record.stat().st_mtime_ns

    (beside / "go").touch()
    study_command.main(arguments)
    out, err = capsys.readouterr()
    assert "1 cell to run" in err
    assert "cells/slow/seed0/probe: 10-NN " in err
    assert states(place) == {"scratch": "done", "slow": "done"}
    assert record.stat().st_mtime_ns == before
    assert "resuming from" in (place / "logs" / "cells-slow-seed0-pretrain.txt").read_text()
    assert json.loads((place / "cells/slow/seed0/pretrain/results.json").read_text())["steps"] == 2
    assert "\nAll\n" in out, "no Markdown"
    assert "the paper's best" in out
    with (place / "tables" / "all.csv").open() as stream:
        assert [row["seeds"] for row in csv.DictReader(stream)] == ["1", "1"]


def test_study__one_failing_cell_does_not_lose_the_others(place: Path) -> None:
    rows = {
        "wrong": cls("Wrong"),
        "killed": cls("Killed"),
        "waiting": cls(**{"model.teacher": "${prepare.broken}"}),
        "scratch": {"recipe": None},
    }
    wrong = cls("Wrong")
    broken = {"recipe": wrong["recipe"], "set": {**SHORT, **wrong["set"]}}
    path = write_study(place.parent, rows, prepare={"broken": broken})
    with pytest.raises(TinymimError) as raised:
        study_command.main([str(path), "--run_dir", str(place), "--jobs", "2"])
    said = str(raised.value)
    assert "3 of 12 stages failed, and 7 that build on them wait" in said
    assert "exit code 1: ValueError: so it goes" in said
    assert "cells/killed/seed0/pretrain: was ended by signal 9" in said
    assert "prepare/broken/fit, cells/wrong/seed0/pretrain: ended with exit code 1" in said, "one reason, one line"
    assert states(place) == {"wrong": "failed", "killed": "failed", "waiting": "failed", "scratch": "done"}
    assert "| wrong | - | - | - | 0, 1 failed | 1.0 |" in (place / "study.md").read_text()
    assert "Traceback" in (place / "logs" / "cells-wrong-seed0-pretrain.txt").read_text()


def test_study__another_definition_is_never_mixed_in(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_study(place.parent, {"scratch": {"recipe": None}, "cls": cls()})
    arguments = [str(path), "--run_dir", str(place), "--jobs", "2"]
    study_command.main(arguments)
    first = {path: path.stat().st_mtime_ns for path in place.glob("cells/*/*/*/results.json")}
    assert len(first) == 5
    write_study(place.parent, {"scratch": {"recipe": None}, "cls": cls(**{"trainer.max_epochs": 2})})
    with pytest.raises(
        TinymimError, match=r"has changed since .* --accept-changes(.|\n)*cls/pretrain.trainer.max_epochs: 1, now 2"
    ):
        study_command.main(arguments)
    study_command.main([*arguments, "--rows", "scratch"])
    assert "0 cells to run" in capsys.readouterr().err
    assert states(place) == {"scratch": "done"}, "the other cell is of another definition now, and not shown"
    study_command.main([*arguments, "--overwrite"])
    assert "1 cell to run" in capsys.readouterr().err
    assert json.loads((place / "cells/cls/seed0/pretrain/results.json").read_text())["epochs"] == 2
    assert {path.parts[-4] for path, then in first.items() if path.stat().st_mtime_ns == then} == {"scratch"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digits", "--rows", "relatoin"], "--rows: study digits has no 'relatoin'; did you mean relation\\?"),
        (["digits", "--questions", "t7"], "--questions: study digits has no 't7'; there are cls_loss, "),
        (["digits", "--rows", "scratch", "--jobs", "0"], "--jobs: 0 is not a whole number, 1 or more"),
        (["digits", "more"], "no option of a study: more"),
        (["digits", "--rows", "relation", "--model.drop_paht", "1"], r"relation/pretrain: .*drop_path\?"),
    ],
)
def test_study__refuses_what_it_does_not_know(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=words):
        study_command.main([*arguments, "--run_dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()
