"""Every mistake in the text of a resolved recipe at once: keys, classes, and types of values.

A class path stands where the class or option around it asks for a class, and names one of that base; anywhere else, as
among the options of a network, it is a mistake.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
import types
import typing
from typing import Any

from tinymim.config import class_paths, options, trainer_parts, value_types
from tinymim.config.class_paths import classes_in
from tinymim.config.value_types import SCALARS, alternatives, bases_of, dataclass_of
from tinymim.errors import TinymimError
from tinymim.near_names import meant, near
from tinymim.safety import text

Config = dict[str, Any]


def mistakes(config: Config) -> tuple[list[str], Config]:
    """Misspelt keys, unknown classes and values of the wrong type, a line each; and the recipe without them."""
    import lightning.pytorch as pl

    from tinymim import precision

    config = copy.deepcopy(config)
    errors: list[str] = []
    drop_unknown(config, "", options.KEYS | options.COMMAND_KEYS, "a recipe", errors)
    _check_run(config, errors)
    for part, base in (("model", pl.LightningModule), ("data", pl.LightningDataModule)):
        if part not in config:
            errors.append(f"{part}: missing; a recipe names its class with {part}.class_path")
        elif not check_class(config[part], part, errors, (base,)):
            del config[part]
    if precision.is_auto(config):  # ours, and none of Lightning's
        del config["trainer"]["precision"]
    check_signature([pl.Trainer.__init__], config.get("trainer") or {}, "trainer", "lightning's Trainer", errors)
    ours = f", {precision.AUTO}, null"
    errors = [line.replace(", null", ours) if line.startswith("trainer.precision: ") else line for line in errors]
    return errors, config


def _check_run(config: Config, errors: list[str]) -> None:
    """Check the options of a run; wrong ones are taken out, and the seed also where the recipe points at it."""
    hints = options.run_hints()
    run = {key: config.pop(key) for key in hints if key in config}
    seed = run.get("seed_everything")
    check_values(run, hints, "", errors)
    if beyond := trainer_parts.seed_errors(run.get("seed_everything")):
        errors += beyond
        del run["seed_everything"]
    config |= run
    if seed is not None and "seed_everything" not in run:
        for part in ("model", "data"):
            arguments = config[part].get("init_args") if isinstance(config.get(part), dict) else None
            if isinstance(arguments, dict) and arguments.get("seed") == seed:
                del arguments["seed"]


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
        known = _hints(inspect.unwrap(function))
        unset = {p.name for p in parameters if p.default is None}
        # which is no type where none is known, so that `| None` would not do
        known |= {name: typing.Optional[known[name]] for name in unset & known.keys()}  # noqa: UP045
        hints = known | hints
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
        bases, dataclass = bases_of(hint), dataclass_of(hint)
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
        elif bases and str not in alternatives(hint) and (path_like := _class_or_file(values, hint)):
            words = value_types.in_words(hint)
            errors.append(f"{place}: {path_like!r} is not {words}; give class_path, and init_args beside it")
            del arguments[key]
        elif value is None and others:
            continue
        elif problem := value_types.problem(hint, value):
            errors.append(f"{place}: {problem}")
            del arguments[key]


def drop_unknown(node: Config, path: str, allowed: set[str], owner: str, errors: list[str]) -> None:
    """Take keys of ``node`` that are not ``allowed`` out of it; each is an error with the nearest one that is."""
    for key in [key for key in node if key not in allowed]:
        names = meant(key, sorted(allowed))
        hint = f"did you mean {names}?" if names else f"it has {', '.join(sorted(allowed))}"
        errors.append(f"{path}.{key}".lstrip(".") + f": no such option of {owner}; {hint}")
        del node[key]


def _misplaced(node: Any, path: str) -> list[str]:
    """Classes that are named among plain values, an error each."""
    classes = classes_in(node, path).items()
    return [f"{place}: {class_path} is a class, and plain values belong here" for place, class_path in classes]


def _class_or_file(values: list[Any], hint: Any) -> str | None:
    """The first of ``values`` that a parser might take for the path of a class or of a file, and look for that."""
    texts = [value for value in values if isinstance(value, str) and value not in alternatives(hint)]
    return next((each for each in texts if "." in each or "/" in each or not class_paths.takes_strangers()), None)


def _quoted(value: Any, hint: Any) -> str | None:
    """The first text in ``value`` that a parser would read as a list or mapping, which may name classes."""
    if all(part in SCALARS or isinstance(part, SCALARS) for part in alternatives(hint)):
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


def _is_class(value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value
