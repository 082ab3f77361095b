"""Report documents: sections of text, tables and pictures as Markdown, from which the one HTML page is rendered.

Texts are plain: whatever is in them is shown as it is, but for ``*words*``, which are emphasised, and for code between
backticks, such as a command; a name out of a file that holds signs of Markdown is no code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tinymim.files import write_text
from tinymim.report import figures
from tinymim.report.narrow import narrow
from tinymim.safety import escaping

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EMPHASIS = re.compile(r"\*(\S|\S[^*]*[^*\s])\*")
CODE = re.compile(r"(?<!`)`((?! )[^`*\[\]|<>&\\]+(?<! ))`(?!`)")
"""Code in a text: nothing in it could be a tag, a link, an entity or the end of a cell, were it read otherwise."""


@dataclass
class Picture:
    """A figure.

    Args:
        title: stands above it, and is its text for those who see no pictures.
        content: SVG or PNG, which the HTML page embeds.
        files: where it lies too, and its data: paths relative to the document, such as ``figures/distance.png``.
        text: what to see in it, and how it was made.
        wide: takes the whole width of the page.
        narrow: SVG that stands in its place on a page as narrow as a phone's; where it is empty, ``content`` does.
    """

    title: str
    content: bytes
    files: list[str] = field(default_factory=list)
    text: str = ""
    wide: bool = False
    narrow: bytes = b""

    @classmethod
    def saved(cls, drawn: Figure, stem: Path, title: str, text: str = "", wide: bool = False) -> Picture:
        """A figure that is written as STEM.png and STEM.svg, in a folder beside the page."""
        files = [f"{stem.parent.name}/{stem.name}{suffix}" for suffix in (".png", ".svg")]
        return cls(title, figures.save(drawn, stem), files, text, wide, narrow(drawn) if wide else b"")

    @property
    def source(self) -> str:
        """The picture itself, for an ``img``."""
        return figures.data_uri("png" if self.is_raster else "svg+xml", self.content)

    @property
    def is_raster(self) -> bool:
        """Whether it is of pixels."""
        return self.content.startswith(b"\x89PNG")

    @property
    def address(self) -> str:
        """Its address in Markdown: its first file; without files an address that only the HTML page resolves."""
        drawn = (file for file in self.files if file.endswith((".png", ".svg")))
        return quote(next(drawn, f"picture-{id(self)}"))

    def markdown(self) -> str:
        """The image alone."""
        return f"![{escaping.markdown(self.title)}]({self.address})"


@dataclass(frozen=True)
class Link:
    """A text that leads to another page: ``address`` is a path relative to the document."""

    text: str
    address: str

    def markdown(self) -> str:
        """The link; its address is a path, whatever the folder is called."""
        address = self.address if self.address.startswith(".") else f"./{self.address}"
        return f"[{inline(self.text)}]({quote(address)})"


@dataclass
class Table:
    """Rows under heads; the first column names the row.

    Args:
        heads: of the columns.
        rows: of texts, :class:`Picture` and :class:`Link`.
        title: stands above it.
        text: stands below it.
        files: where its data lie.
        prose: its cells are sentences or pictures.
        cards: one row of figures, which the HTML page shows large.
        folded: the HTML page shows it after a click on this text.
    """

    heads: list[str]
    rows: list[list[Any]]
    title: str = ""
    text: str = ""
    files: list[str] = field(default_factory=list)
    prose: bool = False
    cards: bool = False
    folded: str = ""

    def markdown(self) -> str:
        """The table alone, figures to the right; empty without rows."""
        if not self.rows:
            return ""
        rule = ["---", *["---" if self.prose else "---:"] * (len(self.heads) - 1)]
        rows = [[_cell(cell) for cell in row] for row in self.rows]
        lines = [list(map(inline, self.heads)), rule, *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass
class Section:
    """A heading and what stands under it, in this order.

    Args:
        title: the heading; none where it is empty.
        text: paragraphs.
        facts: names and values.
        pictures: side by side where there is room.
        tables: with their titles and texts.
        remarks: paragraphs.
        listings: titles and texts that the HTML page folds away.
    """

    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    listings: list[tuple[str, str]] = field(default_factory=list)

    def markdown(self, links: bool = False) -> str:
        """The section; pictures are named by their files.

        Args:
            links: to the files of tables and pictures, which are relative to the document.
        """
        parts = [f"## {escaping.markdown(self.title)}" if self.title else "", *map(_paragraph, self.text)]
        parts += ["\n".join(f"- {inline(name)}: {inline(value)}" for name, value in self.facts)]
        lines = []
        for picture in self.pictures:
            lines += [f"* **{escaping.markdown(picture.title)}**", f"  {picture.markdown()}"]
            lines += [f"  {caption}"] if (caption := _caption(picture, links)) else []
        parts += ["\n".join(lines)]
        for table in self.tables:
            title = f"**{escaping.markdown(table.title)}**" if table.title else ""
            parts += [title, table.markdown(), _caption(table, links)]
        parts += map(_paragraph, self.remarks)
        for title, text in self.listings:
            parts += [escaping.fenced(text, f"text {escaping.markdown(title.replace('`', ' '))}")]
        return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


@dataclass
class Document:
    """A report.

    Args:
        title: of the page.
        sections: in order.
        about: a sentence or two under the title.
        warning: what nobody may overlook, such as a licence.
        settings: name and value of what decided the results, for the end of the page.
        again: seconds after which a browser reads the page anew; 0 is never.
    """

    title: str
    sections: list[Section]
    about: str = ""
    warning: str = ""
    settings: list[tuple[str, str]] = field(default_factory=list)
    again: int = 0

    def markdown(self) -> str:
        """The whole report; pictures are named by their files."""
        head = [f"# {escaping.markdown(self.title)}", inline(self.about)]
        head += [f"> {inline(self.warning)}" if self.warning else ""]
        made = [Section("How it was made", facts=self.settings)] if self.settings else []
        parts = [*head, *(section.markdown(links=True).rstrip("\n") for section in [*self.sections, *made])]
        return "\n\n".join(part for part in parts if part) + "\n"

    def html(self) -> str:
        """The same as one file that needs no other."""
        from tinymim.report.html_page import render

        pictures = {picture.address: picture for picture in self._pictures()}
        tables = (table for section in self.sections for table in section.tables if table.rows)
        return render(self.title, self.markdown(), pictures, tables, self.again)

    def _pictures(self) -> Iterable[Picture]:
        for section in self.sections:
            yield from section.pictures
            cells = (cell for table in section.tables for row in table.rows for cell in row)
            yield from (cell for cell in cells if isinstance(cell, Picture))

    def write(self, path: Path) -> None:
        """Write ``path`` as HTML or, where it ends in ``.md``, as Markdown; whole or not at all."""
        write_text(path, self.markdown() if path.suffix == ".md" else self.html())


def moved(sections: list[Section], folder: Path, beside: Path) -> list[Section]:
    """Sections whose files are relative to ``folder``, for a page in the folder ``beside``."""
    between = os.path.relpath(folder, beside)
    for section in sections:
        parts: list[Picture | Table] = [*section.pictures, *section.tables]
        for part in parts:
            part.files = [os.path.normpath(f"{between}/{file}") for file in part.files]
    return sections


def _cell(cell: Any) -> str:
    if isinstance(cell, Picture):
        return f"{cell.markdown()} {inline(cell.text)}".rstrip()
    return cell.markdown() if isinstance(cell, Link) else inline(cell)


def inline(text: str) -> str:
    """A line of text as Markdown that shows it as it is, but for ``*words*`` and code."""
    parts = EMPHASIS.split(escaping.one_line(text))
    return "".join(f"*{_coded(part)}*" if number % 2 else _coded(part) for number, part in enumerate(parts))


def _coded(text: str) -> str:
    """Text without emphasis as Markdown: code stays code, whose signs mean nothing; all else is escaped."""
    parts = []
    for number, part in enumerate(CODE.split(text)):
        before, after = part[: len(part) - len(part.lstrip())], part[len(part.rstrip()) :]
        escaped = f"{before}{escaping.markdown(part)}{after}" if part.strip() else part
        parts.append(f"`{part}`" if number % 2 else escaped)
    return "".join(parts)


def _paragraph(text: str) -> str:
    line = inline(text)
    return "\\-" if line == "-" else line  # which would be a list


def _caption(part: Table | Picture, links: bool) -> str:
    """Its text and, with ``links``, where its files lie."""
    files = [f"[{escaping.markdown(Path(file).name)}]({quote(file)})" for file in part.files] if links else []
    return " ".join(filter(None, [inline(part.text), *files]))
