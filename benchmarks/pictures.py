"""Draw the pictures of README and site: the method, and the demo's result out of the table in benchmarks/README.md.

``python benchmarks/pictures.py`` writes ``docs/images/{method,demo}-{light,dark}.svg``. Nothing is measured here: the
method's relation maps are drawn from a formula, and the result's figures are read from the table that states them.
Pictures are 360 units wide with text of 14 and more, so that none is smaller than 12 px on a phone.
"""

from __future__ import annotations

import math
import re
from html import escape
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
FIGURES = PROJECT / "benchmarks" / "README.md"
IMAGES = PROJECT / "docs" / "images"

WIDTH = 360
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"

SCHEMES = {
    "light": {"text": "#1f2430", "faint": "#5a6270", "line": "#d5d9e2", "fill": "#eef0f6", "teacher": "#3949ab",
              "student": "#00796b", "scratch": "#b3541e", "paper": "#ffffff"},
    "dark": {"text": "#e8eaf2", "faint": "#aab1c0", "line": "#454b5c", "fill": "#2b3040", "teacher": "#9fa8ff",
             "student": "#4dd0bd", "scratch": "#ffab76", "paper": "#1e2129"},
}  # fmt: skip

Colours = dict[str, str]


def rectangle(x: float, y: float, width: float, height: float, fill: str, edge: str = "none", alpha: float = 1) -> str:
    """A rectangle with slightly round corners."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="2" fill="{fill}" stroke="{edge}" '
        f'fill-opacity="{alpha:.2f}"/>'
    )


def words(x: float, y: float, text: str, fill: str, anchor: str = "middle", size: int = 14, bold: bool = False) -> str:
    """A line of text whose baseline is at ``y``."""
    weight = ' font-weight="600"' if bold else ""
    looks = f'fill="{fill}" font-size="{size}" text-anchor="{anchor}"{weight}'
    return f'<text x="{x:g}" y="{y:g}" {looks}>{escape(text)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, edge: str, width: float = 1, arrow: str = "") -> str:
    """A straight line, with an arrow head at its end if ``arrow`` names one."""
    head = f' marker-end="url(#{arrow})"' if arrow else ""
    return f'<path d="M{x1:g} {y1:g} L{x2:g} {y2:g}" stroke="{edge}" stroke-width="{width:g}" fill="none"{head}/>'


def picture(title: str, about: str, height: int, parts: list[str], colours: Colours) -> str:
    """A whole SVG of the common width, with arrow heads to use and its texts for who cannot see it."""
    heads = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 0 L8 4 L0 8 z" fill="{colours[name]}"/></marker>'
        for name in ("faint", "text")
    )
    ground = f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{colours["paper"]}"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="{escape(FONT)}" role="img" aria-labelledby="t d">\n<title id="t">{escape(title)}</title>\n'
        f'<desc id="d">{escape(about)}</desc>\n<defs>{heads}</defs>\n{ground}\n' + "\n".join(parts) + "\n</svg>\n"
    )


def relation(x: float, y: float, colour: str, colours: Colours, kind: int, blur: float) -> list[str]:
    """A relation map of 6 x 6 tokens, softmax of a product that is made up; ``blur`` is a student's distance."""
    tokens, cell, made = range(6), 9, []
    for row in tokens:
        logits = [
            (2.4 - blur) * math.cos((row - column) * (1.1 if kind else 0.6)) + (0 if kind else 0.9 * (column == 2))
            for column in tokens
        ]
        total = sum(map(math.exp, logits))
        for column, logit in enumerate(logits):
            alpha = min(1, 2.2 * math.exp(logit) / total)
            made.append(rectangle(x + column * cell, y + row * cell, cell - 1, cell - 1, colour, alpha=alpha))
    return [rectangle(x - 2, y - 2, 6 * cell + 3, 6 * cell + 3, "none", colours["line"]), *made]


