"""What files say reaches the terminal as it is: rich's own language in it means nothing."""

from __future__ import annotations

import io
import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.table import Table

from tests.experiments.conftest import branched
from tests.safety import places
from tests.teachers.card_files import write
from tinymim.cli import scaling_command
from tinymim.cli.main import main
from tinymim.experiments import state, status
from tinymim.safety.console import PlainConsole
from tinymim.scaling import table

MARKED = "[/b] [link=http://x.y]a[/] :smile: [red]b"
"""Of which rich would make an error, a link, a picture and a colour."""


def _console() -> PlainConsole:
    return PlainConsole(file=io.StringIO(), width=300, force_terminal=True)


def _shown(console: PlainConsole) -> str:
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_console__shows_texts_literally_wherever_they_stand() -> None:
    console, drawn = _console(), Table(title=MARKED)
    drawn.add_column(MARKED)
    drawn.add_row(MARKED, style="bold")
    console.print(drawn)
    console.print(f"{MARKED}\x1b]0;x\x07", markup=True)
    assert _shown(console).count(MARKED) == 4
    assert "\\x1b]0;x\\x07" in _shown(console)
    assert "\x1b]" not in _shown(console)


def test_names__in_a_table_forge_no_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console, drawn = _console(), Table("name", "licence")
    drawn.add_row("a\nb  forged", "MIT\tx")
    console.print(drawn)
    console.print("first\nsecond")
    assert "a\\nb  forged" in _shown(console)
    assert "MIT\\tx" in _shown(console)
    assert _shown(console).splitlines()[-2:] == ["first", "second"]
    place = tmp_path / "0_1\nforged  tiny  32-true"
    place.mkdir()
    (place / "key.json").write_text(json.dumps(places.KEY))
    assert main(["cache", "list", "--dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "0_1\\nforged" in said
    assert not [line for line in said.splitlines() if line.startswith("forged")]


def test_console__is_the_only_one() -> None:
    shared = re.compile(r"rich\.console import .*\bConsole|rich import .*(print|console)\b|import rich\b|from_markup")
    others = [
        path.name
        for path in (Path(__file__).parents[2] / "tinymim").rglob("*.py")
        if path.name != "console.py" and shared.search(path.read_text())
    ]
    assert others == [], "take tinymim.safety.console.PlainConsole"


def test_progress__shows_descriptions_literally() -> None:
    from tinymim.teachers.download import _bar

    with _bar() as bar:
        bar.add_task(MARKED, total=1)
        columns = [column for column in bar.columns if getattr(column, "text_format", "") == "{task.description}"]
        assert [str(column.render(bar.tasks[0])) for column in columns] == [MARKED]  # type: ignore[union-attr]


def test_teachers__a_licence_is_no_markup(
    home: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    write(home.cwd, {"licence": MARKED})
    assert main(["teachers"]) == 0
    assert MARKED in capsys.readouterr().out


def test_chain_status__texts_of_its_file_are_no_markup(tmp_path: Path) -> None:
    chain = branched()
    chain.name = MARKED
    begun = state.begin(tmp_path, chain, "")
    key = next(iter(begun.entries))
    begun.entries[key].state, begun.entries[key].error = "failed", MARKED
    begun.save()
    console = _console()
    status.status(state.load(tmp_path), console)
    assert f"chain {MARKED} in" in _shown(console)
    assert f"{key} failed: {MARKED}" in _shown(console)


def test_scaling_table__a_cell_is_no_markup(tmp_path: Path) -> None:
    cell = "=cmd|calc<script>[/b]"
    table.write(tmp_path / "table.csv", [table.RunRow(cell, MARKED, 5, MARKED, 9, 7, 0.4)])
    console = _console()
    scaling_command.show(table.read(tmp_path / "table.csv"), console)
    assert cell in _shown(console)
    assert _shown(console).count(MARKED) == 2


def test_figures__hold_no_escape_codes_and_print_none() -> None:
    from tinymim.report import figures

    with warnings.catch_warnings(record=True) as printed, figures.figure() as (drawn, axes):
        axes.plot([1, 2], [1, 2], label="a\x1b]0;x\x07b\u202e")
        axes.set_title("\x1b[2Jtitle\ue123")
        axes.legend()
        svg = figures.svg(drawn).decode()
        figures.png(drawn)
    assert "a]0;xb" in svg
    assert not {"\x1b", "\x07", "\u202e"} & set(svg)
    assert not printed
