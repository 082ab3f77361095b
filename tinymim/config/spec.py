"""Files that list fits, studies and chains among them: finding them, checking their keys, comparing two."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tinymim.config import class_paths, recipe
from tinymim.errors import TinymimError
from tinymim.near_names import near
from tinymim.safety import text

FOLDERS = {
    "study": "studies",
    "chain": "chains",
    "scaling study": "scaling",
    "program": "papers",
    "settings": "settings",
}


FREE = {
    "trainer": (
        "accelerator",
        "strategy",
        "logger",
        "log_every_n_steps",
        "enable_progress_bar",
        "enable_model_summary",
        "num_sanity_val_steps",
        "check_val_every_n_epoch",
        "profiler",
        "default_root_dir",
    ),
    "data": ("num_workers",),
    "model": ("gradient_checkpointing", "compile"),
}
"""Options that change how a run is done and not what it comes to, but for the order in which numbers are added. The
precision is not among them, nor the folder of the images, of which nobody knows whether it holds the same ones."""


def find(kind: str, name: str) -> Path:
    """The file of a study or chain.

    Args:
        kind: one of :data:`FOLDERS`.
        name: of a file in that folder of ``recipes``, or a path.

    Raises:
        TinymimError: no such file; the message gives the nearest name, or lists them all, and says what else is called
            that.
    """
    for path in [Path(name), *(base / FOLDERS[kind] / f"{name}.yaml" for base in recipe.folders())]:
        if path.is_file():
            return path
    known = sorted(path.stem for base in recipe.folders() for path in (base / FOLDERS[kind]).glob("*.yaml"))
    what = (
        f"no file {name}, and no {kind} of that name"
        if name.endswith((".yaml", ".yml"))
        else f"unknown {kind} {name!r}"
    )
    others = [f"tinymim {recipe.PLANS[folder]} {name}" for folder in recipe.elsewhere(name)]
    others += [f"a recipe (tinymim fit {name})"] if name in recipe.names() else []
    also = f"; of that name there is {', or '.join(others)}" if others else ""
    raise TinymimError(f"{what}{also}{near(Path(name).stem, known)}")


def read(path: Path, kind: str, keys: str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Args:
        path: of the file.
        kind: what it should be, for the error.
        keys: some that it should have, likewise.

    Raises:
        TinymimError: not YAML, or no mapping.
    """
    content = text.read_yaml(path, str(path))
    if not isinstance(content, dict):
        raise TinymimError(f"{path} is no {kind}: it holds {text.brief(content)} where keys such as {keys} belong")
    return text.mapping(content, str(path))


def shortened(content: dict[str, Any], path: Path, quick: bool) -> dict[str, Any]:
    """``content`` of a file without its ``quick`` part, which is laid over it if ``quick``.

    Raises:
        TinymimError: it was asked for, and there is none.
    """
    rest = {key: value for key, value in content.items() if key != "quick"}
    if not quick:
        return rest
    brief = content.get("quick")
    if not brief or not isinstance(brief, dict):
        raise TinymimError(f"--quick: {path} has no `quick` part that says what is shorter")
    return laid_over(rest, brief)


def texts(settings: dict[str, Any] | None) -> list[str]:
    """``{dotted.key: value}`` as overrides of a command line."""
    return [f"--{key}={json.dumps(value)}" for key, value in (settings or {}).items()]


def laid_over(below: Any, above: Any) -> Any:
    """``above`` over ``below``: mappings are merged, and all else is replaced."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: laid_over(below.get(key), value) for key, value in above.items()}}


def unknown(node: dict[str, Any], path: str, allowed: Iterable[str]) -> list[str]:
    """The keys of ``node`` that are not ``allowed``, a line each, with the nearest one that is."""
    wrong = [key for key in node if key not in allowed]
    return [f"{path}.{key}".lstrip(".") + f": no such key{near(key, allowed)}" for key in wrong]


MOST_SEEDS = 1000
"""Seeds of a plan, each of which is a fit of every stage."""


def seed_mistakes(seeds: Any, field: str) -> list[str]:
    """Errors in a list of seeds that ``field`` gives."""
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        return [f"{field}: {seeds!r} is not a list of whole numbers from 0, such as [0, 1, 2]"]
    if len(seeds) > MOST_SEEDS:
        return [f"{field}: {len(seeds):,} seeds, and {MOST_SEEDS:,} are taken"]
    twice = [seed for seed in dict.fromkeys(seeds) if seeds.count(seed) > 1]
    return [f"{field}: seed {twice[0]} stands twice in {seeds}"] if twice else []


def unlike(old: Any, new: Any, path: str = "", any_version: bool = False) -> Iterator[tuple[str, Any, Any]]:
    """Places where two mappings differ, and both values.

    Args:
        old: a recipe, or a part of one.
        new: another.
        path: of both, before the names in them.
        any_version: they are resolved recipes, perhaps of different versions: classes are compared by what their paths
            mean, lists entry by entry, and options that one of the two does not have are passed over, but a network's
            own; ``init_args`` is left out of the places.
    """
    if any_version and isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from unlike(*pair, f"{path}[{number}]", any_version)
        return
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield path, old, new
        return
    names, lacking = [*dict.fromkeys([*old, *new])], None if any_version else "nothing"
    if any_version:
        before, now = old.get("class_path"), new.get("class_path")
        if before and now and not class_paths.same_class(str(before), str(now)):
            yield path, before, now
            return
        names = [
            name for name in names if name != "class_path" and (path.endswith("options") or name in old.keys() & new)
        ]
    for name in names:
        inner = path if any_version and name == "init_args" else f"{path}.{name}".lstrip(".")
        yield from unlike(old.get(name, lacking), new.get(name, lacking), inner, any_version)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Differences of two mappings, a line each, as ``pretrain.trainer.max_epochs: 10, now 15``."""
    return [in_line(*each) for each in unlike(old, new, path)]


def in_line(path: str, old: Any, new: Any) -> str:
    """A difference as people read it."""
    return f"{path}: {json.dumps(old)}, now {json.dumps(new)}"
