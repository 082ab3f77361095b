"""Recipes: find one by name, compose it from fragments, and lay overrides over it.

A recipe is LightningCLI's YAML (``seed_everything``, ``trainer``, ``model``, ``data``) with ``extends``, a list of
fragments beside it that are merged first, in order, OmegaConf's ``${...}``, resolved after the command line's
overrides, and ``vars``, values that exist to be pointed at.
"""

from __future__ import annotations

import copy
import functools
import io
import re
import typing
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tinymim.config import class_paths, references, trainer_parts
from tinymim.errors import TinymimError
from tinymim.files import shipped
from tinymim.near_names import nearest
from tinymim.safety import text

Config = dict[str, Any]

VALUES = 10_000
"""Values of a recipe: as many as OmegaConf takes. The largest of the project has 300."""

PLANS = {"chains": "chain run", "studies": "study", "scaling": "scaling", "papers": "papers"}
"""Folders beside the recipes whose files list many fits, and the command that runs them."""

CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")

LONGEST = 10**6
"""Characters of a recipe whose references to itself are written out."""


def folders() -> list[Path]:
    """Folders in which recipes are looked for by name, first match wins."""
    return [Path("recipes"), shipped("recipes")]


def names() -> list[str]:
    """The recipes that can be named."""
    return sorted({path.stem for folder in folders() for path in folder.glob("*.yaml")})


def elsewhere(name: str) -> list[str]:
    """The folders of :data:`PLANS` that have a file of that name."""
    known = name.isprintable() and len(name) < 200
    return [
        folder for folder in PLANS if known and any((base / folder / f"{name}.yaml").is_file() for base in folders())
    ]


def find(name: str) -> Path:
    """The recipe called ``name``, or the file at that path.

    Raises:
        TinymimError: neither; the message gives the nearest names.
    """
    if Path(name).is_file():
        return Path(name)
    for folder in folders():
        if (path := folder / f"{name}.yaml").is_file():
            return path
    if (inside := Path(name) / "config.yaml").is_file():
        raise TinymimError(f"recipe: {name} is the folder of a run; give its recipe, --config {inside}")
    if of_many := [f"tinymim {PLANS[folder]} {name}" for folder in elsewhere(name)]:
        raise TinymimError(f"unknown recipe {name!r}; of that name there is what runs many: {', or '.join(of_many)}")
    names_near = nearest(Path(name).stem, names())
    close = f"; near it: {', '.join(names_near)}" if names_near else ""
    raise TinymimError(f"unknown recipe {name!r}{close} (`tinymim recipes` lists them all)")


def compose(path: Path, above: tuple[Path, ...] = ()) -> DictConfig:
    """One recipe merged over the fragments it extends, interpolations still open.

    Raises:
        TinymimError: not YAML, a missing fragment, or fragments that extend each other in a ring.
    """
    path = path.resolve()
    if path in above:
        raise TinymimError(f"{path} extends itself, by way of {', '.join(str(p) for p in above)}")
    try:
        written = text.contents(path, str(path))
        content = copy.deepcopy(_loaded(written, str(path)))
    except (*text.WRONG, OSError, OmegaConfBaseException) as error:
        raise text.unreadable(str(path), error) from None
    if not isinstance(content, DictConfig):
        raise TinymimError(f"{path} is no recipe: it holds {content!r} where keys such as model and data belong")
    merged = OmegaConf.create({})
    extended = content.pop("extends", None) or OmegaConf.create([])
    if not OmegaConf.is_list(extended) or not all(isinstance(fragment, str) for fragment in extended):
        raise TinymimError(f"{path}: extends: {extended!r} is not a list of recipes; write [{extended}]")
    for fragment in extended:
        places = [folder / f"{fragment}.yaml" for folder in (path.parent, *folders())]
        place = next((place for place in places if place.is_file()), None)
        if place is None:
            raise TinymimError(
                f"{path} extends {fragment}, and there is no {places[0]}, nor a shipped one of that name"
            )
        merged = _merge(merged, compose(place, (*above, path)))
    return _merge(merged, content)


