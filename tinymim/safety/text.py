"""YAML and JSON out of files become plain data: mappings, lists, texts, numbers, true, false, null, and nothing else.

Bounds come first, so that a few bytes can ask for neither minutes nor gigabytes: length, depth, the number of values
with YAML's aliases written out, and whole numbers of 64 bits. Dates stay text. Control characters, and those that
change the direction of text or have no width, are taken out, for what is read here is shown on terminals later.
"""

from __future__ import annotations

import codecs
import json as standard
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from tinymim.errors import TinymimError

MOST_YAML = 256 << 10  # bytes. The largest recipe or study of the project has 11 thousand
MOST_JSON = 4 << 20  # bytes. The state of a chain of 100 stages has 0.5 million
MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"} | {
    codecs.BOM_UTF16_LE: "utf-16",  # with which UTF-32's begins
    codecs.BOM_UTF16_BE: "utf-16",
}
DEPTH = 40
VALUES = 200_000
NUMBER = 2**63
IGNORABLE = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters that Unicode calls default ignorable, and marks of direction and line: nothing is seen of them. The two
joiners, which scripts are written with, are none of these."""

UNPRINTABLE = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff{IGNORABLE}]")
"""All but tab and newline: controls, halves of characters, and :data:`IGNORABLE` ones."""

WRONG = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, yaml.YAMLError)
"""Errors of the parsers on texts that are none of theirs."""


MERGE = "tag:yaml.org,2002:merge"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe one, by way of libyaml where it was built with it; dates stay text, and no key comes twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != MERGE]
        if twice := next((key for key, count in Counter(keys).items() if count > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} is there twice", node.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path, what: str) -> Any:
    """The plain data in a YAML file; ``what`` (``teacher card x.yaml``) begins the error.

    Raises:
        TinymimError: no regular file, too long, not YAML, or something else than plain data; in one line.
    """
    return yaml_data(contents(path, what, MOST_YAML), what)


def read_json(path: Path, what: str) -> Any:
    """The plain data in a JSON file; arguments and errors as of :func:`read_yaml`."""
    return json_data(contents(path, what, MOST_JSON), what)


def json_or_empty(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty where there is no file, or not a whole one."""
    try:
        return mapping(read_json(path, str(path)), str(path))
    except TinymimError:
        return {}


def contents(path: Path, what: str, most: int = MOST_YAML) -> str:
    """The text of a regular file of at most ``most`` bytes; errors as of :func:`read_yaml`."""
    try:
        if not path.is_file():
            raise TinymimError(f"{what} cannot be read: there is no file at {path}")
        with path.open("rb") as stream:
            read = stream.read(most + 1)
        if len(read) > most:
            raise TinymimError(f"{what} cannot be read: it has more than the {most:,} bytes that are taken")
        if stands_for_another := re.match(rb"\s*(?:(version https://git-lfs)|<!doctype|<html)", read, re.IGNORECASE):
            kind = "a Git LFS pointer; `git lfs pull` fetches the file" if stands_for_another[1] else "a web page"
            raise TinymimError(f"{what} cannot be read: {path} is {kind}")
        return decoded(read)
    except (OSError, ValueError) as error:
        raise unreadable(what, error) from None


def decoded(data: bytes) -> str:
    """The text that bytes are in UTF-8, or in UTF-16 or UTF-32 where a mark begins them, as spreadsheets write it.

    Raises:
        ValueError: they are none.
    """
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8-sig")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise ValueError(f"byte {error.start} is no {name} text; save it as UTF-8") from None
    if "\0" in text[:64]:
        raise ValueError("it holds NUL, as UTF-16 without its mark does; save it as UTF-8")
    return text


def yaml_data(text: str, what: str) -> Any:
    """The plain data that YAML ``text`` stands for; ``what`` and errors as of :func:`read_yaml`."""
    check_yaml(text, what)
    try:
        return plain(yaml.load(text, Loader=_Loader), what)  # a safe one
    except WRONG as error:
        raise unreadable(what, error) from None


def json_data(text: str, what: str) -> Any:
    """The plain data that JSON ``text`` stands for; ``what`` and errors as of :func:`read_yaml`."""
    try:
        if len(text) > MOST_JSON:
            raise ValueError(f"it has more than the {MOST_JSON:,} characters that are taken")
        return plain(standard.loads(text), what)
    except WRONG as error:
        raise unreadable(what, error) from None


