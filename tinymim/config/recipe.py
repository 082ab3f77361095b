"""Recipes: find one by name, compose it from fragments, lay overrides over it, and find every mistake in it at once.

A recipe is LightningCLI's YAML (``seed_everything``, ``trainer``, ``model``, ``data``) with ``extends``, a list of
fragments beside it that are merged first, in order, OmegaConf's ``${...}``, resolved after the command line's
overrides, and ``vars``, values that exist to be pointed at.
"""

from __future__ import annotations

import copy
import difflib
import io
import typing
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tinymim.config import class_paths, options, references
from tinymim.config.class_paths import Config
from tinymim.errors import TinymimError
from tinymim.safety import text

PROJECT = Path(__file__).resolve().parents[2]
KEYS = {"seed_everything", "trainer", "model", "data", "name", "run_dir", "overwrite", "compare", *options.RUN}
LONGEST = 10**7
"""Characters of a recipe whose references to itself are written out."""

COMMAND_KEYS = {"ckpt_path", "weights_only", "verbose", "return_predictions"}


def folders() -> list[Path]:
    """Where recipes are looked for by name, first match wins."""
    return [Path("recipes"), PROJECT / "recipes"]


def names() -> list[str]:
    """The recipes that can be named."""
    return sorted({path.stem for folder in folders() for path in folder.glob("*.yaml")})


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
    near = difflib.get_close_matches(Path(name).stem, names(), n=3, cutoff=0.5)
    close = f"; near it: {', '.join(near)}" if near else ""
    raise TinymimError(f"unknown recipe {name!r}{close} (`make help` lists them all)")


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
        text.check_yaml(written, str(path))
        own = OmegaConf.load(io.StringIO(written))
    except (*text.WRONG, OSError, OmegaConfBaseException) as error:
        raise text.unreadable(str(path), error) from None
    if not isinstance(own, DictConfig):
        raise TinymimError(f"{path} is no recipe: it holds {own!r} where keys such as model and data belong")
    merged = OmegaConf.create({})
    extended = own.pop("extends", None) or OmegaConf.create([])
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
    return _merge(merged, own)


def _merge(below: DictConfig, above: DictConfig) -> DictConfig:
    _drop_replaced(below, above)
    return typing.cast(DictConfig, OmegaConf.merge(below, above))


def _drop_replaced(below: DictConfig, above: DictConfig) -> None:
    """Where ``above`` names another class, options of the old one must not reach the new."""
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
    known = class_paths.taken(class_path) if part == "data" else set()
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
    config = OmegaConf.create({})
    rest: list[str] = []
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        key, given, value = argument.partition("=")
        if key not in ("--config", "-c"):
            rest.append(argument)
            continue
        if not given and not pending:
            raise TinymimError("--config needs the name of a recipe, or the path of one")
        path = find(value if given else pending.pop(0))
        config = _merge(config, compose(path))
        if "name" not in config:
            config["name"] = path.stem
    if not config:
        return {}, rest
    overrides, rest = split(rest)
    try:
        for key, value in overrides:
            _override(config, key, value)
        if (size := references.written_out(OmegaConf.to_container(config, resolve=False))) > LONGEST:
            raise TinymimError(f"recipe: its references to itself, written out, are {size:,} characters long")
        with references.kept():
            resolved = references.written(OmegaConf.to_container(config, resolve=True))
    except (OmegaConfBaseException, RecursionError) as error:
        raise TinymimError(f"recipe: {str(error).splitlines()[0]}") from None
    resolved.pop("vars", None)
    return resolved, rest


def split(arguments: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """``--a.b value`` and ``--a.b=value`` as pairs, and the rest: flags, and lists grown with ``+``."""
    pairs, rest = [], []
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        key, given, value = argument.partition("=")
        if not key.startswith("--") or key.endswith("+") or key in ("--print_config", "--help"):
            rest.append(argument)
        elif given:
            pairs.append((key[2:], value))
        elif pending and not pending[0].startswith("--"):
            pairs.append((key[2:], pending.pop(0)))
        elif key == "--overwrite":
            pairs.append((key[2:], "true"))
        else:
            rest.append(argument)
    return pairs, rest


def _override(config: DictConfig, key: str, given: str) -> None:
    """Set one value; ``model.optim.base_lr`` means ``model.init_args.optim.base_lr``, as it does to the parser."""
    try:
        value: Any = typing.cast(DictConfig, OmegaConf.create(f"value: {given}"))._get_node("value")
    except yaml.YAMLError:
        raise TinymimError(f"--{key}: {given!r} is not YAML; quote it") from None
    node: Any = config
    full: list[str] = []
    parts = key.split(".")
    for position, part in enumerate(parts, start=1):
        if isinstance(node, DictConfig) and "class_path" in node and part not in ("class_path", "init_args"):
            full.append("init_args")
            node = node.get("init_args")
        if isinstance(node, DictConfig) and OmegaConf.is_interpolation(node, part):
            node[part] = copy.deepcopy(node[part]) if position < len(parts) else None  # keep what it pointed at
        full.append(part)
        node = node.get(part) if isinstance(node, DictConfig) else None
    owner = OmegaConf.select(config, ".".join(full[:-1])) if full[:-1] else config
    if key in ("model", "data") and not isinstance(value, DictConfig):  # the class alone
        owner.setdefault(key, {"class_path": None})
        return _override(config, f"{key}.class_path", given)
    if (
        full[-1] == "class_path"
        and isinstance(owner, DictConfig)
        and not class_paths.same_class(str(owner.get("class_path")), str(value))
    ):
        other = _replaced(owner, str(value), full[0])
        owner.pop("init_args", None)
        owner.update(other)
    OmegaConf.update(config, ".".join(full), value, force_add=True)


def mistakes(config: Config) -> tuple[list[str], Config]:
    """Misspelt keys, unknown classes and values of the wrong type: all of them, and the resolved recipe without
    them."""
    import lightning.pytorch as pl

    from tinymim import precision

    config = copy.deepcopy(config)
    found: list[str] = []
    class_paths.unknown(config, "", KEYS | COMMAND_KEYS, "a recipe", found)
    for key in options.RUN.keys() & config:
        class_paths.check_values({key: config[key]}, options.RUN, "", found)
    for part, base in (("model", pl.LightningModule), ("data", pl.LightningDataModule)):
        if part not in config:
            found.append(f"{part}: missing; a recipe names its class with {part}.class_path")
        elif not class_paths.check_class(config[part], part, found, (base,)):
            del config[part]
    if precision.is_auto(config):  # which is ours, and none of Lightning's
        del config["trainer"]["precision"]
    class_paths.check_signature(
        [pl.Trainer.__init__], config.get("trainer") or {}, "trainer", "lightning's Trainer", found
    )
    found = [f"{line} or {precision.AUTO}" if line.startswith("trainer.precision: ") else line for line in found]
    return found, config
