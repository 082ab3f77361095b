"""Types of the arguments that a Python program gives a module; those of recipes are checked where they are read."""

from __future__ import annotations

import os
import typing
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import is_dataclass
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any

import tinymim
from tinymim.errors import TinymimError, several
from tinymim.safety import text
from tinymim.vit.description import Architecture

PLAIN: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "True or False"),
    int: ((Integral,), "a whole number"),
    float: ((Real,), "a number"),
    str: ((str, os.PathLike), "a text"),
    NoneType: ((NoneType,), "None"),
}
"""Types that take a value, and words for them, by the type of an argument."""


def check_types(module: type, given: Mapping[str, Any]) -> None:
    """Raise where arguments of a module's ``__init__`` are of other types than it says. Mappings in place of an object
    are as recipes have them, and told with the mistakes of the recipe.

    Args:
        module: the class whose arguments they are.
        given: the arguments by name, among other things.

    Raises:
        TinymimError: all of them, a line each.
    """
    hints = typing.get_type_hints(module.__init__)  # type: ignore[misc]
    errors = [error for name, hint in hints.items() if name in given and (error := _error(name, given[name], hint))]
    if len(errors) == 1:
        raise TinymimError(errors[0])
    if errors:
        raise several(f"{module.__name__} cannot be built", errors)


def _error(name: str, value: Any, hint: Any) -> str:
    """Why a value cannot be one of a type, with a remedy; empty where it can."""
    if _fits(value, hint):
        return ""
    made: Any = next((part for part in _parts(hint) if is_dataclass(part)), None)
    if made is None:
        what = text.brief(value) if isinstance(value, (str, Sequence, Mapping, Real, NoneType)) else _object(value)
        return f"{name}: {what} is not {' or '.join(dict.fromkeys(map(_words, _parts(hint))))}"
    path = "tinymim" if made.__name__ in tinymim.__all__ else made.__module__
    if made is Architecture and isinstance(value, str):
        return f"{name}: {value!r} is a name; give {path}.Architecture({value!r}, options={{...}})"
    return f"{name}: {_object(value)}; give {path}.{made.__name__}(...)"


def _parts(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; of types that nothing is known of, any is."""
    parts = _parts(hint)
    if len(parts) > 1:
        return any(_fits(value, part) for part in parts)
    if typing.get_origin(hint) is typing.Literal:
        return any(value is known or (type(value) is type(known) and value == known) for known in typing.get_args(hint))
    if hint in PLAIN:
        return isinstance(value, PLAIN[hint][0]) and (hint is bool or not isinstance(value, bool))
    if typing.get_origin(hint) is list:
        held = typing.get_args(hint)[0]
        listed = isinstance(value, Iterable) and isinstance(value, Sized) and not isinstance(value, str | Mapping)
        return listed and all(_fits(each, held) for each in value)
    if is_dataclass(hint):
        return isinstance(value, (typing.cast(type, hint), Mapping))
    return True


def _words(hint: Any) -> str:
    """Words for a type: ``a number``, ``one of 'mean', 'cls'``."""
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(repr, typing.get_args(hint)))}"
    if typing.get_origin(hint) is list:
        held = typing.get_args(hint)[0]
        return f"a list of {PLAIN[held][1].removeprefix('a ')}s" if held in PLAIN else "a list"
    return PLAIN[hint][1] if hint in PLAIN else str(getattr(hint, "__name__", hint))


def _object(value: object) -> str:
    return f"an object of {type(value).__name__}"
