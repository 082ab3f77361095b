"""Mistakes in a command's words, as argparse and jsonargparse find them, in words of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tinymim.near_names import nearest

TYPES = {"int": "a whole number", "float": "a number", "Path": "a path"}
"""Types of argparse's arguments, and what they take in words."""


def in_words(message: str, options: Iterable[str] = ()) -> str:
    """A message of argparse's, the argument first, then what is wrong with it and what would be right.

    Args:
        message: one line.
        options: names that there are, of which one may have been meant.
    """
    message = re.sub(r"^argument (?:-\w/)?(.+?): ", r"\1: ", message)
    if strange := re.match(r"unrecognized arguments: (.*)", message):
        word = next((word for word in strange[1].split() if word.startswith("-")), strange[1])
        name = word.partition("=")[0]
        near = nearest(name.lstrip("-"), [option.lstrip("-") for option in options], 1)
        if not name.startswith("-"):
            return f"{strange[1]}: more than is asked for"
        return f"{name}: no such option" + (f"; did you mean --{near[0]}?" if near else "")
    if choice := re.match(r"(.*): invalid choice: (.*) \(choose from (.*)\)$", message):
        known = [name.strip(" '") for name in choice[3].split(",")]
        near = nearest(choice[2].strip("'"), known, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        return f"{choice[1]}: {choice[2]} is none of {', '.join(known)}{meant}"
    message = re.sub(r"invalid (\w+) value: (.*)", lambda m: f"{m[2]} is not {TYPES.get(m[1], m[1])}", message)
    return re.sub(r"expected (one|at least one) argument$", "its value is missing", message)
