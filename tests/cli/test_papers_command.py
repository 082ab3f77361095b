"""``tinymim papers``: parts that fail do not keep others from running, and the same command goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tinymim.cli import papers_command, resume_command
from tinymim.errors import TinymimError
from tinymim.experiments import fit_processes
from tinymim.experiments.state import load
from tinymim.report import figures

PUBLISHED = Path(__file__).resolve().parents[1] / "scaling" / "simmim_scaling.csv"

WORK = """
import sys, pathlib
words = sys.argv[3:]
pathlib.Path("calls").open("a").write(" ".join(words) + "\\n")
if words[0] == "chain" and not pathlib.Path("mended").exists():
    sys.exit("tinymim chain: no such chain")
"""

TEXT = f"""
parts:
  chain: {{title: Chains, kind: chain, commands: [[chain, run, none]]}}
  scaling: {{title: Scaling, kind: scaling, commands: [[scaling, --table, {PUBLISHED}]]}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a program, a stand-in for the commands, and pictures that are not drawn: the scaling pages' tests
    do that."""
    monkeypatch.setattr(figures, "svg", lambda drawn: b"<svg/>")
    monkeypatch.setattr(figures, "png", lambda drawn: b"")
    monkeypatch.chdir(tmp_path)
    Path("work.py").write_text(WORK)
    Path("mine.yaml").write_text(TEXT)
    starter = tmp_path / "python"
    starter.write_text(f'#!/bin/sh\nexec {sys.executable} work.py "$@"\n')
    starter.chmod(0o755)
    monkeypatch.setattr(fit_processes, "COMMAND", [str(starter), "-m", "tinymim"])
    return tmp_path


def states(here: Path) -> dict[str, str]:
    return {key: entry.state for key, entry in load(here / "runs/papers_mine").entries.items()}


def test_papers__a_failed_part_is_reported_and_tried_again_and_the_others_are_kept(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TinymimError, match=r"1 of 2 parts failed.*no such chain"):
        papers_command.main(["mine.yaml"])
    assert states(here) == {"chain": "failed", "scaling": "done"}
    page = (here / "runs/papers_mine/report.html").read_text()
    assert "1 part failed: Chains" in page
    assert "Do big models on small data end below smaller ones?" in page

    (here / "mended").touch()
    assert papers_command.main(["mine.yaml"]) == 0
    calls = (here / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["chain", "scaling"] * 2
    assert "failed" not in (here / "runs/papers_mine/report.md").read_text().partition("## The questions")[0]


def test_papers__the_report_counts_verdicts_and_says_what_is_missing(here: Path) -> None:
    with pytest.raises(TinymimError):
        papers_command.main(["mine.yaml"])
    text = (here / "runs/papers_mine/report.md").read_text()
    assert "Of 7 questions, 5 are answered here as in the papers" in text
    assert "Chains: nothing to show yet" in text
    assert "](scaling/report/figures/" in text  # pictures are found from the report's own folder


def test_papers__names_an_unknown_part(here: Path) -> None:
    with pytest.raises(TinymimError, match=r"--parts: .* has no 'poems'; there are chain, scaling"):
        papers_command.main(["mine.yaml", "--parts", "poems"])


def test_papers__an_interrupted_part_is_told_from_one_that_was_never_begun(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "work.py").write_text("import sys; sys.exit(75)")
    assert papers_command.main(["mine.yaml"]) == 75
    assert "go on with: tinymim papers mine.yaml" in capsys.readouterr().err
    assert states(here) == {"chain": "interrupted", "scaling": "waiting"}


def test_papers__what_a_failed_part_left_before_is_shown_and_not_counted(here: Path) -> None:
    (here / "mended").touch()
    papers_command.main(["mine.yaml"])
    text = TEXT.replace("[scaling, --table", "[scaling, --table, other.csv, --table")
    (here / "mine.yaml").write_text(text)
    (here / "work.py").write_text("import sys; sys.exit('tinymim scaling: one mistake\\n- and another')")
    with pytest.raises(TinymimError, match=r"scaling: .*one mistake - and another"):
        papers_command.main(["mine.yaml", "--parts", "scaling"])
    page = (here / "runs/papers_mine/report.md").read_text()
    assert "Of 0 questions" in page
    assert "Scaling (failed): what is shown of it may be of before, and is not counted." in page
    assert "Do big models on small data end below smaller ones?" in page
    (here / "mine.yaml").write_text(TEXT)
    papers_command.main(["mine.yaml", "--report_only"])
    page = (here / "runs/papers_mine/report.md").read_text()
    assert f"Scaling: the program would now run tinymim scaling --table {PUBLISHED}." in page


def test_papers__what_an_earlier_version_kept_beside_the_state_is_read(here: Path) -> None:
    (here / "mended").touch()
    papers_command.main(["mine.yaml"])
    place = here / "runs/papers_mine"
    before = load(place)
    before.forget(set(before.entries))
    before.save()
    part = {
        "status": "failed",
        "error": "so it goes",
        "seconds": 3.0,
        "commands": ["tinymim scaling --table other.csv"],
    }
    (place / "papers.json").write_text(json.dumps({"environment": {}, "quick": False, "parts": {"scaling": part}}))
    papers_command.main(["mine.yaml", "--report-only"])
    page = (place / "report.md").read_text()
    assert "Scaling failed: so it goes" in page
    assert "Scaling (failed): what is shown of it may be of before, and is not counted." in page
    assert "| Chains | not run |" in page
    (place / "papers.json").write_text('{"parts": {"scaling": [1]}}')
    with pytest.raises(TinymimError, match=r"papers.json cannot be read"):
        papers_command.main(["mine.yaml", "--report-only"])


def test_papers__goes_on_by_resume_with_the_options_it_was_begun_with(here: Path) -> None:
    (here / "mended").touch()
    papers_command.main(["mine.yaml", "--parts", "scaling", "--run_dir", "elsewhere"])
    (here / "elsewhere").rename(here / "moved")
    (here / "calls").unlink()
    assert resume_command.main(["moved"]) == 0
    assert (here / "calls").read_text().splitlines() == [f"scaling --table {PUBLISHED}"]
