"""Errors of msgspec about a value that does not fit, in the project's words: the field first, by its own names.

A pattern says in words what it takes, in a comment at its end: ``^[a-z]+\\Z(?#small letters)``.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import msgspec

STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
"""Step of msgspec's paths: a field, a place in a list, or ``[...]`` for some entry of a mapping."""

MOST = 100  # entries of a mapping, one of which is looked for by trying each alone


def in_words(error: msgspec.ValidationError | str) -> str:
    """The error without the field, patterns in the words they have."""
    words = str(error).replace("`", "").partition(" - at ")[0]
    words = re.sub(r"str matching regex .*\(\?#([^)]*)\).*", r"\1", words)
    words = re.sub(r"Object contains unknown field (\S+)", r"no such field \1", words)
    words = re.sub(r"Object missing required field (\S+)", r"\1 missing", words)
    return words[:1].lower() + words[1:]


PLAIN = {
    r"int >= (\d+)": r"a whole number, \1 or more",
    r"int <= (\d+)": r"a whole number, \1 or less",
    r"float (>=?|<=?) (\S+)": r"a number \1 \2",
    r"\bint\b": "a whole number",
    r"\bfloat\b": "a number",
    r"\bbool\b": "true, false",
    r"\bstr\b": "a text",
    r"\barray\b": "a list",
    r"\bobject\b": "a mapping",
    r" \| ": " or ",
}
"""msgspec's types, and what they take in words."""


def taken(error: msgspec.ValidationError) -> str:
    """What would be right, to stand behind ``is not``, in words for people who write recipes."""
    words = in_words(error)
    if not words.startswith("expected "):
        return f"what it takes: {words}"
    words = words.removeprefix("expected ").partition(", got ")[0]
    for pattern, plain in PLAIN.items():
        words = re.sub(pattern, plain, words)
    return words


def message(error: msgspec.ValidationError, value: Any = None, schema: Any = None) -> str:
    """msgspec's error as this project says such things: the field first. Entries of mappings, which msgspec does not
    name, are looked for in the ``value`` that was converted to ``schema``."""
    path = str(error).replace("`", "").partition(" - at ")[2]
    where, words = _place(path, value, schema, str(error)), in_words(error)
    if path.startswith("key in "):
        words = f"no name that is taken there: {words}"
    return f"{where}: {words}" if where else words


def _place(path: str, value: Any, schema: Any, words: str) -> str:
    """The dotted names of a path; ``*`` for an entry that is not found."""
    steps = STEP.findall(path)
    if path.startswith("key in "):
        steps.append(("", "..."))
    root = node = copy.deepcopy(value) if ("", "...") in steps else None
    names = ""
    for field, index in steps:
        key: Any = field or (int(index) if index != "..." else _entry(root, node, schema, words))
        names += f".{'*' if key is None else key}" if field or index == "..." else f"[{key}]"
        try:
            node = node[key]  # type: ignore[index]
        except (LookupError, TypeError):
            node = None
    return names.lstrip(".")


def _entry(root: Any, node: Any, schema: Any, words: str) -> Any:
    """The key of the entry of ``node``, somewhere in ``root``, of which that is said; ``node`` keeps it alone."""
    entries = list(node.items()) if isinstance(node, dict) and len(node) <= MOST else []
    for key, inner in entries:
        node.clear()
        node[key] = inner
        try:
            msgspec.convert(root, schema, strict=True)
        except msgspec.ValidationError as error:
            if str(error) == words:
                return key
    return None
