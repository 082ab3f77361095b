"""The classes that a recipe names: what they take, and what a recipe gets wrong about it."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import types
import typing
from typing import Any

Config = dict[str, Any]


def taken(class_path: str) -> set[str]:
    """The options that a class takes; none where it cannot be imported."""
    try:
        functions = _initialisers(_import(class_path))
    except (ImportError, AttributeError, ValueError):
        return set()
    return {name for function in functions for name in inspect.signature(function).parameters}


def check_class(node: Any, path: str, found: list[str]) -> bool:
    """Whether the class is there; its mistakes are added to ``found``, and taken out of ``node``."""
    if not isinstance(node, dict) or not isinstance(node.get("class_path"), str):
        found.append(f"{path}: {node!r} names no class; give class_path, and init_args for its options")
        return False
    unknown(node, path, {"class_path", "init_args", "dict_kwargs"}, "a class", found)
    try:
        cls = _import(node["class_path"])
    except (ImportError, AttributeError, ValueError) as error:
        found.append(
            f"{path}.class_path: {node['class_path']} cannot be imported ({error}){_near_class(node['class_path'])}"
        )
        return False
    arguments = node.get("init_args") or {}
    check_signature(_initialisers(cls), arguments, f"{path}.init_args", node["class_path"], found)
    return True


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
    check_values(arguments, hints, path, found)


def check_values(arguments: Config, hints: dict[str, Any], path: str, found: list[str]) -> None:
    """Values of the wrong type, and mistakes in the classes among them, which are taken out of ``arguments``."""
    for key, value in list(arguments.items()):
        where, hint = f"{path}.{key}".lstrip("."), hints.get(key, Any)
        if _is_class(value):
            check_class(value, where, found)
        elif isinstance(value, list) and value and all(_is_class(item) for item in value):
            right = [check_class(item, f"{where}[{number}]", found) for number, item in enumerate(value)]
            arguments[key] = [item for item, good in zip(value, right, strict=True) if good]
        elif isinstance(value, dict) and (dataclass := _dataclass(hint)):
            allowed = {field.name for field in dataclasses.fields(dataclass)}
            unknown(value, where, allowed, dataclass.__name__, found)
            check_values(value, typing.get_type_hints(dataclass), where, found)
        elif problem := _type_problem(hint, value):
            found.append(f"{where}: {problem}")
            del arguments[key]


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
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _near_class(class_path: str) -> str:
    module, _, name = class_path.rpartition(".")
    while module:
        try:
            public = [n for n in dir(importlib.import_module(module)) if n[:1].isupper()]
        except ImportError:
            module = module.rpartition(".")[0]
            continue
        near = difflib.get_close_matches(name, public, n=1, cutoff=0.5)
        return f"; did you mean {module}.{near[0]}?" if near else ""
    return ""
