"""The page of behaviours: each row names what holds it, and the versions that it was seen with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.commands import PROJECT

PINNED = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE))
PAGE = (PROJECT / "docs/behaviours.md").read_text()
ROWS = [re.split(r" \| ", line.strip("| ")) for line in PAGE.splitlines() if re.match(r"\| \d+ \|", line)]


def test_rows__are_whole_and_numbered() -> None:
    assert len(ROWS) >= 25
    assert [row[0] for row in ROWS] == [str(number) for number in range(1, len(ROWS) + 1)]
    assert {len(row) for row in ROWS} == {6}


@pytest.mark.parametrize("row", [pytest.param(row, id=row[0]) for row in ROWS])
def test_row__is_held_with_its_versions(row: list[str]) -> None:
    file, _, name = row[5].strip("`").partition("::")
    held = (PROJECT / file).read_text()
    seen = dict(version.split() for version in row[3].split(", "))
    if file.startswith("findings/"):
        assert seen.items() <= dict(re.findall(r"([a-z0-9-]+)==([^\s)]+)", held)).items()
    else:
        assert file.startswith("tests/")
        assert f"def {name}(" in held
        assert seen.items() <= PINNED.items()


def test_behaviours__have_a_row_each() -> None:
    """No test of a behaviour is without a line for readers."""
    written = {
        f"{path.relative_to(PROJECT)}::{name}"
        for path in sorted(Path(__file__).parent.glob("test_*.py"))
        if path.name != Path(__file__).name
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert written - {row[5].strip("`") for row in ROWS} == set()


def test_findings__are_ten_and_pin_what_they_install() -> None:
    scripts = sorted((PROJECT / "findings").glob("*.sh"))
    assert len(scripts) >= 10
    for script in scripts:
        packages = re.search(r"^packages=\((.*)\)$", script.read_text(), re.MULTILINE)
        assert packages, script.name
        assert [name for name in packages[1].split() if "==" not in name] == [], script.name
