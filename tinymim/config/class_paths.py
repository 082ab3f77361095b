"""The classes that a recipe names: what they take, and what a recipe gets wrong about it.

A class path stands where the class or option around it asks for a class, and names one of that base; anywhere else, as
among the options of a network, it is a mistake. Within :func:`own_only` no other classes than the project's are
imported: so are recipes read that nobody has said to trust.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Config = dict[str, Any]


OWN = "tinymim."
"""What the names of the project's own modules begin with."""

_strangers: ContextVar[bool] = ContextVar("strangers", default=True)


@contextmanager
def own_only() -> Iterator[None]:
    """Within it, a class path that leads out of the project is a mistake, and nothing of it is imported."""
    token = _strangers.set(False)
    try:
        yield
    finally:
        _strangers.reset(token)


def classes_in(node: Any, path: str = "") -> dict[str, str]:
    """Every class that plain data names, by where it does."""
    found: dict[str, str] = {}
    waiting: list[tuple[str, Any]] = [(path, node)]
    while waiting:
        where, value = waiting.pop(0)
        if isinstance(value, dict):
            if "class_path" in value:
                found[where] = str(value["class_path"])
            waiting += [(f"{where}.{key}".lstrip("."), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{where}[{number}]", inner) for number, inner in enumerate(value)]
    return found


def is_own(class_path: str) -> bool:
    """Whether a class path stays within the project."""
    return bool(re.fullmatch(r"tinymim(\.[a-z]\w*)*\.[A-Z]\w*", class_path, re.ASCII))


def same_class(one: str, other: str) -> bool:
    """Whether two paths name one class, as ``tinymim.modules.Distiller`` and ``tinymim.methods.Distiller`` do: no two
    classes of the project have one name."""
    both_own = is_own(one) and is_own(other)
    return one == other or (both_own and one.rpartition(".")[2] == other.rpartition(".")[2])


def found(class_path: str) -> Any:
    """The class of that path, which :func:`check_class` has passed."""
    return _import(class_path)


def taken(class_path: str) -> set[str]:
    """The options that a class takes; none where it cannot be imported."""
    try:
        functions = _initialisers(_import(class_path))
    except (ImportError, AttributeError, ValueError):
        return set()
    return {name for function in functions for name in inspect.signature(function).parameters}


def check_class(node: Any, path: str, found: list[str], bases: tuple[type, ...] = ()) -> bool:
    """Whether the class is there, and one of ``bases`` if there are any; its mistakes are added to ``found``, and taken
    out of ``node``."""
    if not isinstance(node, dict) or not isinstance(node.get("class_path"), str):
        found.append(f"{path}: {node!r} names no class; give class_path, and init_args for its options")
        return False
    unknown(node, path, {"class_path", "init_args", "dict_kwargs"}, "a class", found)
    named = node["class_path"]
    try:
        cls = _import(named)
    except (ImportError, AttributeError, ValueError) as error:
        found.append(f"{path}.class_path: {named} cannot be imported ({error}){_near_class(named)}")
        return False
    if not inspect.isclass(cls) or not issubclass(cls, bases or object):
        wanted = " or ".join(f"{base.__module__}.{base.__qualname__}" for base in bases)
        found.append(f"{path}.class_path: {named} is no class{f' that is a {wanted}' if wanted else ''}")
        return False
    stray = [_stray(*one) for one in classes_in(node.get("dict_kwargs"), f"{path}.dict_kwargs").items()]
    found += stray
    arguments = node.get("init_args") or {}
    check_signature(_initialisers(cls), arguments, f"{path}.init_args", named, found)
    return not stray


def _stray(where: str, class_path: str) -> str:
    return f"{where}: {class_path} is a class, and plain values belong here"


def bases_of(hint: Any) -> tuple[type, ...]:
    """The classes that a value of this type is made from by a class path: ``Target`` of ``list[Target] | None``."""
    if typing.get_origin(hint) in (typing.Literal, type):
        return ()
    if arguments := typing.get_args(hint):
        return tuple(dict.fromkeys(base for argument in arguments for base in bases_of(argument)))
    plain = not isinstance(hint, type) or hint.__module__ in ("builtins", "collections.abc", "pathlib", "datetime")
    return () if plain else (hint,)


def _initialisers(cls: Any) -> list[Any]:
    """What makes an instance: a class's own ``__init__`` and those above it, or a function."""
    if not inspect.isclass(cls):
        return [cls]
    return [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]


def check_signature(functions: list[Any], arguments: Any, path: str, owner: str, found: list[str]) -> None:
    """``arguments`` of the first of ``functions``, which hands those it does not name, if it takes any, to the next."""
    if not isinstance(arguments, dict):
        found.append(f"{path}: {arguments!r} is not a mapping of options to values")
        return
    known: set[str] = set()
    hints: dict[str, Any] = {}
    for function in functions:
        parameters = inspect.signature(function).parameters.values()
        known |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - {"self"}
        hints = typing.get_type_hints(inspect.unwrap(function)) | hints
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            unknown(arguments, path, known, owner, found)
            break
    check_values(arguments, hints, path, found, owner)


def check_values(arguments: Config, hints: dict[str, Any], path: str, found: list[str], owner: str = OWN) -> None:
    """Values of the wrong type, and mistakes in the classes among them, which are taken out of ``arguments``.

    Where ``owner``, whose arguments they are, is none of the project's or Lightning's, and says of one that it may be
    anything, any class may be that.
    """
    for key, value in list(arguments.items()):
        where, hint = f"{path}.{key}".lstrip("."), hints.get(key, Any)
        bases, dataclass = bases_of(hint), _dataclass(hint)
        listed = value if isinstance(value, list) else [value]
        if listed and all(map(_is_class, listed)) and (bases or _is_anothers(owner)):
            places = [f"{where}[{n}]" for n in range(len(listed))] if isinstance(value, list) else [where]
            right = [check_class(one, place, found, bases) for one, place in zip(listed, places, strict=True)]
            if isinstance(value, list):
                arguments[key] = [one for one, good in zip(value, right, strict=True) if good]
            elif not all(right):
                del arguments[key]
        elif isinstance(value, dict) and dataclass and not _is_class(value):
            allowed = {field.name for field in dataclasses.fields(dataclass)}
            unknown(value, where, allowed, dataclass.__name__, found)
            check_values(value, typing.get_type_hints(dataclass), where, found)
        elif stray := classes_in(value, where):
            found += [_stray(*one) for one in stray.items()]
            del arguments[key]
        elif bases and str not in _parts(hint) and (text := _importing(listed, hint)):
            found.append(f"{where}: {text!r} is not {_type_name(hint)}; give class_path, and init_args beside it")
            del arguments[key]
        elif problem := _type_problem(hint, value):
            found.append(f"{where}: {problem}")
            del arguments[key]


def _importing(values: list[Any], hint: Any) -> str | None:
    """The first of ``values`` that a parser might take for the path of a class or of a file, and look for that."""
    texts = [value for value in values if isinstance(value, str) and value not in _parts(hint)]
    return next((text for text in texts if "." in text or "/" in text or not _strangers.get()), None)


def _is_anothers(owner: str) -> bool:
    return "." in owner and not owner.startswith((OWN, "lightning."))


def _parts(hint: Any) -> list[Any]:
    """The types of which ``hint`` takes any."""
    return [part for one in typing.get_args(hint) for part in _parts(one)] or [hint]


def unknown(node: Config, path: str, allowed: set[str], owner: str, found: list[str]) -> None:
    """Keys of ``node`` that are not ``allowed``, which are taken out of it."""
    for key in [key for key in node if key not in allowed]:
        near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(allowed))}"
        found.append(f"{path}.{key}".lstrip(".") + f": no such option of {owner}; {hint}")
        del node[key]


