"""Report documents for a terminal: the words and tables of their Markdown, without its marks and escapes."""

from __future__ import annotations

import io

from rich.table import Table as Shown

from tinymim.report.document import EMPHASIS, Document, Link, Picture, Section, Table
from tinymim.safety.console import PlainConsole
from tinymim.safety.escaping import one_line

WIDEST = 100_000
"""Columns of a table at most, so that no cell is folded: a terminal breaks long lines by itself."""


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
    """A table, figures to the right; empty without rows."""
    if not shown.rows:
        return ""
    drawn = Shown(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for number, head in enumerate(shown.heads):
        drawn.add_column(line(head), justify="left" if shown.prose or not number else "right", no_wrap=True)
    for row in shown.rows:
        drawn.add_row(*(line(cell.text if isinstance(cell, Link | Picture) else cell) for cell in row))
    stream = io.StringIO()
    PlainConsole(file=stream, width=WIDEST, color_system=None).print(drawn)
    return "\n".join(text.rstrip() for text in stream.getvalue().splitlines())


def line(text: str) -> str:
    """A text in a line of printable characters, its emphasis left out; code keeps its backticks, as in messages."""
    return EMPHASIS.sub(r"\1", one_line(text))
