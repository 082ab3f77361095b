"""The one HTML page of all reports, rendered from their Markdown: self-contained, everything in it escaped."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import pairwise
from string import Template
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml, unescapeAll
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from tinymim import __version__

NAV = 4
"""Sections from which on a page begins with links to them."""


class Renderer(RendererHTML):
    """markdown-it's, with embedded pictures, folded listings and tables that scroll by themselves."""

    def image(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """An ``img`` whose source is the picture itself."""
        source, wide = env["pictures"].get(tokens[idx].attrs["src"], (None, False))
        if source:
            tokens[idx].attrSet("src", source)
        if wide:
            tokens[idx].attrSet("class", "wide")
        return super().image(tokens, idx, options, env)

    def fence(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """A listing under its title, which follows the name of the language."""
        title = unescapeAll(tokens[idx].info).partition(" ")[2]
        content = escapeHtml(tokens[idx].content)
        return f"<details><summary>{escapeHtml(title)}</summary><pre>{content}</pre></details>\n"

    def table_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """A table inside what scrolls where it is wider than the page."""
        return '<div class="scroll">' + self.renderToken(tokens, idx, options, env)

    def table_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """Its end."""
        return self.renderToken(tokens, idx, options, env) + "</div>\n"


def render(title: str, markdown: str, pictures: Mapping[str, tuple[str, bool]]) -> str:
    """The page of a report.

    Args:
        title: of the window.
        markdown: of the report.
        pictures: source of each by the address that stands in it, and whether it takes the whole width.
    """
    parser = MarkdownIt("commonmark", {"html": False}, renderer_cls=Renderer).enable("table")
    env = {"pictures": pictures}
    tokens = parser.parse(markdown, env)
    titles = _number_sections(tokens)
    _label_cells(tokens)
    links = " ".join(f'<a href="#s{number}">{escapeHtml(name)}</a>' for number, name in enumerate(titles, start=1))
    page = Template(resources.files("tinymim.report").joinpath("page.html").read_text())
    return page.substitute(
        title=escapeHtml(title),
        nav=f"<nav>{links}</nav>" if len(titles) >= NAV else "",
        body=parser.renderer.render(tokens, parser.options, env),
        written=time.strftime("%Y-%m-%d %H:%M"),
        version=__version__,
    )


def _number_sections(tokens: list[Token]) -> list[str]:
    """Give sections the ids s1, s2, ... and return their titles."""
    titles = []
    for token, inner in pairwise(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            titles.append("".join(part.content for part in inner.children or []))
            token.attrSet("id", f"s{len(titles)}")
    return titles


def _label_cells(tokens: list[Token]) -> None:
    """Note in each cell its column's head, which narrow screens show, and mark tables whose cells are sentences: those
    in which no column is set to the right."""
    heads: list[str] = []
    table, column, aligned = None, 0, False
    for token, inner in pairwise(tokens):
        if token.type == "table_open":
            heads, table, aligned = [], token, False
        elif token.type == "tr_open":
            column = 0
        elif token.type == "th_open":
            heads.append("".join(part.content for part in inner.children or []))
            aligned = aligned or "style" in token.attrs
        elif token.type == "td_open":
            token.attrSet("data-head", heads[column])
            column += 1
        elif token.type == "table_close" and table and not aligned and len(heads) > 1:
            table.attrSet("class", "prose")
