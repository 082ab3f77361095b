"""The one HTML page of all reports, rendered from their Markdown: self-contained, everything in it escaped.

Its policy lets it load nothing, and run the one script that it comes with, which is known by its sha256.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import pairwise
from string import Template
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml, unescapeAll
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from tinymim import __version__
from tinymim.report.inline_svg import inline

if TYPE_CHECKING:
    from tinymim.report.document import Picture, Table

NAV = 4
"""Sections from which on a page begins with links to them."""

SORTED = 3
"""Rows from which on a table can be sorted."""

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{}'; base-uri 'none'; form-action 'none'"
)
"""Content security policy; figures have styles of their own."""


class Renderer(RendererHTML):
    """markdown-it's, with embedded pictures, folded listings and tables that scroll by themselves."""

    def image(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """A figure, or an ``img`` whose source is the picture itself."""
        picture: Picture | None = env["pictures"].get(tokens[idx].attrs["src"])
        if picture and not picture.is_raster:
            kinds = {"wide": picture.content} if picture.wide else {"": picture.content}
            drawn = {**kinds, "narrow": picture.narrow} if picture.narrow else kinds
            return "".join(inline(svg, picture.title, next(env["numbers"]), kind) for kind, svg in drawn.items())
        if picture:
            tokens[idx].attrSet("src", picture.source)
            if picture.wide:
                tokens[idx].attrSet("class", "wide")
        return super().image(tokens, idx, options, env)

    def fence(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """A listing under its title, which follows the name of the language."""
        title = unescapeAll(tokens[idx].info).partition(" ")[2]
        content = escapeHtml(tokens[idx].content)
        return f"<details><summary>{escapeHtml(title)}</summary><pre>{content}</pre></details>\n"

    def table_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """A table inside what scrolls where it is wider than the page, or folds it away."""
        folded = tokens[idx].meta.get("folded")
        before = f"<details><summary>{escapeHtml(folded)}</summary>" if folded else ""
        return f'{before}<div class="scroll" tabindex="0">{self.renderToken(tokens, idx, options, env)}'

    def table_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """Its end."""
        after = "</details>\n" if tokens[idx].meta.get("folded") else ""
        return f"{self.renderToken(tokens, idx, options, env)}</div>\n{after}"


def render(
    title: str, markdown: str, pictures: Mapping[str, Picture], tables: Iterable[Table] = (), again: int = 0
) -> str:
    """The page of a report.

    Args:
        title: of the window.
        markdown: of the report.
        pictures: by the address that stands in it.
        tables: in their order there.
        again: seconds after which a browser reads the page anew; 0 is never.
    """
    parser = MarkdownIt("commonmark", {"html": False}, renderer_cls=Renderer).enable("table")
    env = {"pictures": pictures, "numbers": iter(range(1, len(markdown) + 1))}
    tokens = parser.parse(markdown, env)
    titles = _number_sections(tokens)
    _label_cells(tokens, iter(tables))
    links = " ".join(f'<a href="#s{number}">{escapeHtml(name)}</a>' for number, name in enumerate(titles, start=1))
    files = resources.files("tinymim.report")
    script = files.joinpath("page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(files.joinpath("page.html").read_text()).substitute(
        title=escapeHtml(title),
        policy=POLICY.format(f"sha256-{digest}"),
        again=f'<meta http-equiv="refresh" content="{again}">\n' if again else "",
        style=files.joinpath("page.css").read_text().rstrip(),
        script=script,
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


def _label_cells(tokens: list[Token], tables: Iterator[Table]) -> None:
    """Note in each cell its column's head, which narrow screens show, and the form of each table."""
    heads: list[str] = []
    table, column = None, 0
    for token, inner in pairwise(tokens):
        if token.type == "table_open":
            heads, table = [], next(tables, None)
            if table and (name := _form(table)):
                token.attrSet("class", name)
        elif token.type == "tr_open":
            column = 0
        elif token.type == "th_open":
            heads.append("".join(part.content for part in inner.children or []))
        elif token.type == "td_open":
            token.attrSet("data-head", heads[column])
            column += 1
        if token.type in ("table_open", "table_close") and table and table.folded:
            token.meta["folded"] = table.folded


def _form(table: Table) -> str:
    """Classes of a table: cards, sentences, or figures that can be sorted."""
    sortable = len(table.rows) >= SORTED and not table.prose
    return "cards" if table.cards else "prose" if table.prose else "sortable" if sortable else ""