@functools.lru_cache(200)  # the rows of a study, and the stages of a chain, share their fragments
def _loaded(written: str, name: str) -> Any:
    text.check_yaml(written, name, VALUES)
    return OmegaConf.load(io.StringIO(written))


def _merge(below: DictConfig, above: DictConfig) -> DictConfig:
    _drop_replaced(below, above)
    return typing.cast(DictConfig, OmegaConf.unsafe_merge(below, above))


def _drop_replaced(below: DictConfig, above: DictConfig) -> None:
    """Drop options of an old class from ``below`` where ``above`` names another: they must not reach the new."""
    for key, value in above.items_ex(resolve=False):
        old = None if OmegaConf.is_interpolation(below, str(key)) else below.get(key)
        if not isinstance(value, DictConfig) or not isinstance(old, DictConfig):
            continue
        changed = "class_path" in value and "class_path" in old
        if changed and not class_paths.same_class(str(value.class_path), str(old.class_path)):
            below[key] = _replaced(old, str(value.class_path), str(key))
        else:
            _drop_replaced(old, value)


def _replaced(old: DictConfig, class_path: str, part: str) -> Config:
    """A class in place of ``old``'s: without options, but in the part ``data`` with those that it takes too, which mean
    the same in all data modules; interpolations stay as they are."""
    known = class_paths.options_of(class_path) if part == "data" else set()
    options = OmegaConf.to_container(old.get("init_args") or OmegaConf.create({}), resolve=False)
    kept = {key: value for key, value in typing.cast(Config, options).items() if key in known}
    return {"class_path": class_path, **({"init_args": kept} if kept else {})}


def resolve(arguments: list[str]) -> tuple[Config, list[str]]:
    """The whole recipe that a command line means, and the arguments that named no recipe.

    Args:
        arguments: LightningCLI's, such as ``--config relation_digits --trainer.max_epochs 5``; a recipe may be named
            or given by path, and several are merged in order.

    Returns:
        The recipe, in which references to the environment are kept (``config/references.py``), and those arguments.

    Raises:
        TinymimError: unknown recipe, bad YAML, or an interpolation that leads nowhere.
    """
    config, rest = _collect(arguments)
    if not config:
        return {}, rest
    overrides, rest = split(rest)
    try:
        for key, text in overrides:
            _override(config, key, text)
        return _resolved(config), rest
    except (OmegaConfBaseException, RecursionError) as error:
        raise TinymimError(f"recipe: {str(error).splitlines()[0]}") from None


def _collect(arguments: list[str]) -> tuple[DictConfig, list[str]]:
    """The recipes that ``--config`` names, merged in order, and the other arguments."""
    config = OmegaConf.create({})
    rest: list[str] = []
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        key, equals, value = argument.partition("=")
        if key not in ("--config", "-c"):
            rest.append(argument)
            continue
        if not equals and not pending:
            raise TinymimError("--config needs the name of a recipe, or the path of one")
        path = find(value if equals else pending.pop(0))
        config = _merge(config, compose(path))
        if "name" not in config:
            config["name"] = path.stem
    for part in ("model", "data"):
        if isinstance(node := config.get(part), DictConfig) and isinstance(name := node.get("class_path"), str):
            node["class_path"] = class_paths.in_full(part, name)
    return config, rest


