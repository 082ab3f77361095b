"""The page of a table: every file it names is there, figures are drawn for what there is, objectives are kept apart."""

from __future__ import annotations

import csv
import errno
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.golden.pinned import undrawn
from tinymim import files
from tinymim.cli.main import main
from tinymim.errors import TinymimError
from tinymim.report import csv_files
from tinymim.report.document import Section
from tinymim.scaling import scaling_page, table
from tinymim.scaling.table import RunRow

PUBLISHED = Path(__file__).parent / "simmim_scaling.csv"


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_published__page_tables_and_figures(tmp_path: Path) -> None:
    written = scaling_page.write(table.read(PUBLISHED), tmp_path, "63 runs", [Section("More")])
    assert written == tmp_path / "index.html"
    text = (tmp_path / "index.md").read_text()
    named = set(re.findall(r"\((figures/[^)]+\.png)\)", text))
    assert len(named) == 5
    for name in named:
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 80 / 25.4 * 299
        shown = (tmp_path / name).with_suffix(".svg").read_text()
        assert "$" not in shown, f"{name}: figures write no TeX"
    html = written.read_text()
    assert all(name in html for name in ("flags.csv", "correlations.csv", "laws.csv", "saturation.csv"))
    assert "In 14 of 63 runs" in html
    assert "-0.786" in text
    assert "-0.897" in text
    assert "The paper publishes no law" in text
    assert "## More" in text
    flags = lines(tmp_path / "flags.csv")
    assert [len(flags), sum(line["rose_over_shorter"] == "True" for line in flags)] == [63, 14]
    assert [line["axis"] for line in lines(tmp_path / "laws.csv")] == ["compute", "parameters", "data"]


def few(objective: str, **more: object) -> list[RunRow]:
    given: dict[str, object] = {"parameters": 5, "images": 9, "data": "all", **more}
    return [
        RunRow(objective, "S", iterations=n, validation_loss=0.5 + n / 10, training_loss=0.5 - n / 10, **given)  # type: ignore[arg-type]
        for n in (1, 2)
    ]


def test_few_runs_of_two_objectives__each_on_its_own(tmp_path: Path) -> None:
    rows = [
        *few("MAE"),
        *few("to distil", accuracy=0.5),
        RunRow("MAE", "S", 5, "all", 9, 3, status="failed", error="no memory"),
    ]
    with undrawn():
        sections = scaling_page.analyse(rows, tmp_path)
    titles = [section.title for section in sections]
    assert titles[0] == "MAE: Does it overfit?"
    assert titles[5] == "to distil: Does it overfit?"
    assert sections[-1].text == ["MAE S, all, 3 iterations: no memory"]
    assert "of the 1 with training losses, that is lower in 1: the classic sign" in sections[0].text[0]
    assert {line["remarks"] for line in lines(tmp_path / "laws.csv")} == {
        "too few points to fit: 1, needs 5 at different places"
    }
    assert {path.name for path in (tmp_path / "figures").glob("*accuracy*.png")} == {"to_distil_accuracy_by_loss.png"}
    assert not (tmp_path / "saturation.csv").exists()


def test_objectives_of_alike_names__keep_their_own_figures(tmp_path: Path) -> None:
    with undrawn():
        sections = scaling_page.analyse([*few("A/B"), *few("A_B"), *few("a b")], tmp_path)
    drawn = [picture.files[0] for section in sections for picture in section.pictures]
    assert len(drawn) == len(set(drawn)) == 9
    assert {name.partition("_loss")[0] for name in drawn} == {"figures/A_B", "figures/A_B_2", "figures/a_b_3"}
    assert all((tmp_path / name).is_file() for name in drawn)


def test_full_disk__is_said_in_a_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, text: str) -> None:
        if path.name != "flags.csv":
            raise OSError(errno.ENOSPC, "No space left on device")
        files.write_text(path, text)

    monkeypatch.setattr(csv_files, "write_text", full)
    for out in (tmp_path / "new/out", tmp_path):
        assert main(["scaling", "--table", str(PUBLISHED), "--out", str(out)]) == 1
        assert capsys.readouterr().err == f"tinymim scaling: out: {out} cannot be written (the disk is full)\n"
    assert {path.name for path in tmp_path.rglob("*")} == {"new", "flags.csv"}, "what was there, and whole files"


def test_largest_numbers__are_drawn_and_fitted(tmp_path: Path) -> None:
    """Their products are more than 64 bits hold."""
    rows = [RunRow("MAE", "S", 2**53, "all", 2**53, 2**53 // n, n * 1e-3, accuracy=1.0) for n in range(1, 7)]
    with undrawn():
        scaling_page.write([*rows, replace(rows[0], data="less", images=2**53 - 1)], tmp_path, "large")
    (law,) = (line for line in lines(tmp_path / "laws.csv") if line["axis"] == "compute")
    assert float(law["rmse"]) < 0.01


def test_nothing_done__is_said(tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match="none of 2 runs is done"):
        scaling_page.write([replace(row, status="failed") for row in few("MAE")], tmp_path, "none")
