"""A file in the working folder is not run because a library would like a package of its name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import tinymim
from tinymim.cli.main import builds


@pytest.mark.parametrize(
    ("command", "arguments", "runs"),
    [
        ("fit", ["--config", "relation_digits"], True),
        ("fit", ["--help"], False),
        ("chain", ["run", "mine.yaml"], True),
        ("chain", ["status", "chain"], False),
        ("chain", ["plan", "mine.yaml"], False),
        ("chain", ["plan", "mine.yaml", "--trust"], True),
        ("predict", ["exported", "--images", "folder"], False),
        ("predict", ["--config", "mine.yaml"], True),
        ("report", ["run"], False),
        ("report", ["run", "--trust"], True),
        ("teachers", ["fetch", "card.yaml"], False),
        ("replay", ["step_2.pt"], False),
    ],
)
def test_runs__what_looks_does_not_reach_the_working_folder(command: str, arguments: list[str], runs: bool) -> None:
    assert builds(command, arguments) is runs


def test_looking__leaves_the_path_of_imports_alone(tmp_path: Path) -> None:
    before = [*sys.path]
    assert tinymim("teachers", cwd=tmp_path).returncode == 0
    assert sys.path == before


def test_wished_for_packages__are_not_taken_from_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "apex.py").write_text("open('MARK', 'w').close()\n")  # timm would use it
    code = "import sys; sys.path.remove(''); from tinymim.cli.main import main; sys.exit(main(sys.argv[1:]))"
    for library in ("argparse", "yaml", "torch", "difflib"):
        (tmp_path / f"{library}.py").write_text("open('MARK', 'w').close()\n")
    for start, arguments in (
        (["-c", code], ["check", "nothing"]),
        (["-m", "tinymim"], ["teachers", "show", "digits_mae"]),
    ):
        command = [sys.executable, *start, *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert "Traceback" not in result.stderr, result.stderr
        assert not (tmp_path / "MARK").exists(), arguments
