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
from typing import Any

from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from tinymim.errors import TinymimError

REFERENCE = re.compile(r"\$\{oc\.(?:decode:\$\{oc\.env:[^{}]*\}|env:[^{}]*)\}")
OWN = re.compile(r"\$\{([\w.\[\]]+)\}")
KEY = re.compile(r"oc\.env:\s*([^,{}]+?)\s*[,}]")

OPEN, CLOSE = "\ue000", "\ue001"
"""Around a reference while a recipe is resolved: of Unicode's private use, which no recipe holds."""

SHORT = 4
"""Characters; values that are no longer are not looked for in messages, for they are in every other one."""

CUT = 24
"""Characters by which a longer value is known, for messages cut values."""

Place = tuple[str | int, ...]


def _env(*parts: Any) -> str:
    told = ["null" if part is None else str(part) for part in parts]
    return f"{OPEN}oc.env:{','.join(told)}{CLOSE}"


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
    return REFERENCE.sub(lambda found: str(_value(found[0], place)), node)


def _value(reference: str, place: Place) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.create({"value": reference}), resolve=True)["value"]  # type: ignore[index, call-overload]
    except (OmegaConfBaseException, KeyError):
        key = KEY.search(reference)
        where = ".".join(map(str, place)) or "a value"
        raise TinymimError(
            f"{where}: reads {reference}, and the environment variable {key[1] if key else reference} is not set, or "
            "is nothing that can be decoded; set it"
        ) from None


def places(node: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Where plain data holds references, and each text that does."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(value, (*place, key))
    elif isinstance(node, str) and REFERENCE.search(node):
        yield place, node


def put_back(node: Any, found: list[tuple[Place, str]]) -> Any:
    """Plain data of :func:`filled`, with the references in their places again.

    Args:
        node: as it was saved; changed in place.
        found: of :func:`places`, in the recipe it was made from.

    Returns:
        The same, in which no value of a referenced variable is left, wherever a parser may have put it.
    """
    for place, text in found:
        inner = node
        try:
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]]
        except (KeyError, IndexError, TypeError):
            continue
        inner[place[-1]] = text
    return _mapped(node, lambda text: hidden(text, found))


def written_out(node: Any) -> int:
    """Characters of a recipe with its references to itself, ``${model.init_args.optim}``, in place; a ring counts none.

    A few hundred characters of references to references would ask for gigabytes.
    """
    known: dict[Place, int] = {}

    def size(place: Place) -> int:
        if place in known:
            return known[place]
        known[place] = 0  # while it is looked at: a ring
        value = _at(node, place)
        if isinstance(value, dict):
            known[place] = 1 + sum(size((*place, key)) for key in value)
        elif isinstance(value, list):
            known[place] = 1 + sum(size((*place, number)) for number in range(len(value)))
        elif isinstance(value, str):
            known[place] = len(value) + sum(size(_aim(found, place)) for found in OWN.findall(value))
        return known[place]

    return size(())


def _aim(reference: str, place: Place) -> Place:
    """Where ``a.b[0]``, or ``.b`` beside ``place``, leads."""
    dots = len(reference) - len(reference.lstrip("."))
    above = place[: len(place) - dots] if dots else ()
    parts = re.findall(r"[^.\[\]]+", reference)
    return (*above, *(int(part) if part.isdecimal() and len(part) < 9 else part for part in parts))


def _at(node: Any, place: Place) -> Any:
    for key in place:
        try:
            node = node[key]
        except (KeyError, IndexError, TypeError):
            return None
    return node


def hidden(text: str, found: list[tuple[Place, str]]) -> str:
    """``text`` with references in place of the values they stand for, which are long enough to be told apart; also of a
    value that a message cuts."""
    keys = dict.fromkeys(key for _, reference in found for key in KEY.findall(reference))
    known = {value: key for key in keys if len(value := os.environ.get(key, "")) >= SHORT}
    written = {quoted: key for value, key in known.items() for quoted in (value, repr(value)[1:-1])}
    ways = [(REFERENCE.pattern, "")]
    ways += [(re.escape(value), written[value]) for value in sorted(written, key=len, reverse=True)]
    ways += [(f"{re.escape(value[:CUT])}.*?\\.\\.\\.", key) for value, key in written.items() if len(value) > CUT]

    def put(match: re.Match[str]) -> str:
        key = ways[(match.lastindex or 1) - 1][1]
        return f"${{oc.env:{key}}}" if key else match[0]

    return re.sub("|".join(f"({way})" for way, _ in ways), put, text)


@contextmanager
def hiding(node: Any) -> Iterator[None]:
    """Within it, errors say the references that plain data holds, and not the values they stand for."""
    found = list(places(node))
    try:
        yield
    except TinymimError as error:
        if (told := hidden(str(error), found)) == str(error):
            raise
        raise TinymimError(told) from None


def _mapped(node: Any, change: Any) -> Any:
    if isinstance(node, dict):
        return {key: _mapped(value, change) for key, value in node.items()}
    if isinstance(node, list):
        return [_mapped(value, change) for value in node]
    return change(node) if isinstance(node, str) else node
