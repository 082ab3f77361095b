"""Mistakes in the arguments of ``tinymim.distill`` that no recipe could hold, or would tell in words of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from tinymim.config.options import COMMAND_KEYS, KEYS
from tinymim.near_names import near
from tinymim.safety import text
from tinymim.vit.description import Architecture

ARGUMENTS = {
    **{f"data.{name}": name for name in ("image_size", "batch_size", "num_workers")},
    **{f"model.{name}": name for name in ("teacher", "student", "targets", "teacher_cache")},
    **{f"trainer.{name}": name for name in ("devices", "precision")},
    **{"data.root": "data", "data.dataset": "data", "data.val_dataset": "held_out", "model.optim.base_lr": "base_lr"},
    **{"trainer.max_epochs": "epochs", "seed_everything": "seed", "overwrite": "overwrite"},
    **{"run_dir": "out", "ckpt_path": "out"},  # the checkpoint is the newest one there
}
"""Arguments of :func:`tinymim.distill` by the fields of the recipe that they become."""

LEAST = {"epochs": 1, "batch_size": 1, "image_size": 1, "teacher_cache": 0, "seed": 0}
"""Least value of each argument that is a whole number."""

UNSET = ("image_size", "teacher_cache")
"""Those of :data:`LEAST` that may be ``None``."""


def mistakes(given: Mapping[str, Any]) -> list[str]:
    """Arguments of types that nothing could be made of, numbers out of range, and options that are arguments.

    Args:
        given: all arguments by name.
    """
    errors = [_student(given["student"]), _data(given["data"])]
    errors += [
        f"{name}: {given[name]!r} is neither a text nor a path{remedy}"
        for name, remedy in (("teacher", ""), ("out", "; give the folder of the run"))
        if not isinstance(given[name], str | Path)
    ]
    if isinstance(given["out"], str) and not given["out"]:
        errors.append("out: '' names no folder; give the folder of the run, such as 'runs/distilled'")
    if not isinstance(given["overwrite"], bool):
        errors.append(f"overwrite: {given['overwrite']!r} is neither True nor False")
    for name, least in LEAST.items():
        value = given[name]
        if (value is None and name in UNSET) or (_whole(value) and value >= least):
            continue
        wrong = f"not {least} or more" if _whole(value) else "no whole number"
        unset = ", or None" if name in UNSET else ""
        errors.append(f"{name}: {value!r} is {wrong}{unset}")
    if not isinstance(given["base_lr"], Real) or isinstance(given["base_lr"], bool):
        errors.append(f"base_lr: {given['base_lr']!r} is not a number")
    for name in ("num_workers", "devices", "precision"):
        if not isinstance(given[name], str | Integral | list):
            errors.append(f"{name}: {given[name]!r} is neither a number nor a text")
    errors += [_targets(given["targets"]), *_options(given["options"])]
    return [error for error in errors if error]


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _student(student: object) -> str:
    if isinstance(student, str | Architecture):
        return ""
    return f"student: an object of {type(student).__name__}; give timm's name of a ViT, or tinymim.Architecture(...)"


def _data(data: object) -> str:
    if isinstance(data, str | Path | DataLoader | pl.LightningDataModule) or hasattr(data, "__getitem__"):
        return ""
    return f"data: {data!r} is neither a folder nor a map-style data set"


def _targets(targets: object) -> str:
    listed = targets if isinstance(targets, Sequence) and not isinstance(targets, str) else [targets]
    wrong = [target for target in listed if not isinstance(target, str | Mapping)]
    if not wrong:
        return ""
    return f"targets: {text.brief(wrong[0])} is neither a name, such as 'relation', nor a class path with its arguments"


def _options(options: object) -> list[str]:
    if options is None:
        return []
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        return [f"options: {text.brief(options)} is no mapping by dotted name, such as {{'model.drop_path': 0.0}}"]
    errors = []
    for name in options:
        short = name.removesuffix("+").replace("init_args.", "")
        argument = ARGUMENTS.get(short) or (short if short in ARGUMENTS.values() and short != "data" else None)
        known = KEYS | COMMAND_KEYS
        if argument:
            errors.append(f"options: {name!r} is an argument of tinymim.distill; give it as {argument}=")
        elif short.partition(".")[0] not in known:
            parts = known - ARGUMENTS.keys()
            errors.append(f"options: {name!r} is no option of a recipe, such as 'model.drop_path'{near(name, parts)}")
    return errors