def method(colours: Colours) -> str:
    """The method: one image through both networks, and the loss between the relations of one block of each."""
    text, faint = colours["text"], colours["faint"]
    parts = []
    for row in range(3):
        for column in range(3):
            alpha = (0.9, 0.35, 0.6, 0.25, 0.75, 0.5, 0.4, 0.85, 0.3)[3 * row + column]
            parts.append(rectangle(159 + 14 * column, 6 + 14 * row, 13, 13, faint, alpha=alpha))
    parts += [line(152, 28, 92, 58, faint, 1.4, "faint"), line(208, 28, 268, 58, faint, 1.4, "faint")]
    parts += [words(58, 20, "image", faint), words(302, 20, "no labels", faint)]
    sides = (
        ("teacher", 82, 132, 5, "frozen teacher", "MAE, BEiT, SimMIM …"),
        ("student", 278, 104, 4, "student", "small ViT, trained"),
    )
    for side, middle, wide, blocks, title, about in sides:
        colour, top = colours[side], 108
        parts += [words(middle, 78, title, colour, size=16, bold=True), words(middle, 97, about, faint)]
        high = 100 / blocks
        for number in range(blocks):
            target = number == blocks - (2 if side == "teacher" else 1)
            parts.append(
                rectangle(
                    middle - wide / 2, top + number * high, wide, high - 4, colour if target else colours["fill"],
                    colour if target else colours["line"],
                )
            )  # fmt: skip
            if target:
                parts.append(words(middle, top + number * high + high / 2 + 3, "target block", colours["paper"]))
        below = top + 100
        parts.append(line(middle, below, middle, below + 20, colour, 1.6))
        blur = 0.0 if side == "teacher" else 0.7
        for kind, name in enumerate(("Q · Kᵀ", "V · Vᵀ")):
            left = middle - 64 + 70 * kind
            parts += relation(left + 2, below + 26, colour, colours, kind, blur)
            parts.append(words(left + 28, below + 99, name, text))
    parts += [
        line(156, 262, 206, 262, text, 1.6, "text"),
        words(181, 254, "KL", text, size=16, bold=True),
        words(180, 336, "The student learns how tokens relate in each head,", text),
        words(180, 356, "not what they are: widths need not agree.", text),
    ]
    return picture(
        "Distillation of token relations",
        "One image goes through a frozen teacher and a small student. In the target block of each, the softmax of "
        "queries times keys and of values times values gives a map of relations between tokens for each head; the loss "
        "is the KL divergence from the teacher's maps to the student's.",
        368, parts, colours,
    )  # fmt: skip


def demo_table() -> tuple[list[str], dict[str, list[tuple[float, float]]]]:
    """Columns of the demo's table, and its rows of means and standard deviations, per cent."""
    section = FIGURES.read_text().partition("\n## The demo\n")[2].partition("\n## ")[0]
    lines = [[cell.strip() for cell in row.strip("| \n").split("|")] for row in re.findall(r"^\|.*\|$", section, re.M)]
    rows = {row[0]: [tuple(float(number) for number in cell.split(" ± ")) for cell in row[1:]] for row in lines[2:4]}
    return lines[0][1:], rows  # type: ignore[return-value]


def mark(side: str, x: float, y: float, colours: Colours) -> str:
    """The dot of the student's figure or the square of the network from scratch's, around a place."""
    if side == "student":
        return f'<circle cx="{x:g}" cy="{y:g}" r="6" fill="{colours[side]}"/>'
    return rectangle(x - 5.5, y - 5.5, 11, 11, colours[side])


def demo(colours: Colours) -> str:
    """The demo's result: two dots a figure, with the spread over seeds."""
    columns, rows = demo_table()
    scratch, student = rows.values()
    names = {"10 % of them": "fine-tuned, 10 % of the labels", "5 %": "fine-tuned, 5 % of the labels"}
    text, faint, low = colours["text"], colours["faint"], 55
    place = lambda value: 14 + (value - low) * (WIDTH - 46) / (100 - low)  # noqa: E731
    bottom = 62 + 52 * len(columns)
    parts = [
        mark("student", 20, 14, colours),
        words(32, 19, "distilled student", text, "start"),
        mark("scratch", 193, 14, colours),
        words(205, 19, "from scratch", text, "start"),
    ]
    for value in range(60, 101, 10):
        parts.append(line(place(value), 34, place(value), bottom - 18, colours["line"]))
        parts.append(words(place(value), bottom, f"{value}{' %' if value == 100 else ''}", faint))
    for number, column in enumerate(columns):
        y = 52 + 52 * number
        title = names.get(column, column)
        parts.append(rectangle(12, y - 13, 7.4 * len(title), 17, colours["paper"]))
        parts.append(words(14, y, title, text, "start"))
        for side, (mean, spread), right in (("scratch", scratch[number], 42), ("student", student[number], 2)):
            ends = place(max(low, mean - spread)), place(min(100, mean + spread))
            parts.append(line(ends[0], y + 17, ends[1], y + 17, colours[side], 2))
            parts.append(mark(side, place(mean), y + 17, colours))
            parts.append(rectangle(WIDTH - right - 35, y - 13, 36, 17, colours["paper"]))
            parts.append(words(WIDTH - right, y, f"{mean:g}", colours[side], "end", bold=True))
    return picture(
        "The demo: a distilled student beside the same network from scratch",
        "Per cent of 360 held-out digits, mean and standard deviation over three seeds. "
        + "; ".join(
            f"{names.get(column, column)}: distilled {a[0]:g}, from scratch {b[0]:g}"
            for column, a, b in zip(columns, student, scratch, strict=True)
        ),
        bottom + 10, parts, colours,
    )  # fmt: skip


def drawn() -> dict[Path, str]:
    """Every picture by its file."""
    return {
        IMAGES / f"{draw.__name__}-{scheme}.svg": draw(colours)
        for draw in (method, demo)
        for scheme, colours in SCHEMES.items()
    }


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    for path, content in drawn().items():
        path.write_text(content)
        print(path)
