"""Every mistake in the text of a resolved recipe at once: keys, classes, and types of values.

A class path stands where the class or option around it asks for a class, and names one of that base; anywhere else, as
among the options of a network, it is a mistake.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import re
import sysconfig
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinymim.config import class_paths, options, trainer_parts
from tinymim.config.class_paths import classes_in
from tinymim.errors import TinymimError
from tinymim.near_names import near, nearest
from tinymim.safety import text

if TYPE_CHECKING:
    import jsonargparse

Config = dict[str, Any]

SCALARS = (str, int, float, bool, type(None), Path)
"""Types of options whose texts no parser reads as YAML of mappings."""


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


def mistakes(config: Config) -> tuple[list[str], Config]:
    """Misspelt keys, unknown classes and values of the wrong type, a line each; and the recipe without them."""
    import lightning.pytorch as pl

    from tinymim import precision

    config = copy.deepcopy(config)
    errors: list[str] = []
    drop_unknown(config, "", options.KEYS | options.COMMAND_KEYS, "a recipe", errors)
    hints = options.run_hints()
    for key in hints.keys() & config:
        check_values({key: config[key]}, hints, "", errors)
    for part, base in (("model", pl.LightningModule), ("data", pl.LightningDataModule)):
        if part not in config:
            errors.append(f"{part}: missing; a recipe names its class with {part}.class_path")
        elif not check_class(config[part], part, errors, (base,)):
            del config[part]
    if precision.is_auto(config):  # ours, and none of Lightning's
        del config["trainer"]["precision"]
    check_signature([pl.Trainer.__init__], config.get("trainer") or {}, "trainer", "lightning's Trainer", errors)
    errors = [f"{line} or {precision.AUTO}" if line.startswith("trainer.precision: ") else line for line in errors]
    return errors, config


def check_class(node: Any, path: str, errors: list[str], bases: tuple[type, ...] = ()) -> bool:
    """Whether ``node`` names a class that is there, and one of ``bases`` if there are any.

    Args:
        node: mapping of ``class_path`` and ``init_args``; mistakes are taken out of it.
        path: of the node in the recipe, for messages.
        errors: gets the mistakes.
        bases: classes of which it must be one.
    """
    if not isinstance(node, dict) or not isinstance(node.get("class_path"), str):
        errors.append(f"{path}: {node!r} names no class; give class_path, and init_args for its options")
        return False
    drop_unknown(node, path, {"class_path", "init_args", "dict_kwargs"}, "a class", errors)
    class_path = node["class_path"]
    option = path.partition("trainer.")[2].partition("[")[0]
    try:
        cls = class_paths.import_class(class_path)
    except (ImportError, AttributeError, ValueError) as error:
        if "." not in class_path and option in trainer_parts.MODULES:
            errors.append(f"{path}: Lightning has no {class_path}{near(class_path, trainer_parts.class_paths(option))}")
            return False
        nearest = class_paths.nearest_class(class_path)
        errors.append(f"{path}.class_path: {class_path} cannot be imported ({error}){nearest}")
        return False
    if not inspect.isclass(cls) or not issubclass(cls, bases or object):
        wanted = " or ".join(f"{base.__module__}.{base.__qualname__}" for base in bases)
        errors.append(f"{path}.class_path: {class_path} is no class{f' that is a {wanted}' if wanted else ''}")
        return False
    arguments = node.get("init_args") or {}
    if inspect.isabstract(cls):
        errors.append(f"{path}.class_path: {class_path} is a base class, of which none can be made")
        return False
    misplaced = _misplaced(node.get("dict_kwargs"), f"{path}.dict_kwargs")
    errors += misplaced
    functions = class_paths.initialisers(cls)
    check_signature(functions, arguments, f"{path}.init_args", class_path, errors)
    if option in trainer_parts.MODULES and isinstance(arguments, dict):
        parameters = inspect.signature(cls).parameters.values()
        needed = [
            p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]
        if lacking := [name for name in needed if name not in arguments]:
            errors.append(f"{path}: {class_path} needs {', '.join(lacking)}; give it in init_args")
            return False
    return not misplaced


def check_signature(functions: list[Any], arguments: Any, path: str, owner: str, errors: list[str]) -> None:
    """Check ``arguments`` of the first of ``functions``, which hands those it does not name, if any, to the next."""
    if not isinstance(arguments, dict):
        errors.append(f"{path}: {arguments!r} is not a mapping of options to values")
        return
    names: set[str] = set()
    hints: dict[str, Any] = {}
    for function in functions:
        parameters = inspect.signature(function).parameters.values()
        names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - {"self"}
        hints = _hints(inspect.unwrap(function)) | hints
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            drop_unknown(arguments, path, names, owner, errors)
            break
    check_values(arguments, hints, path, errors, owner)


def _hints(function: Any) -> dict[str, Any]:
    """Types of a function's options; of one that is known to type checkers alone, as in WandbLogger, anything."""
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints |= typing.get_type_hints(holder, getattr(function, "__globals__", {}))
        except (NameError, AttributeError, TypeError):
            hints[name] = Any
    return hints


