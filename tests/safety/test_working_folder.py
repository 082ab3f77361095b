"""A file in the working folder is not run because a library would like a package of its name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import tinymim
from tests.safety import captures
from tinymim.cli.main import builds
from tinymim.config import validation, value_types


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
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
        assert "Traceback" not in result.stderr, result.stderr
        assert not (tmp_path / "MARK").exists(), arguments


def test_parser__starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    import jsonargparse._stubs_resolver as stubs
    import typeshed_client.finder

    started: list[object] = []
    monkeypatch.setattr(typeshed_client.finder.subprocess, "check_output", lambda *a, **k: started.append(a) or b"[]")
    monkeypatch.setattr(stubs, "stubs_resolver", None)
    parser = value_types.parser()
    parser.add_class_arguments(random.Random, "part")
    parser.parse_object({"part": {}})
    assert stubs.stubs_resolver is not None, "stubs were looked for"
    assert not started


@pytest.mark.parametrize(
    "changes",
    [
        {"student": {**captures.OWN, "options": "{x: {class_path: os.system, init_args: {command: touch MARK}}}"}},
        {"student": {**captures.OWN, "options": {"x": "class_path: os.system"}}},
        {"student": "{arch: vit_tiny_patch16_224}"},
        {"targets": "[{class_path: tinymim.targets.Relation}]"},
        {"optim": "- &a [*a]"},
    ],
)
def test_texts__are_no_mappings(changes: dict[str, object]) -> None:
    node = captures.recipe_of("Distiller", **changes)["model"]
    found: list[str] = []
    assert validation.check_class(node, "model", found)
    assert len(found) == 1
    assert "is a text, and no list or mapping; write it without quotes" in found[0]
    assert next(iter(changes)) in found[0]