def _type_problem(hint: Any, value: Any) -> str | None:
    import jsonargparse

    if hint is Any or hint is inspect.Parameter.empty:
        return None
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=hint)
        parser.parse_object({"value": value})
    except jsonargparse.ArgumentError:
        return f"{value!r} is not {_type_name(hint)}"
    except ValueError:  # a type the parser does not know: left to the class itself
        return None
    return None


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_type_name(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(hint))
    if hint is type(None):
        return "null"
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _dataclass(hint: Any) -> type | None:
    return next((part for part in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(part)), None)  # type: ignore[return-value]


def _is_class(value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value


def _import(class_path: str) -> Any:
    if not _strangers.get() and not is_own(class_path):
        raise ImportError("it is none of tinymim's own, and this file is only looked at; --trust takes it as your own")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", class_path):
        raise ValueError("it is no path such as package.module.Class")
    module, _, name = class_path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    if not _strangers.get() and not str(getattr(found, "__module__", "")).startswith(OWN):
        raise ImportError("it is none of tinymim's own")
    return found


def _near_class(class_path: str) -> str:
    """A class of the project, or of what is imported already, that may have been meant."""
    module, _, name = class_path.rpartition(".")
    while module:
        try:
            there = sys.modules.get(module) or (module.startswith(OWN) and importlib.import_module(module))
        except ImportError:
            there = None
        if there:
            near = difflib.get_close_matches(name, [n for n in dir(there) if n[:1].isupper()], n=1, cutoff=0.5)
            return f"; did you mean {module}.{near[0]}?" if near else ""
        module = module.rpartition(".")[0]
    return ""