def check_values(
    arguments: Config, hints: dict[str, Any], path: str, errors: list[str], owner: str = class_paths.OWN
) -> None:
    """Check types of values, and the classes among them; wrong ones are taken out of ``arguments``.

    Where ``owner``, whose arguments they are, is none of the project's or Lightning's, and says of one that it may be
    anything, any class may be that.
    """
    others = "." in owner and not owner.startswith((class_paths.OWN, "lightning."))
    for key, value in list(arguments.items()):
        place, hint = f"{path}.{key}".lstrip("."), hints.get(key, Any)
        bases, dataclass = bases_of(hint), _dataclass(hint)
        values = value if isinstance(value, list) else [value]
        if values and all(map(_is_class, values)) and (bases or others):
            places = [f"{place}[{number}]" for number in range(len(values))] if isinstance(value, list) else [place]
            right = [check_class(node, at, errors, bases) for node, at in zip(values, places, strict=True)]
            if isinstance(value, list):
                arguments[key] = [node for node, good in zip(value, right, strict=True) if good]
            elif not all(right):
                del arguments[key]
            continue
        if isinstance(value, dict) and dataclass and not _is_class(value):
            allowed = {field.name for field in dataclasses.fields(dataclass)}
            drop_unknown(value, place, allowed, dataclass.__name__, errors)
            check_values(value, typing.get_type_hints(dataclass), place, errors)
            continue
        # nothing but plain values from here on
        if misplaced := _misplaced(value, place):
            errors += misplaced
            del arguments[key]
        elif quoted := _quoted(value, hint):
            errors.append(f"{place}: {text.brief(quoted)} is a text, and no list or mapping; write it without quotes")
            del arguments[key]
        elif bases and str not in _alternatives(hint) and (path_like := _class_or_file(values, hint)):
            errors.append(f"{place}: {path_like!r} is not {_type_name(hint)}; give class_path, and init_args beside it")
            del arguments[key]
        elif problem := _type_problem(hint, value):
            errors.append(f"{place}: {problem}")
            del arguments[key]


def drop_unknown(node: Config, path: str, allowed: set[str], owner: str, errors: list[str]) -> None:
    """Take keys of ``node`` that are not ``allowed`` out of it; each is an error with the nearest one that is."""
    for key in [key for key in node if key not in allowed]:
        match = nearest(key, allowed, 1)
        hint = f"did you mean {match[0]}?" if match else f"it has {', '.join(sorted(allowed))}"
        errors.append(f"{path}.{key}".lstrip(".") + f": no such option of {owner}; {hint}")
        del node[key]


def bases_of(hint: Any) -> tuple[type, ...]:
    """The classes that a value of this type is made from by a class path: ``Target`` of ``list[Target] | None``."""
    if typing.get_origin(hint) in (typing.Literal, type):
        return ()
    if arguments := typing.get_args(hint):
        return tuple(dict.fromkeys(base for argument in arguments for base in bases_of(argument)))
    plain = not isinstance(hint, type) or hint.__module__ in ("builtins", "collections.abc", "pathlib", "datetime")
    return () if plain else (hint,)


def _misplaced(node: Any, path: str) -> list[str]:
    """Classes that are named among plain values, an error each."""
    classes = classes_in(node, path).items()
    return [f"{place}: {class_path} is a class, and plain values belong here" for place, class_path in classes]


def _class_or_file(values: list[Any], hint: Any) -> str | None:
    """The first of ``values`` that a parser might take for the path of a class or of a file, and look for that."""
    texts = [value for value in values if isinstance(value, str) and value not in _alternatives(hint)]
    return next((each for each in texts if "." in each or "/" in each or not class_paths.takes_strangers()), None)


def _quoted(value: Any, hint: Any) -> str | None:
    """The first text in ``value`` that a parser would read as a list or mapping, which may name classes."""
    if all(part in SCALARS or isinstance(part, SCALARS) for part in _alternatives(hint)):
        return None
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict | list):
            waiting += node.values() if isinstance(node, dict) else node
        elif isinstance(node, str) and re.search(r"[\[{]|:\s|-\s|[:?]$", node):
            try:
                if isinstance(text.yaml_data(node, "it"), dict | list):
                    return node
            except TinymimError:  # no YAML, and so a text for any parser; or more of it than is taken
                if "&" in node:
                    return node
    return None


def _alternatives(hint: Any) -> list[Any]:
    """The types of which ``hint`` takes any."""
    return [part for argument in typing.get_args(hint) for part in _alternatives(argument)] or [hint]


def _dataclass(hint: Any) -> type | None:
    return next((part for part in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(part)), None)  # type: ignore[return-value]


def _is_class(value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value


def _type_problem(hint: Any, value: Any) -> str | None:
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

    values = parser()
    try:
        values.add_argument("--value", type=hint)
        values.parse_object({"value": value})
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
