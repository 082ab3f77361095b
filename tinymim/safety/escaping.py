"""Text that leaves the project, escaped for where it goes; pages of HTML are escaped by their templates."""

from __future__ import annotations

import re
from typing import Any

from tinymim.safety.text import UNPRINTABLE


def terminal(text: str) -> str:
    """``text`` with control characters spelt out, so that none of it moves the cursor, renames a window or hides."""
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def address(url: str) -> str:
    """A URL without what may be a secret in it: a user, a password, the words after ``?``."""
    url = re.sub(r"(://)[^/@]*:(?!\d*(?:[/?#]|$))[^@]*@", r"\1...@", url)  # a password with signs that end a host
    return re.sub(r"(://)[^/?#]*@", r"\1...@", re.sub(r"[?#].*", "?...", url))


def one_line(text: str) -> str:
    """``text`` in a line of printable characters."""
    return " ".join(UNPRINTABLE.sub("", " ".join(str(text).split())).split())  # a space may be what is left of a line


def markdown(text: str) -> str:
    """``text`` in a line of Markdown that shows it as it is: no heading, tag, link, emphasis, cell or rule.

    Words as ``vit_tiny_patch16_224`` keep their underscores: within a word they mean nothing.
    """
    escaped = re.sub(r"([\\`*\[\]|~])", r"\\\1", one_line(text))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped)
    return escaped if escaped == "-" else _begins_nothing(escaped)


def _begins_nothing(line: str) -> str:
    """A line of Markdown that is no heading, list, quote, rule, reference or block of code, and ends no heading."""
    line = re.sub(r"(^|(?<=\s))(#+)$", r"\1\\\2", line)
    line = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", line)
    return re.sub(r"^(#{1,6}(?=\s|$)|[>|\[]|[=+-](?=\s|$)|-{3,}|={2,}|`{3}|~{3})", r"\\\1", line)


def fenced(text: str, language: str = "") -> str:
    """``text`` as a block of code that nothing in it can end."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def uncelled(text: str) -> str:
    """Undo :func:`cell`."""
    return text[1:] if re.match(r"'[=+@-]", text) else text


def cell(value: Any) -> Any:
    """``value`` as a cell of CSV that no spreadsheet computes; numbers stay as they are."""
    if not isinstance(value, str) or not re.match(r"[=+@\t\r-]", value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
