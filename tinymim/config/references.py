"""Values of the environment stay references: ``${oc.env:KEY}`` is kept, saved and shown as that, and read when used.

A recipe may name a key or a path of one machine so. It is put in place where something is built from the recipe, and
nowhere else, so that run folders, pages, captured steps and model cards hold the reference; whoever resumes has it
read again. A value that is decoded, as ``${oc.decode:${oc.env:BATCH}}``, likewise.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from tinymim.errors import TinymimError
from tinymim.safety.text import brief

REFERENCE = re.compile(r"\$\{oc\.(?:decode:\$\{oc\.env:[^{}]*\}|env:[^{}]*)\}")
LINK = re.compile(
    r"\$\{\s*(?:oc\.(?:select|dict\.keys|dict\.values|decode|env):)?\s*([^\\{}()\s:'\"$,\0]+|\0)\s*(?:,[^{}$]*)?\}"
)
"""A reference of a recipe to a place in itself, or what is left of one around another, which ``\\0`` stands for."""
KEY = re.compile(r"oc\.env:\s*([^,{}]+?)\s*[,}]")

OPEN, CLOSE = "\ue000", "\ue001"
"""Around a reference while a recipe is resolved: of Unicode's private use, which no recipe holds."""

EFFORT = 25
"""Characters that following a reference counts as, for the time it takes."""

SHORT = 4
"""Characters; values that are no longer are not looked for in messages, for they are in every other one."""

CUT = 24
"""Characters by which a longer value is known, for messages cut values."""

Place = tuple[str | int, ...]


def _env(*parts: Any) -> str:
    words = ["null" if part is None else str(part) for part in parts]
    return f"{OPEN}oc.env:{','.join(words)}{CLOSE}"


def _decode(expression: Any, _parent_: Any, _node_: Any) -> Any:
    if isinstance(expression, str) and OPEN in expression:
        return expression.replace(OPEN, f"{OPEN}oc.decode:${{", 1).replace(CLOSE, f"}}{CLOSE}", 1)
    return oc.decode(expression, _parent_, _node_)


@contextmanager
def kept() -> Iterator[None]:
    """Within it, OmegaConf puts marks in place of the environment's values, which :func:`written` reads."""
    known = dict(BaseContainer._resolvers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from 2.4 on another name is preferred, which meant something else before
        OmegaConf.register_new_resolver("oc.env", _env, replace=True)
        OmegaConf.register_new_resolver("oc.decode", _decode, replace=True)
    try:
        yield
    finally:
        BaseContainer._resolvers.update(known)  # as they were registered: 2.4 registers its own in another way


def written(node: Any) -> Any:
    """Plain data with references in place of the marks of :func:`kept`."""
    return _mapped(node, lambda text: text.replace(OPEN, "${").replace(CLOSE, "}"))


def filled(node: Any, place: Place = ()) -> Any:
    """Plain data with the environment's values in place of the references to them.

    Raises:
        TinymimError: a variable is not set; the message names it, and where it is used.
    """
    if isinstance(node, dict):
        return {key: filled(value, (*place, key)) for key, value in node.items()}
    if isinstance(node, list):
        return [filled(value, (*place, number)) for number, value in enumerate(node)]
    if not isinstance(node, str) or "${oc." not in node:
        return node
    if REFERENCE.fullmatch(node):
        return _value(node, place)
    return REFERENCE.sub(lambda match: str(_value(match[0], place)), node)


def _value(reference: str, place: Place) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.create({"value": reference}), resolve=True)["value"]  # type: ignore[index, call-overload]
    except (OmegaConfBaseException, KeyError):
        key = KEY.search(reference)
        raise TinymimError(
            f"{_said(place)}: reads {reference}, and the environment variable "
            f"{key[1] if key else reference} is not set, or is nothing that can be decoded; set it"
        ) from None


def places(node: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Places in plain data that hold references, and the text of each."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(value, (*place, key))
    elif isinstance(node, str) and REFERENCE.search(node):
        yield place, node


def put_back(node: Any, held: list[tuple[Place, str]]) -> Any:
    """Plain data of :func:`filled`, with the references in their places again.

    Args:
        node: as it was saved; changed in place.
        held: of :func:`places`, in the recipe it was made from.

    Returns:
        The same, in which no value of a referenced variable is left, wherever a parser may have put it.
    """
    for place, text in held:
        inner = node
        try:
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]]
        except (KeyError, IndexError, TypeError):
            continue
        inner[place[-1]] = text
    return without_values(node, held)


