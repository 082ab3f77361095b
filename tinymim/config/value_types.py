"""Types of options: which values fit one, and what it takes in words, as no parser says it."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import functools
import inspect
import json
import re
import sysconfig
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinymim.near_names import nearest
from tinymim.safety import text

if TYPE_CHECKING:
    import jsonargparse

SCALARS = (str, int, float, bool, type(None), Path)
"""Types of options whose texts no parser reads as YAML of mappings."""

WORDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true and false"),
    str: ("a text", "texts"),
    Path: ("a path", "paths"),
    dict: ("a mapping of names to values", "mappings"),
    list: ("a list", "lists"),
    tuple: ("a list", "lists"),
    types.NoneType: ("null", "nulls"),
}
"""One value of a type in words, and several."""

MOST = 12
"""Names of a list of options that are shown."""


def parser(**options: Any) -> jsonargparse.ArgumentParser:
    """A parser of jsonargparse's that starts no process: see :func:`start_no_python`."""
    import jsonargparse

    start_no_python()
    return jsonargparse.ArgumentParser(exit_on_error=False, **options)


def start_no_python() -> None:
    """Look for stubs where packages are installed. By default jsonargparse's finder of stubs asks another Python
    for its path, which runs a ``json.py`` of the working folder."""
    with contextlib.suppress(ImportError):
        import typeshed_client

        search_context: Any = typeshed_client.get_search_context
        if not isinstance(search_context, functools.partial):
            installed = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]
            typeshed_client.get_search_context = functools.partial(  # type: ignore[assignment]
                search_context, search_path=list(dict.fromkeys(installed))
            )


def problem(hint: Any, value: Any) -> str | None:
    """The reason why the parser would refuse ``value`` for an option of this type; within lists it converts numbers."""
    if hint is Any or hint is inspect.Parameter.empty:
        return None
    if isinstance(value, SCALARS) and len(str(value)) < 200 and not bases_of(hint):  # a class may come to be known
        with contextlib.suppress(TypeError):  # a type that cannot be a key
            return _refusal(hint, value, str(hint))
    return _refusal.__wrapped__(hint, value)


@functools.lru_cache(10_000, typed=True)  # its parser is most of a check, and recipes repeat each other's values
def _refusal(hint: Any, value: Any, order: str = "") -> str | None:
    import jsonargparse

    if value is None:  # which a parser passes over, as if the option were left out
        takes = any(part in (types.NoneType, Any, object) for part in _parts(hint))
        return None if takes else f"null is not {in_words(hint)}"
    if dataclasses.is_dataclass(hint) and not isinstance(value, dict):  # which a parser may pass over, too
        return f"{shown(value)} is not {in_words(hint)}"
    values = parser()
    try:
        values.add_argument("--value", type=hint)
        values.parse_object({"value": value})
    except jsonargparse.ArgumentError:
        return f"{shown(value)} is not {in_words(hint)}{_remedy(hint, value)}"
    except ValueError:  # a type the parser does not know: left to the class itself
        return None
    return None


def shown(value: Any) -> str:
    """A value as a recipe has it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else text.brief(value)


def _remedy(hint: Any, value: Any) -> str:
    """End of a message: a choice that may have been meant, or quotes around a text that YAML takes for a number."""
    choices = [str(choice) for part in _parts(hint) if _is_literal(part) for choice in typing.get_args(part)]
    if isinstance(value, str) and (names := nearest(value, choices, 1)):
        return f"; did you mean {names[0]}?"
    if str in _parts(hint) and isinstance(value, int | float):
        return f"; write '\"{shown(value)}\"' where you mean the text"
    return "; give class_path, and init_args beside it" if bases_of(hint) and not dataclass_of(hint) else ""


def bases_of(hint: Any) -> tuple[type, ...]:
    """The classes that a value of this type is made from by a class path: ``Target`` of ``list[Target] | None``."""
    if typing.get_origin(hint) in (typing.Literal, type):
        return ()
    if arguments := typing.get_args(hint):
        return tuple(dict.fromkeys(base for argument in arguments for base in bases_of(argument)))
    plain = not isinstance(hint, type) or hint.__module__ in ("builtins", "collections.abc", "pathlib", "datetime")
    return () if plain or "jsonargparse" in hint.__module__ else (hint,)


def alternatives(hint: Any) -> list[Any]:
    """The types of which ``hint`` takes any, or of parts of it; of a literal its values."""
    return [part for argument in typing.get_args(hint) for part in alternatives(argument)] or [hint]


def dataclass_of(hint: Any) -> type | None:
    """The dataclass that a mapping stands for, if any."""
    return next((part for part in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(part)), None)  # type: ignore[return-value]


def in_words(hint: Any) -> str:
    """What a type takes: ``a whole number, auto or null`` of ``int | Literal["auto"] | None``."""
    parts = _parts(hint)
    choices = [str(choice) for part in parts if _is_literal(part) for choice in typing.get_args(part)]
    others = [part for part in parts if not _is_literal(part) and part is not types.NoneType]
    if float in others and int in others:
        others.remove(int)
    words = [word for part in others for word in (["true", "false"] if part is bool else [_one(part)])]
    words = list(dict.fromkeys([*words, *choices, *(["null"] if types.NoneType in parts else [])]))
    listed = " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
    return f"one of {', '.join(words)}" if len(choices) > 1 and not others else listed


def _parts(hint: Any) -> list[Any]:
    """The types of a union, those of unions in it among them."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [part for argument in typing.get_args(hint) for part in _parts(argument)]
    return [hint]


def _is_literal(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Literal


def _one(hint: Any) -> str:
    """What one type takes, that is no union."""
    origin, arguments = typing.get_origin(hint), [part for part in typing.get_args(hint) if part is not ...]
    if hint in WORDS:
        return WORDS[hint][0]
    if origin is tuple and arguments and ... not in typing.get_args(hint):
        same = len(set(arguments)) == 1
        return f"a list of {len(arguments)} {_several(arguments[0]) if same else 'values'}"
    if inspect.isclass(origin) and issubclass(origin, collections.abc.Mapping):
        return WORDS[dict][0]
    if inspect.isclass(origin) and issubclass(origin, collections.abc.Iterable) and arguments:
        return f"a list of {_several(arguments[0])}"
    if dataclass := dataclass_of(hint):
        names = [field.name for field in dataclasses.fields(dataclass)]
        return f"a mapping of options ({', '.join(names[:MOST])}{', ...' if len(names) > MOST else ''})"
    if isinstance(hint, type) and "jsonargparse" in hint.__module__:  # a number with limits
        return re.sub(r"int restricted to be ≥(\d+)", r"a whole number, \1 or more", str(hint.__doc__))
    return f"a {hint.__name__}" if isinstance(hint, type) else str(hint).replace("typing.", "")


def _several(hint: Any) -> str:
    """What a list has several of."""
    if hint in WORDS:
        return WORDS[hint][1]
    if bases := bases_of(hint):
        return f"{' or '.join(base.__name__ for base in bases)} classes"
    parts = _parts(hint)
    if all(part in WORDS for part in parts):
        return " or ".join(WORDS[part][1] for part in parts)
    return f"values, each {in_words(hint)}"