def split(arguments: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """``--a.b value``, ``--a.b=value`` and ``--a.b+=value`` as pairs, the last with its ``+``; and the rest."""
    pairs, rest = [], []
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        key, equals, value = argument.partition("=")
        if not key.startswith("--") or key in ("--print_config", "--help"):
            rest.append(argument)
        elif equals:
            pairs.append((key[2:], value))
        elif pending and not pending[0].startswith("--"):
            pairs.append((key[2:], pending.pop(0)))
        elif key == "--overwrite":
            pairs.append((key[2:], "true"))
        else:
            rest.append(argument)
    return pairs, rest


def _override(config: DictConfig, key: str, text: str) -> None:
    """Set one value, which means what the same text means in a recipe; ``a.b+`` adds it to a list."""
    if not text.strip():  # it would be null, and a run would start from scratch, or lie elsewhere, without a word
        raise TinymimError(f"--{key}: nothing is given, as by a variable that is empty; leave it out, or give null")
    try:
        content: Any = OmegaConf.to_container(OmegaConf.create(f"value: {text}"), resolve=False)
    except yaml.YAMLError:
        raise TinymimError(f"--{key}: {text!r} is not YAML; quote it") from None
    value = content["value"]
    if key.endswith("+"):
        key = key[:-1]
        value = _grown(config, key, value)
    above, _, option = key.rpartition(".")
    if is_part := above == "trainer" and option in trainer_parts.MODULES:
        value = trainer_parts.expanded(option, value)
    if key in ("model", "data") and not isinstance(value, dict):  # short for the class alone
        if config.get(key) is None:
            config[key] = {"class_path": None}
        key = f"{key}.class_path"
    part, _, named = key.partition(".")
    if named == "class_path":
        value = class_paths.in_full(part, str(value))
    *owners, last = parts = _expanded(config, key)
    owner = OmegaConf.select(config, ".".join(owners)) if owners else config
    replaces = last == "class_path" and isinstance(owner, DictConfig)
    if replaces and not class_paths.same_class(str(owner.get("class_path")), str(value)):
        other = _replaced(owner, str(value), parts[0])
        owner.pop("init_args", None)
        owner.update(other)
    OmegaConf.update(config, ".".join(parts), value, merge=not is_part, force_add=True)


def _grown(config: DictConfig, key: str, value: Any) -> list[Any]:
    """The list at ``key``, which may be one value or none yet, with ``value``, or all of a list, behind it; the path of
    a class is short for the class."""
    before = OmegaConf.select(config, ".".join(_expanded(config, key)))
    listed = before if isinstance(before, ListConfig) else OmegaConf.create([before])
    whole: Any = OmegaConf.to_container(listed, resolve=False)
    if isinstance(value, str) and re.fullmatch(r"\w+(\.\w+)*\.[A-Z]\w*", value):
        value = {"class_path": value}
    return [*(part for part in whole if part is not None), *(value if isinstance(value, list) else [value])]


def _expanded(config: DictConfig, key: str) -> list[str]:
    """The parts of a dotted key, with the ``init_args`` that a short one leaves out, as the parser has it:
    ``model.optim.base_lr`` is ``model.init_args.optim.base_lr``; an option of a list is its last part's.

    An interpolation on the way becomes a copy of what it points at, so that the value changes here alone.
    """
    parts: list[str] = []
    names = key.split(".")
    node: Any = config
    for position, name in enumerate(names, start=1):
        if isinstance(node, ListConfig) and len(node) and not name.isdecimal():
            parts.append(str(len(node) - 1))
            node = node[-1]
        if isinstance(node, DictConfig) and "class_path" in node and name not in CLASS_KEYS:
            parts.append("init_args")
            node = node.get("init_args")
        if isinstance(node, DictConfig) and OmegaConf.is_interpolation(node, name):
            node[name] = copy.deepcopy(node[name]) if position < len(names) else None
        parts.append(name)
        if isinstance(node, ListConfig) and name.isdecimal() and int(name) < len(node):
            node = node[int(name)]
        else:
            node = node.get(name) if isinstance(node, DictConfig) else None
    return parts


def _resolved(config: DictConfig) -> Config:
    """Plain data with interpolations in place, but for references to the environment, and without ``vars``."""
    size = references.written_out(OmegaConf.to_container(config, resolve=False))
    if size > LONGEST:
        raise TinymimError(f"recipe: its references to itself, written out, are {size:,} characters long")
    with references.kept():
        resolved: Config = references.written(OmegaConf.to_container(config, resolve=True))
    resolved.pop("vars", None)
    if isinstance(trainer := resolved.get("trainer"), dict):
        for option in trainer_parts.MODULES.keys() & trainer:
            trainer[option] = trainer_parts.expanded(option, trainer[option])
        if "max_time" in trainer:
            trainer["max_time"] = trainer_parts.time_limit(trainer["max_time"])
    return resolved
