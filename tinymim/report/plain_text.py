"""Report documents for a terminal: the words and tables of their Markdown, without its marks and escapes."""

from __future__ import annotations

import io
import shutil
import sys
import textwrap

from rich.cells import cell_len
from rich.console import JustifyMethod
from rich.table import Table as Shown
from rich.text import Text

from tinymim.report.document import EMPHASIS, Document, Link, Picture, Section, Table
from tinymim.safety.console import PlainConsole
from tinymim.safety.escaping import one_line

WIDEST = 100_000
"""Columns of a table that goes into a file or a pipe: no cell of it is folded."""

NARROWEST = 12
"""Columns of the first column of a table that is too wide for a terminal, at least."""

BETWEEN = 2
"""Columns between two of a table."""


def document(shown: Document) -> str:
    """A whole report; pictures are left out."""
    settings = [Section("How it was made", facts=shown.settings)] if shown.settings else []
    head = [line(shown.title), line(shown.about), line(shown.warning)]
    return (
        "\n\n".join([*filter(None, head), *(section(part).rstrip("\n") for part in [*shown.sections, *settings])])
        + "\n"
    )


def section(shown: Section) -> str:
    """A section: its title, paragraphs, facts, tables and remarks, as :meth:`Section.markdown` orders them."""
    parts = [line(shown.title), *map(line, shown.text)]
    parts.append("\n".join(f"{line(name)}: {line(value)}" for name, value in shown.facts))
    for part in shown.tables:
        parts += [line(part.title), table(part), line(part.text)]
    return "\n\n".join(filter(None, [*parts, *map(line, shown.remarks)])) + "\n"


def table(shown: Table) -> str:
    """A table, figures to the right; empty without rows. In a terminal that it is too wide for, heads are broken at
    spaces, and then names of rows."""
    if not shown.rows:
        return ""
    heads = [line(head) for head in shown.heads]
    rows = [[line(cell.text if isinstance(cell, Link | Picture) else cell) for cell in row] for row in shown.rows]
    _fit(heads, rows, shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDEST)
    drawn = Shown(box=None, padding=(0, BETWEEN, 0, 0), pad_edge=False)
    for number, head in enumerate(heads):
        justify: JustifyMethod = "left" if shown.prose or not number else "right"
        drawn.add_column(Text(head), justify=justify, vertical="bottom", no_wrap=True)
    for row in rows:
        drawn.add_row(*map(Text, row))
    stream = io.StringIO()
    PlainConsole(file=stream, width=WIDEST, color_system=None).print(drawn)
    return "\n".join(text.rstrip() for text in stream.getvalue().splitlines())


def _fit(heads: list[str], rows: list[list[str]], width: int) -> None:
    """Break heads, and then the first cells of rows, into lines, as far as ``width`` columns need it."""
    bodies = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]

    def whole() -> int:
        each = (max(body, *map(cell_len, head.split("\n"))) for head, body in zip(heads, bodies, strict=True))
        return sum(each) + BETWEEN * (len(heads) - 1)

    while whole() > width:  # the head that makes its column widest beyond its cells is broken first
        beyond = [max(map(cell_len, head.split("\n"))) - body for head, body in zip(heads, bodies, strict=True)]
        breakable = [number for number, head in enumerate(heads) if beyond[number] > 0 and " " in head]
        if not breakable:
            break
        number = max(breakable, key=lambda each: beyond[each])
        longest = bodies[number] + beyond[number] - 1
        heads[number] = _broken(heads[number].replace("\n", " "), longest) or heads[number].replace(" ", "\n")
    if (excess := whole() - width) > 0:
        for row in rows:
            row[0] = _broken(row[0], max(bodies[0] - excess, NARROWEST)) or row[0]


def _broken(text: str, width: int) -> str:
    """A text in lines of at most so many columns, broken at spaces; empty where a word is longer."""
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines) if all(cell_len(each) <= width for each in lines) else ""


def line(text: str) -> str:
    """A text in a line of printable characters, its emphasis left out; code keeps its backticks, as in messages."""
    return EMPHASIS.sub(r"\1", one_line(text))
