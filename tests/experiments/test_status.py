"""What a chain looks like: the table of its stages at 80 columns, and the comparison."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tests.experiments.conftest import Fake, branched, stage
from tinymim.errors import TinymimError
from tinymim.experiments import fits_shown, pages, resume, status
from tinymim.experiments.plan import Plan
from tinymim.experiments.runner import Runner
from tinymim.experiments.state import State, begin, load
from tinymim.experiments.status import failures
from tinymim.report import runs
from tinymim.safety.console import PlainConsole
from tinymim.training import lock


def shown(state: State, width: int = 80) -> list[str]:
    console = PlainConsole(file=io.StringIO(), width=width)
    status.status(load(state.place), console)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def row(lines: list[str], name: str) -> list[str]:
    (found,) = [line.split() for line in lines if line.split()[:1] == [name]]
    return found


def test_status__how_far_each_stage_is(state: State, fake: Fake) -> None:
    fake.plan("other", "fail")
    fake.plan("probe", "preempted")
    Runner(state).run()
    lines = shown(state)
    sha = load(state.place).entries["medium"].outputs["checkpoints/last.ckpt"]
    assert row(lines, "medium") == ["medium", "done", "2", "top-1", "50.0%", "1:01", sha[:12]]
    assert row(lines, "probe") == ["probe", "interrupted", "1/2", "-", "0:05", "-"]
    assert row(lines, "tuned") == ["tuned", "waiting", "-", "-", "-", "-"]
    assert lines[0] == f"chain branched in {state.place}: 2 of 6 stages done"
    assert "other failed: ended with exit code 1; what it said is above" in lines
    assert lines[-1] == f"go on with: tinymim chain resume {state.place}"


def test_status__counts_what_a_command_has_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a study begun with ``--rows``: whose other rows never run, and whose later command may ask for more."""
    monkeypatch.setattr(resume, "_check", lambda *_: None)
    asked: list[tuple[list[str], list[str], int]] = [
        (["tiny"], ["medium", "tiny"], 4),
        (["other"], ["medium", "tiny", "other"], 3),
        (["medium"], ["medium", "tiny", "other"], 3),
        ([*branched().stages], [*branched().stages], 0),
    ]
    for keys, counted, left_out in asked:
        with resume.opened(tmp_path / "study", branched(kind="study", command="tinymim study b"), keys=keys) as state:
            lines = shown(state)
            page = fits_shown.section(state, tmp_path).markdown()
        more = f", and {left_out} left out, for which no command has asked" if left_out else ""
        assert lines[0] == f"study branched in {state.place}: 0 of {len(counted)} stages done{more}"
        assert [line.split()[0] for line in lines if " waiting " in line] == counted
        assert [name for name in branched().stages if f"| {name} |" in page] == counted
    state.ask({"medium"}, load(state.place).entries)
    state.forget({"medium"})
    assert len(state.asked) == 6, "what was asked for once stays"


def test_status__of_a_single_run(tmp_path: Path) -> None:
    recipe = {"name": "tiny", "model": {"class_path": "tinymim.methods.Distiller", "init_args": {"teacher": "big"}}}
    (tmp_path / "config.yaml").write_text(json.dumps({**recipe, "data": {"class_path": "tinymim.data.DigitsData"}}))
    progress = {"state": "running", "epoch": 2, "epochs": 5, "seconds": 61.0, "metrics": {"val/loss": 0.5}}
    (tmp_path / "progress.json").write_text(json.dumps(progress))
    console = PlainConsole(file=io.StringIO(), width=80)
    status.of_run(runs.read(tmp_path), console)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        f"run tiny in {tmp_path}: Distiller taught by big, DigitsData",
        f"cut off; `tinymim resume {tmp_path}` goes on, 2 of 5 epochs, 1:01, loss 0.5000",
        "nobody is at work on it",
        f"its page: tinymim report {tmp_path}",
    ]
    with pytest.raises(TinymimError, match=r"holds no chain: .*; it holds a run, of which `tinymim status"):
        load(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [{"seconds": float("nan")}, {"seconds": "x"}, {"metrics": [1]}, {"metrics": {"val/top1": "x"}}, {"epochs": [2]}],
)
def test_status__figures_of_other_types_are_none(state: State, fake: Fake, wrong: dict[str, object]) -> None:
    Runner(state).run()
    for name in ("results.json", "progress.json"):
        (state.place / "medium" / name).write_text(json.dumps({"epoch": 2, "epochs": 2, "seconds": 1, **wrong}))
    entry = state.entries["medium"]
    entry.state, entry.error = "failed", "so\nit \x1b[2Jgoes"
    state.save()
    lines = shown(state)
    table = [line for line in lines if "failed: " not in line]
    assert row(table, "medium") == ["medium", "failed", "-", "-", "-", entry.outputs["checkpoints/last.ckpt"][:12]]
    assert any(line.startswith("medium failed: so") and "goes" in line for line in lines), "on one line"
    assert "\x1b" not in "".join(lines)


