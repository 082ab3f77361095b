"""Documents and figures: one self-contained file, the same bytes from the same data."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from PIL import Image

from tinymim.report import figures
from tinymim.report.document import Document, Picture, Section, Table


def drawn():
    with figures.figure(columns=2) as (figure, (left, right)):
        left.plot([1, 2, 3], [3, 1, 2], label="a", **figures.series(0))
        right.plot([1, 2], [1, 2], label="b", **figures.series(9))
        return figures.svg(figure), figures.png(figure)


def written(tmp_path, name):
    svg, _ = drawn()
    document = Document(
        "Heads & <layers>",
        [
            Section(
                "One",
                ["Text, *stressed*, 2 * 3 * <b>."],
                [Table(["model", "top-1"], [["a|b", "1.0"]])],
                [Picture("Lines", svg, ["f/a.png"])],
            )
        ],
        warning="Licence.",
        settings=[("seed", "0")],
    )
    document.write(tmp_path / name)
    return (tmp_path / name).read_text()


def test_document__html_needs_no_other_file_and_escapes_what_it_is_told(tmp_path):
    text = written(tmp_path, "page.html")
    assert not re.search(r'(src|href)="(?!data:|#|f/a\.png)', text)
    assert "Heads &amp; &lt;layers&gt;" in text
    assert "data:image/svg+xml;base64," in text
    assert "Text, <em>stressed</em>, 2 * 3 * &lt;b&gt;." in text


def test_document__markdown_holds_the_same(tmp_path):
    text = written(tmp_path, "page.md")
    assert "# Heads & &lt;layers>" in text
    assert "| model | top-1 |\n| --- | ---: |\n| a/b | 1.0 |" in text
    assert "![Lines](f/a.png)" in text
    assert "- seed: 0" in text


def test_figures__are_the_same_bytes_from_the_same_data():
    assert drawn() == drawn()


def test_figures__save_writes_a_picture_for_print_and_one_for_the_page(tmp_path):
    with figures.figure() as (figure, axes):
        axes.plot([1, 2], [1, 2])
        svg = figures.save(figure, tmp_path / "new" / "line")
    assert (tmp_path / "new" / "line.svg").read_bytes() == svg
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    picture = Image.open(tmp_path / "new" / "line.png")
    assert abs(picture.width / 300 * 25.4 - figures.WIDTH) < 1  # millimetres


def test_figures__series_differ_in_colour_and_in_more_than_colour():
    looks = [figures.series(number) for number in range(8)]
    assert len({look["color"] for look in looks}) == len({look["marker"] for look in looks}) == 8
