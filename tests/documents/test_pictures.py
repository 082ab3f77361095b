"""Pictures of README and site: drawn from what is written in the figures, and to be read on a phone."""

from __future__ import annotations

import importlib.util
import re

from tests.commands import PROJECT

spec = importlib.util.spec_from_file_location("pictures", PROJECT / "benchmarks" / "pictures.py")
assert spec
assert spec.loader
pictures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pictures)


def test_pictures__are_those_that_the_figures_give() -> None:
    for path, drawn in pictures.drawn().items():
        assert path.read_text() == drawn, "python benchmarks/pictures.py"


def test_demo__shows_each_figure_of_its_table() -> None:
    columns, rows = pictures.demo_table()
    assert len(columns) == 5
    assert len(rows) == 2
    drawn = (pictures.IMAGES / "demo-light.svg").read_text()
    assert all(f">{mean:g}</text>" in drawn for row in rows.values() for mean, _ in row)


def test_text__is_no_smaller_than_12_px_on_a_phone() -> None:
    for text in pictures.drawn().values():
        sizes = [int(size) for size in re.findall(r'font-size="(\d+)"', text)]
        assert min(sizes) * 340 / pictures.WIDTH >= 12  # 390 px less the page's margins