def without_values(node: Any, held: list[tuple[Place, str]]) -> Any:
    """Plain data whose texts are :func:`hidden`."""
    return _mapped(node, lambda text: hidden(text, held)) if held else node


def written_out(node: Any) -> int:
    """Characters of a recipe with its references to itself, ``${model.init_args.optim}``, in place, and
    :data:`EFFORT` for each that is followed. A few hundred characters of references to references would ask for
    gigabytes.

    Raises:
        TinymimError: a reference of another form, whose size cannot be told, or one that leads back to itself.
    """
    known: dict[Place, int | None] = {}

    def size(place: Place) -> int:
        if place not in known:
            known[place] = None  # while it is looked at
            known[place] = measure(place)
        if (count := known[place]) is None:
            raise TinymimError(f"{_said(place)}: refers to itself; say the value in one of the places")
        return count

    def measure(place: Place) -> int:
        value = node
        for number, key in enumerate(place):
            if isinstance(value, str):  # the way goes on at what it refers to
                here, rest = place[:number], place[number:]
                return sum(EFFORT + size((*_aim(link, here), *rest)) for link in _links(value, here))
            try:
                value = value[int(key)] if isinstance(value, list) else value[key]
            except (LookupError, TypeError, ValueError):
                return 0
        if isinstance(value, dict | list):
            keys = value if isinstance(value, dict) else range(len(value))
            return 1 + sum(size((*place, key)) for key in keys)
        if isinstance(value, str):
            return len(value) + sum(EFFORT + size(_aim(link, place)) for link in _links(value, place))
        return 1

    return size(())


def _links(text: str, place: Place) -> list[str]:
    """The places in a recipe that a text refers to, ``a.b[0]``; errors as of :func:`written_out`."""
    links: list[str] = []

    def followed(link: re.Match[str]) -> str:
        links.append(link[1])
        return "\0"

    left, count = REFERENCE.sub("\0", text), 1
    while count:
        left, count = LINK.subn(followed, left)
    if "${" in left:
        raise TinymimError(
            f"{_said(place)}: {brief(text)}: a reference is ${{a.b}}, ${{oc.select:a.b,DEFAULT}}, ${{oc.env:KEY}} or "
            "${oc.decode:${oc.env:KEY}}, and none is made of others"
        )
    return [link for link in links if link != "\0"]


def _said(place: Place) -> str:
    return ".".join(map(str, place)) or "a value"


def _aim(reference: str, place: Place) -> Place:
    """Place that ``a.b[0]``, or ``.b`` beside ``place``, leads to."""
    dots = len(reference) - len(reference.lstrip("."))
    above = place[: len(place) - dots] if dots else ()
    return (*above, *re.findall(r"[^.\[\]]+", reference))


def hidden(text: str, held: list[tuple[Place, str]]) -> str:
    """``text`` with references in place of the values they stand for, which are long enough to be told apart; also of a
    value that a message cuts."""
    keys = dict.fromkeys(key for _, reference in held for key in KEY.findall(reference))
    known = {value: key for key in keys for value in _forms(os.environ.get(key, "")) if len(value) >= SHORT}
    written = {quoted: key for value, key in known.items() for quoted in (value, repr(value)[1:-1])}
    ways = [(REFERENCE.pattern, "")]
    ways += [(re.escape(value), written[value]) for value in sorted(written, key=len, reverse=True)]
    ways += [(f"{re.escape(value[:CUT])}.*?\\.\\.\\.", key) for value, key in written.items() if len(value) > CUT]

    def put(match: re.Match[str]) -> str:
        key = ways[(match.lastindex or 1) - 1][1]
        return f"${{oc.env:{key}}}" if key else match[0]

    return re.sub("|".join(f"({way})" for way, _ in ways), put, text)


def _forms(value: str) -> set[str]:
    """``value``, and what becomes of it in a path: ``//``, ``/./`` and a final ``/`` are folded, links followed."""
    paths = {str(Path(value)), os.path.normpath(value)} if "/" in value and "\0" not in value else set()
    return {value, *paths, *((os.path.realpath(value),) if value.startswith("/") else ())}


@contextmanager
def hiding(node: Any) -> Iterator[None]:
    """Within it, errors say the references that plain data holds, and not the values they stand for."""
    held = list(places(node))
    try:
        yield
    except TinymimError as error:
        if (words := hidden(str(error), held)) == str(error):
            raise
        raise TinymimError(words) from None


def _mapped(node: Any, change: Any) -> Any:
    if isinstance(node, dict):
        return {key: _mapped(value, change) for key, value in node.items()}
    if isinstance(node, list):
        return [_mapped(value, change) for value in node]
    return change(node) if isinstance(node, str) else node