def test_status__fits_into_80_columns(fake: Fake, tmp_path: Path) -> None:
    name = "a-stage-of_long_name"
    assert len(name) == 20, "the longest there is"
    chain = Plan("long", {name: stage(name, "probe", None)}, seeds=[0, 12])
    state = begin(tmp_path, chain, "")
    Runner(state).run()
    progress = {"state": "preempted", "epoch": 299, "epochs": 300, "seconds": 359999, "metrics": {"val/loss": 12.3456}}
    (tmp_path / "seed12" / name / "progress.json").write_text(json.dumps(progress))
    (tmp_path / "seed12" / name / "results.json").unlink()
    state.entries[f"seed12/{name}"].state = "interrupted"
    state.save()
    lines = shown(state)
    first, second = [number for number, line in enumerate(lines) if not line][:2]
    table = lines[first + 1 : second]
    rows = [line for line in table if line.startswith(f"{name} ")]
    assert len(rows) == 2, "one line each, and its name whole"
    assert rows[1].split()[1:-1] == ["interrupted", "299/300", "loss", "12.3456", "99:59:59"]
    assert len(rows[1].split()[-1]) == 12
    assert [line.strip() for line in table if line.strip().startswith("seed")] == ["seed 0", "seed 12"]
    assert max(map(len, table)) <= 80


def test_status__of_one_that_runs_and_one_that_was_cut_off(state: State) -> None:
    state.entries["medium"].state = "running"
    state.save()
    assert row(shown(state), "medium")[1:3] == ["cut", "off"]
    assert "nobody is at work on it" in shown(state)
    with lock.hold(state.place, "run_dir"):
        lines = shown(state)
    assert row(lines, "medium")[1] == "running"
    assert any(line.startswith("at work: pid ") for line in lines)


def test_compare__each_row_from_its_stages_once_they_are_done(fake: Fake, tmp_path: Path) -> None:
    compare = {"title": "Which?", "rows": {"measured": ["probe", "tuned"], "half": ["tuned"]}, "paper": {"half": 82.25}}
    state = begin(tmp_path, branched(seeds=[0, 1], compare=compare), "")
    fake.plan("probe", "done", "fail")
    with pytest.raises(TinymimError):
        Runner(state).run()
    printed = str(pages.chain(state))
    assert not set(printed) & set("\\*|#"), "no Markdown"
    lines = [line.split("  ") for line in printed.splitlines()]
    assert ["measured", "25.0 %", "50.0 %", "50.0 %", "1, 1 failed", "-"] in [
        [*filter(None, map(str.strip, line))] for line in lines
    ]
    assert "`-` is not there yet" in printed
    text = (tmp_path / "table.md").read_text()
    assert "`-` is not there yet" in text
    assert "| row | 10-NN | linear probe | fine-tuned | seeds | paper |" in text
    assert "| measured | 25.0 % | 50.0 % | 50.0 % | 1, 1 failed | - |" in text
    assert "| half | - | - | 50.0 ± 0.0 | 2 | 82.2 |" in text
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert rows["half"]["1"] == {"status": "done", "figures": {"fine-tuned": 0.5}}


def test_compare__columns_that_no_row_could_fill_are_left_out(state: State) -> None:
    state.plan.compare = {"title": "Which?", "rows": {"half": ["tuned"]}}
    assert "row   fine-tuned  seeds\n" in str(pages.chain(state))
    state.plan.compare = {}
    assert pages.chain(state) is None


def test_failures__with_one_reason_are_told_once(state: State) -> None:
    for key, why in (("medium", "data.root: none"), ("tiny", "data.root: none"), ("probe", "disk full")):
        state.entries[key].state = "failed"
        state.entries[key].error = f"ended with exit code 1: {why} (logs/{key}.txt)"
    assert failures(state.entries) == {
        "medium, tiny": "ended with exit code 1: data.root: none (logs/medium.txt)",
        "probe": "ended with exit code 1: disk full (logs/probe.txt)",
    }
