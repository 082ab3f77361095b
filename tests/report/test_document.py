"""Documents and figures: one self-contained file, the same bytes from the same data."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st
from matplotlib import font_manager
from PIL import Image

from tinymim.report import figures
from tinymim.report.document import Document, Picture, Section, Table
from tinymim.safety import escaping


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
    assert '<svg viewBox="0 0 ' in text
    assert "<title>a: 3 at 1</title>" in text, "a value under the pointer"
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}';" in text
    assert "Text, <em>stressed</em>, 2 * 3 * &lt;b&gt;." in text


def test_document__markdown_holds_the_same(tmp_path):
    text = written(tmp_path, "page.md")
    assert "# Heads &amp; &lt;layers&gt;" in text
    assert "| model | top-1 |\n| --- | ---: |\n| a\\|b | 1.0 |" in text
    assert "![Lines](f/a.png)" in text
    assert "- seed: 0" in text


TAGS = {"h1", "h2", "p", "em", "div", "table", "thead", "tbody", "tr", "th", "td"}
MARKS = st.text("*_`~[]()<>&!|\\#+-=.:1a '\"", max_size=30)


@given(st.one_of(MARKS, st.text(max_size=40)))
def test_texts__are_shown_as_they_are_but_for_emphasis(written):
    """In a paragraph, a cell and a heading: no link, tag, code, rule, list, entity or further cell."""
    line = escaping.one_line(written)
    section = Section(written, [f"a: {written}", written], [Table(["x", "y"], [[f"b: {written}", written]])])
    page = Document("t", [section]).html()
    body = page[page.index("<h1>") : page.index("<footer>")]
    found = re.findall(r"<(p|td|h2)[^>]*>(.*?)</\1>", body, re.DOTALL)
    texts = [html.unescape(re.sub("</?em>", "", text)).replace("*", "") for _, text in found]
    expected = [line, f"a: {line}", line, f"b: {line}", line]
    bare = [text.replace("*", "").strip() for text in expected]
    assert [text.strip() for text in texts if text.strip()] == [text for text in bare if text]
    assert {tag.strip("/") for tag in re.findall("<(/?[a-z0-9]+)", body)} <= TAGS
    if "*" not in line:
        assert "<em>" not in body


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


def test_figures__titles_find_a_font_of_this_machine(monkeypatch):
    monkeypatch.setattr(font_manager, "get_font_names", lambda: ["Comic", "Noto Sans CJK JP", "Malgun Gothic"])
    assert figures._fonts.__wrapped__() == ["DejaVu Sans", "Noto Sans CJK JP", "Malgun Gothic"]


def test_figures__series_differ_in_colour_and_in_more_than_colour():
    looks = [figures.series(number) for number in range(8)]
    assert len({look["color"] for look in looks}) == len({look["marker"] for look in looks}) == 8
