"""The one kind of console that tables and bars are drawn on: what is printed there is shown as it is.

rich reads ``[bold]``, ``[/b]``, ``[link=...]`` and ``:smile:`` in each text as its own language. Names, licences and
cells come out of files, where the first ends in an error, and the others change what is seen; colours are given beside
a text, as a style.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from tinymim.safety.escaping import terminal


class PlainConsole(Console):
    """A console that takes texts literally, in tables too, and spells out control characters; ``options`` are
    rich's."""

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        """``text`` as it is, whatever is asked for: all that rich prints as a plain ``str`` comes by here."""
        text = terminal(text)
        if "highlighter" not in options:  # not printed itself, but a cell of a table: names in it forge no lines
            text = text.replace("\n", "\\n").replace("\t", "\\t")
        return super().render_str(text, **{**options, "markup": False, "emoji": False})
