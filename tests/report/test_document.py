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

from tinymim.report import figures, plain_text
from tinymim.report.document import Document, Link, Picture, Section, Table
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


TAGS = {"h1", "h2", "p", "em", "code", "div", "table", "thead", "tbody", "tr", "th", "td"}
MARKS = st.text("*_`~[]()<>&!|\\#+-=.:1a '\"", max_size=30)


@given(st.one_of(MARKS, st.text(max_size=40)))
def test_texts__are_shown_as_they_are_but_for_emphasis_and_code(written):
    """In a paragraph, a cell and a heading: no link, tag, rule, list, entity or further cell."""
    line = escaping.one_line(written)
    section = Section(written, [f"a: {written}", written], [Table(["x", "y"], [[f"b: {written}", written]])])
    page = Document("t", [section]).html()
    body = page[page.index("<h1>") : page.index("<footer>")]
    found = re.findall(r"<(p|td|h2)[^>]*>(.*?)</\1>", body, re.DOTALL)
    texts = [re.sub("[*`]", "", html.unescape(re.sub("</?(em|code)>", "", text))) for _, text in found]
    expected = [line, f"a: {line}", line, f"b: {line}", line]
    bare = [re.sub("[*`]", "", text).strip() for text in expected]
    assert [text.strip() for text in texts if text.strip()] == [text for text in bare if text]
    assert {tag.strip("/") for tag in re.findall("<(/?[a-z0-9]+)", body)} <= TAGS
    for sign, tag in ("*", "<em>"), ("`", "<code>"):
        assert sign in line or tag not in body


CODE = "chosen by `tinymim search a_b --x 1`, of *`a`*: `-` is 'x_y' *a_b*."
HOSTILE = "`<b>x</b>` `a|b` `[x](y)` `a\\` `` `b`` ` ` a` `&lt;` ![x](y)"


def test_code__of_ours_keeps_its_marks_and_names_of_files_are_escaped():
    section = Section("", [CODE], [Table(["`a`"], [[HOSTILE]])])
    text = section.markdown()
    assert text.startswith(CODE + "\n")
    assert "| `a` |" in text
    page = Document("t", [section]).html()
    assert "chosen by <code>tinymim search a_b --x 1</code>, of <em><code>a</code></em>: <code>-</code> is" in page
    (cell,) = re.findall("<td[^>]*>(.*?)</td>", page)
    assert html.unescape(cell) == HOSTILE
    assert "<code>" not in cell


def test_plain_text__has_neither_marks_nor_escapes():
    table = Table(
        ["row", "`a_b`", "x"], [["_a|b_ <c>", "1.0", "-"], [Link("l_", "p/q"), "22.00", ""]], "T_", "see *it*"
    )
    section = Section("One & *two*", [CODE, "a\x1b[1m\nb"], [table], facts=[("a_", "# b")], remarks=["1. [x](y)"])
    made = Document("Top", [section], "About `it`.", settings=[("seed", "0")])
    assert plain_text.document(made).splitlines() == [
        "Top", "", "About `it`.", "", "One & two", "", CODE.replace("*", ""), "", "a[1m b", "", "a_: # b", "", "T_", "",
        "row        `a_b`  x", "_a|b_ <c>    1.0  -", "l_         22.00", "", "see it", "", "1. [x](y)", "",
        "How it was made", "", "seed: 0",
    ]  # fmt: skip


def test_plain_text__of_a_wide_table_breaks_heads_and_names_of_rows_in_a_terminal(monkeypatch):
    heads = ["row", "10-NN", "linear probe", "fine-tuned on all labels", "seeds", "parameters", "seconds of training"]
    cells = ["91.0 ± 1.4", "90.0 ± 1.4", "95.0 ± 0.4", "3", "2,691,648", "123"]
    made = Table(heads, [["student of relation_digits", *cells], ["from scratch", *cells]])
    piped = plain_text.table(made).splitlines()
    assert len(piped) == 3
    assert max(map(len, piped)) > 100
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for width in (100, 90, 80):
        monkeypatch.setenv("COLUMNS", str(width))
        shown = plain_text.table(made)
        assert max(map(len, shown.splitlines())) <= width, shown
        words = " ".join([*heads, *(cell for row in made.rows for cell in row)]).split()
        assert sorted(shown.split()) == sorted(words), "nothing is cut"
    monkeypatch.setenv("COLUMNS", "30")
    assert "2,691,648" in plain_text.table(made), "figures are never broken"


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
