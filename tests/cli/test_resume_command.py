"""``tinymim resume`` of every kind of plan, by the command that its folder says it was begun with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tinymim.cli import plan_options, resume_command
from tinymim.cli.main import COMMANDS
from tinymim.cli.resume_command import BEGUN_BY
from tinymim.errors import TinymimError
from tinymim.experiments.plan import Plan
from tinymim.experiments.state import begin

ONCE = ["--accept-changes", "--launch", "srun -n 2", "--run_dir", "here"]
ASKED: dict[str, list[str]] = {
    "study": [
        "digits",
        "--quick",
        "--seeds",
        "0,1",
        "--rows",
        "a,b",
        "--set",
        "a.b=1",
        "c.d=x y",
        "--jobs",
        "2",
        *ONCE,
    ],
    "search": ["digits", "a", "b", "--set", "data.root=my images", "--jobs", "3", *ONCE],
    "scaling study": ["digits", "--quick", "--set", "a.b=1", "seeds=[0]", "--seeds", "0", "--out", "o", *ONCE],
    "comparison": ["own.yaml", "--seeds", "3", "--trainer.max_epochs=2", "--overwrite", "true", *ONCE],
    "program": ["--quick", "--parts", "a,b", "--teacher", "my own.ckpt", "--report_only"],
}


def module(kind: str) -> Any:
    """The module of the command that begins such a plan."""
    return COMMANDS[BEGUN_BY[kind]].module()


def kept(kind: str, words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What a command line asks for, without what is of one sitting; and its overrides."""
    options = module(kind).parser()
    asked, further = options.parse_known_args(plan_options.hyphened(options, words))
    values = {name: value for name, value in vars(asked).items() if name not in (*plan_options.ONCE, "run_dir", "set")}
    overrides = [f"--{text}" for text in getattr(asked, "set", [])] + further
    return values, sorted(overrides)


@pytest.mark.parametrize("kind", ASKED)
def test_begun__asks_for_what_was_asked_at_first_and_for_nothing_of_that_sitting(kind: str) -> None:
    options, words = module(kind).parser(), ASKED[kind]
    asked, further = options.parse_known_args(plan_options.hyphened(options, words))
    pairs = [f"--{text}" for text in getattr(asked, "set", [])] + further
    command = plan_options.again(options, asked, None if kind == "scaling study" else pairs)
    again = plan_options.begun(options, command, "moved")
    assert kept(kind, again) == kept(kind, words)
    assert again[-2:] == ["--run-dir", "moved"]
    assert not any(word in command for word in ("srun", "accept", "overwrite", "report"))


@pytest.mark.parametrize(
    "command",
    [
        "", "rm -rf here", "tinymim distill own.yaml", "tinymim study 'digits", "study digits",
        "tinymim study digits --overwrite", "tinymim study digits --launch=sh", "tinymim study digits --accept_changes",
        "tinymim study digits --report-only", "sh -c 'tinymim study digits'",
    ],
)  # fmt: skip
def test_resume__runs_no_other_command_than_one_that_begins_such_a_plan(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, Plan("p", {}, kind="study", command=command)).save()
    monkeypatch.setattr(module("study"), "main", pytest.fail)
    with pytest.raises(TinymimError, match=r"which is not what begins such a plan; give the command yourself: tinymim"):
        resume_command.main([str(tmp_path)])


@pytest.mark.parametrize("kind", ASKED)
def test_resume__of_each_kind(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = BEGUN_BY[kind]
    begin(tmp_path, Plan("p", {}, kind=kind, command=f"tinymim {name} own --run-dir gone")).save()  # type: ignore[arg-type]
    calls: list[list[str]] = []
    monkeypatch.setattr(module(kind), "main", lambda words: calls.append(words) or 75)
    assert resume_command.main([str(tmp_path), "--jobs", "2"]) == 75
    assert calls == [["own", "--run-dir", "gone", "--run-dir", str(tmp_path), "--jobs", "2"]]
    said = capsys.readouterr().err
    assert f"going on with: tinymim {name} own " in said
    assert "gone" not in said
    assert said.count("--run-dir") == 1, "each option once, as it is now"


@pytest.mark.parametrize("kind", ASKED)
def test_resume__refuses_an_unknown_option_before_it_says_to_go_on(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(tmp_path, Plan("p", {}, kind=kind, command=f"tinymim {BEGUN_BY[kind]} own")).save()  # type: ignore[arg-type]
    with pytest.raises((TinymimError, SystemExit)) as refused:
        resume_command.main([str(tmp_path), "--nope"])
    assert "--nope" in f"{refused.value}{(said := capsys.readouterr().err)}"
    assert "going on" not in said


def test_resume__of_neither_a_plan_nor_a_run(tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=r"holds neither a plan \(chain.json or plan.json\) nor a run \(config.yaml"):
        resume_command.main([str(tmp_path)])