def check_yaml(text: str, what: str, values: int = VALUES) -> None:
    """Raise where YAML asks for more than it holds, or for more than so many ``values`` with aliases written out: by
    aliases of aliases, by depth, by a ring; nothing is built."""
    sizes: dict[str, tuple[int, int]] = {}
    open_: list[tuple[str | None, int, int]] = []
    total = characters = 0
    try:
        if len(text) > MOST_YAML:
            raise ValueError(f"it has more than the {MOST_YAML:,} characters that are taken")
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent):
                if event.anchor in (anchor for anchor, *_ in open_):
                    raise ValueError(f"*{event.anchor} stands inside of itself")
                more, longer = sizes.get(str(event.anchor), (1, 0))
                total, characters = total + more, characters + longer
            elif isinstance(event, yaml.CollectionStartEvent):
                open_.append((event.anchor, total, characters))
                total += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before, shorter = open_.pop()
                sizes[anchor or ""] = total - before, characters - shorter
            elif isinstance(event, yaml.ScalarEvent):
                total, characters = total + 1, characters + len(event.value)
                sizes[event.anchor or ""] = 1, len(event.value)
            if total > values or len(open_) > DEPTH:
                raise ValueError(f"it has more than {values:,} values, or is more than {DEPTH} deep")
            if characters > MOST_JSON:
                raise ValueError(f"its aliases, written out, are more than {MOST_JSON:,} characters long")
    except WRONG as error:
        raise unreadable(what, error) from None


def plain(value: Any, what: str, depth: int = 0) -> Any:
    """``value`` as plain data, tuples as lists, unprintable characters taken out.

    Raises:
        TinymimError: another type in it, a number of more than 64 bits, or more than :data:`DEPTH` levels.
    """
    if depth > DEPTH:
        raise TinymimError(f"{what} is more than {DEPTH} deep")
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str | int | float | bool | None):
                raise TinymimError(f"{what} has a key of type {type(key).__name__}, where a name belongs")
        return {plain(key, what): plain(inner, what, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, what, depth + 1) for inner in value]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -NUMBER < value < NUMBER:
        return value
    number = isinstance(value, int)
    raise TinymimError(
        f"{what} has {'a whole number of more than 64 bits' if number else f'a {type(value).__name__}'}, "
        f"where {'an ordinary one' if number else 'plain data'} belongs"
    )


def printable(text: str) -> str:
    """``text`` without :data:`UNPRINTABLE` characters."""
    return UNPRINTABLE.sub("", text)


BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols that show nothing


def folded(text: str) -> str:
    """``text`` for comparisons by what a reader sees: NFKD, without case, accents, or characters that show nothing."""
    shown = "".join(
        character
        for character in unicodedata.normalize("NFKD", text)
        if character in "\t\n\r" or (character not in BLANK and unicodedata.category(character)[0] not in "CM")
    )
    return unicodedata.normalize("NFKD", shown.casefold())


def words(text: str) -> str:
    """:func:`folded` words of ASCII with one space between them, whatever parts them: a dash, a space, ``_``, a dot."""
    return " ".join(re.findall("[a-z0-9]+", folded(text)))


def mapping(value: Any, what: str) -> dict[str, Any]:
    """``value``, or an error where that is no mapping whose keys are texts."""
    if not isinstance(value, dict):
        raise TinymimError(f"{what} cannot be read: it holds {brief(value)}, where a mapping of names belongs")
    if wrong := [key for key in value if not isinstance(key, str)]:  # null among them
        raise TinymimError(f"{what} has the key {wrong[0]!r}, where a name belongs")
    return value


def brief(value: Any, most: int = 60) -> str:
    """``repr(value)``, cut where it is long."""
    shown = printable(repr(value if not isinstance(value, dict | list | str) else _cut(value)))
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(list(value.items())[:8])
    return value[:200] if isinstance(value, str) else value[:8]


def unreadable(what: str, error: Exception) -> TinymimError:
    """The error for a text on which a parser stumbled, in one line."""
    reason = printable(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, RecursionError):
        reason = f"it is more than {DEPTH} deep"
    elif isinstance(error, OSError):
        reason = error.strerror or reason
    return TinymimError(f"{what} cannot be read: {reason[:300]}")
