"""A document: sections of text, tables and pictures, as one HTML file that needs no other, or as Markdown."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from tinymim import __version__
from tinymim.files import write_text
from tinymim.report.figures import data_uri
from tinymim.safety import shown


@dataclass
class Picture:
    """A figure.

    Args:
        title: stands above it.
        content: SVG or PNG.
        files: where it lies too, and its data: paths relative to the document, such as ``figures/distance.png``.
        text: what to see in it, and how it was made; also for those who see no pictures.
        wide: takes the whole width of the page.
    """

    title: str
    content: bytes
    files: list[str] = field(default_factory=list)
    text: str = ""
    wide: bool = False

    @property
    def source(self) -> str:
        """The picture itself, for an ``img``."""
        return data_uri("png" if self.content.startswith(b"\x89PNG") else "svg+xml", self.content)


@dataclass
class Table:
    """Rows of text under heads; the first column names the row. ``files`` is where its data lie too, ``prose`` cells of
    sentences."""

    heads: list[str]
    rows: list[list[str]]
    title: str = ""
    text: str = ""
    files: list[str] = field(default_factory=list)
    prose: bool = False

    def markdown(self) -> str:
        """As Markdown, figures to the right; empty without rows."""
        if not self.rows:
            return ""
        lines = [self.heads, ["---", *["---:"] * (len(self.heads) - 1)], *self.rows]
        return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


@dataclass
class Section:
    """A heading and what stands under it, in this order: paragraphs, tables, pictures, remarks in small print."""

    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """As Markdown; pictures are named by their files."""
        parts = [f"## {shown.paragraph(self.title)}", *map(shown.paragraph, self.text)]
        for table in self.tables:
            title = f"**{shown.paragraph(table.title)}**" if table.title else ""
            parts += [title, table.markdown(), shown.paragraph(table.text)]
        for picture in self.pictures:
            drawn = next((file for file in picture.files if file.endswith((".png", ".svg"))), None)
            title = shown.paragraph(picture.title)
            parts += [f"![{title}]({drawn})" if drawn else f"**{title}**", shown.paragraph(picture.text)]
        return "\n\n".join(part for part in [*parts, *map(shown.paragraph, self.remarks)] if part) + "\n"


@dataclass
class Document:
    """All of it.

    Args:
        title: of the page.
        sections: in order.
        about: a sentence or two under the title.
        warning: what nobody may overlook, such as a licence.
        settings: name and value of what decided the results, for the end of the page.
    """

    title: str
    sections: list[Section] = field(default_factory=list)
    about: str = ""
    warning: str = ""
    settings: list[tuple[str, str]] = field(default_factory=list)

    def html(self) -> str:
        """One file that needs no other."""
        return rendered("tinymim.report", "document.html", document=self)

    def markdown(self) -> str:
        """The same; pictures are named by their files."""
        settings = "\n".join(f"- {shown.paragraph(name)}: {shown.paragraph(value)}" for name, value in self.settings)
        warning = f"> {shown.paragraph(self.warning)}" if self.warning else ""
        head = [f"# {shown.paragraph(self.title)}", shown.paragraph(self.about), warning]
        parts = [*head, *(section.markdown().rstrip("\n") for section in self.sections), settings]
        return "\n\n".join(part for part in parts if part) + "\n"

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


def rendered(package: str, name: str, **values: Any) -> str:
    """A page from a package's Jinja template, which may name ``style``, ``written`` and ``version`` too."""
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters["emphasised"] = _emphasised
    template = resources.files(package).joinpath(name).read_text()
    style = Markup(resources.files("tinymim.report").joinpath("style.css").read_text())
    now = time.strftime("%Y-%m-%d %H:%M")
    return environment.from_string(template).render(style=style, written=now, version=__version__, **values)


def _cell(text: str) -> str:
    """A cell of a table in Markdown: a line, without tags; emphasis is ours."""
    return shown.one_line(text).replace("|", "/").replace("<", "&lt;")


def _emphasised(text: str) -> Any:
    """``*words*`` as HTML, everything else escaped."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"\*([^*\s][^*]*)\*", r"<em>\1</em>", str(escape(text))))
