"""Names and types of the arguments that a Python program gives; those of recipes are checked where they are read."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, TypeVar

from tinymim.errors import TinymimError, several
from tinymim.near_names import near, nearest
from tinymim.safety import text

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])
Remedy = Callable[[str, Any], str]

PLAIN: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "True or False"),
    int: ((Integral,), "a whole number"),
    float: ((Real,), "a number"),
    str: ((str, os.PathLike), "a text"),
    NoneType: ((NoneType,), "None"),
    dict: ((Mapping,), "a mapping"),
}
"""Types that take a value, and words for them, by the type of an argument."""

LISTS = (list, Sequence)
"""Types of arguments for which any list, tuple or array is taken, of whatever length."""

hints_of = functools.cache(typing.get_type_hints)


def checked(made: C, remedy: Remedy | None = None) -> C:
    """Decorate a class: arguments of other names than its ``__init__`` has, or of other types, are refused in a line
    each when an object is made, and not where it is used.

    Args:
        made: the class; a dataclass's decorator comes first.
        remedy: sentence on an argument that has no name near it, by name and value; by default all names are listed.
    """
    of_class: Any = vars(made)["__init__"]
    known = list(inspect.signature(of_class).parameters)[1:]

    @functools.wraps(of_class)
    def of_checked(self: Any, *values: Any, **named: Any) -> None:
        errors = _others(path_of(made), named, known, remedy)
        errors += _misfits(of_class, dict(zip(known, values, strict=False)) | named)
        _refuse(errors, made.__name__)
        of_class(self, *values, **named)

    setattr(made, "__init__", of_checked)  # noqa: B010  # a method is assigned
    return made


def named_arguments(function: F) -> F:
    """Decorate a function: arguments that it has not are refused in a line, with one that may have been meant."""
    known = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def of_named(*values: Any, **named: Any) -> Any:
        if any(name not in known for name in named):
            _refuse(_others(path_of(function), named, known), f"{path_of(function)}()")
        return function(*values, **named)

    return typing.cast(F, of_named)


def check_types(module: type, given: Mapping[str, Any]) -> None:
    """Raise where arguments of a module's ``__init__`` are of other types than it says, or of names that neither it nor
    those above it have. Mappings in place of an object are as recipes have them, and told with the mistakes of the
    recipe.

    Args:
        module: the class whose arguments they are.
        given: the arguments by name, among other things.

    Raises:
        TinymimError: all of them, a line each.
    """
    known: list[str] = []
    handed_on: Mapping[str, Any] = {}
    for function in [vars(base)["__init__"] for base in module.__mro__ if "__init__" in vars(base)]:
        parameters = inspect.signature(function).parameters.values()
        known += [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD][1:]
        rest = [parameter.name for parameter in parameters if parameter.kind is parameter.VAR_KEYWORD]
        if not rest:
            break
        handed_on = handed_on or given.get(rest[0], {})
    errors = _others(path_of(module), handed_on, known)
    _refuse(errors + _misfits(vars(module)["__init__"], given), module.__name__)


def path_of(made: Any) -> str:
    """Path by which a program names a class or function: through the package that shows it."""
    steps = made.__module__.split(".")
    for depth in range(1, len(steps)):
        package = ".".join(steps[:depth])
        if made.__name__ in getattr(sys.modules.get(package), "__all__", ()):
            return f"{package}.{made.__name__}"
    return f"{made.__module__}.{made.__name__}"


def _refuse(errors: list[str], what: str) -> None:
    if len(errors) == 1:
        raise TinymimError(errors[0])
    if errors:
        raise several(f"{what} cannot be {'called' if what.endswith('()') else 'built'}", errors)


def _others(path: str, named: Mapping[str, Any], known: list[str], remedy: Remedy | None = None) -> list[str]:
    """Arguments that ``path`` has not, an error each."""
    errors = []
    for name in [name for name in named if name not in known]:
        told = remedy and not nearest(name, known, 1)
        end = f"; {remedy(name, named[name])}" if remedy and told else near(name, dict.fromkeys(known))
        errors.append(f"{path} has no argument {name}{end}")
    return errors


def _misfits(function: Any, given: Mapping[str, Any]) -> list[str]:
    """Arguments of other types than ``function`` says, an error each."""
    hints = hints_of(function)
    return [error for name, hint in hints.items() if name in given and (error := _error(name, given[name], hint))]


def _error(name: str, value: Any, hint: Any) -> str:
    """Why a value cannot be one of a type, with a remedy; empty where it can."""
    if _fits(value, hint):
        return ""
    made: Any = next((part for part in _parts(hint) if is_dataclass(part)), None)
    if made is None:
        what = text.brief(value) if isinstance(value, (str, Sequence, Mapping, Real, NoneType)) else _object(value)
        words = list(dict.fromkeys(map(_words, _parts(hint))))
        if PLAIN[float][1] in words:
            words = [word for word in words if word != PLAIN[int][1]]
        return f"{name}: {what} is not {' or '.join(words)}"
    path, (first, second) = path_of(made), [field.name for field in fields(made)][:2]
    if isinstance(value, str) and hints_of(made)[first] is str:
        return f"{name}: {value!r} is a name; give {path}({value!r}, {second}=...)"
    return f"{name}: {_object(value)}; give {path}(...)"


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
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (*LISTS, tuple):
        if not isinstance(value, Iterable) or not isinstance(value, Sized) or isinstance(value, str | Mapping):
            return False
        held = arguments if origin is tuple and ... not in arguments else arguments[:1] * len(value)
        return len(value) == len(held) and all(map(_fits, value, held))
    if origin is dict:
        return isinstance(value, Mapping)
    if is_dataclass(hint):
        return isinstance(value, (typing.cast(type, hint), Mapping))
    return True


def _words(hint: Any) -> str:
    """Words for a type: ``a number``, ``one of 'mean', 'cls'``."""
    if typing.get_origin(hint) is typing.Literal:
        choices = [repr(choice) for choice in typing.get_args(hint)]
        return f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (*LISTS, tuple):
        count = f"{len(arguments)} " if origin is tuple and ... not in arguments else ""
        return f"a list of {count}{PLAIN[arguments[0]][1].removeprefix('a ')}s" if arguments[0] in PLAIN else "a list"
    hint = origin or hint
    return PLAIN[hint][1] if hint in PLAIN else str(getattr(hint, "__name__", hint))


def _object(value: object) -> str:
    return f"an object of {type(value).__name__}"
