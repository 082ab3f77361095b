"""Parts of Lightning's Trainer in a recipe: callbacks, loggers and others by short name, and options a run cannot take.

Names and classes are Lightning's own, so that those of a new version are known without a word here.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import math
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from tinymim import extras
from tinymim.near_names import near
from tinymim.safety import text
from tinymim.system import PER_CORE, cores

MODULES = {
    "accelerator": ("lightning.pytorch.accelerators",),
    "callbacks": ("lightning.pytorch.callbacks",),
    "logger": ("lightning.pytorch.loggers",),
    "plugins": tuple(f"lightning.pytorch.plugins{part}" for part in ("", ".environments", ".io", ".layer_sync")),
    "profiler": ("lightning.pytorch.profilers",),
    "strategy": ("lightning.pytorch.strategies",),
}
"""Where Lightning keeps the classes of each option of its Trainer."""

REFUSED = {
    "BatchSizeFinder": "changes the batch after the learning rate was set by it; set data.batch_size",
    "BackboneFinetuning": "thaws a network while it trains, and what is trained is settled before; set "
    "model.optim.layer_decay, or fine-tune the checkpoint of a probe",
    "BaseFinetuning": "is a base class",
    "GradientAccumulationScheduler": "changes the images of a step, in which rate, schedule and resuming count; set "
    "trainer.accumulate_grad_batches",
    "LearningRateFinder": "looks for a rate that the module does not keep; `tinymim search` finds one",
    "StochasticWeightAveraging": "puts its average in place after the last checkpoint; a Classifier's model.ema stays",
    "Timer": "ends a run as if it were done; trainer.max_time saves it, and the run goes on when resumed",
}
"""Callbacks that contradict what a run promises, and what to take."""

LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "max_epochs": -1,
    "max_steps": -1,
    "min_epochs": 0,
    "min_steps": 0,
    "num_nodes": 1,
    "num_sanity_val_steps": -1,
    "overfit_batches": 0,
    "limit_predict_batches": 0,
    "limit_test_batches": 0,
    "limit_train_batches": 0,
    "limit_val_batches": 0,
    "reload_dataloaders_every_n_epochs": 0,
}
"""Least values of numbers that Lightning does not look at itself."""

SETTLED = {
    "barebones": "a run keeps checkpoints, figures and its progress; `tinymim check` measures speed",
    "use_distributed_sampler": "the data shares its images among processes itself; leave it out",
}
"""Options that cannot be true, and why."""


def written_options() -> set[str]:
    """Names of the options of Lightning's Trainer as its file has them, which is not imported, as that takes seconds;
    none where it is written in another way."""
    spec = importlib.util.find_spec("lightning")
    places = [
        Path(place) / "pytorch" / "trainer" / "trainer.py" for place in (spec and spec.submodule_search_locations) or []
    ]
    for place in places:
        if place.is_file():
            for node in ast.walk(ast.parse(place.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and node.name == "Trainer":
                    made = (part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__")
                    return {each.arg for part in made for each in (*part.args.args, *part.args.kwonlyargs)} - {"self"}
    return set()


def class_paths(option: str) -> dict[str, str]:
    """Classes for an option of the Trainer: full paths by short name."""
    modules = [importlib.import_module(module) for module in MODULES[option]]
    names = {name: module.__name__ for module in reversed(modules) for name in vars(module) if name[0].isupper()}
    return {name: f"{module}.{name}" for name, module in names.items() if not name.isupper()}


def expanded(option: str, value: Any) -> Any:
    """A part as ``class_path`` with ``init_args``, of which a name, short or whole, is short; lists part by part.

    Texts that are no class, such as a strategy's ``ddp``, stay.
    """
    if isinstance(value, list):
        return [expanded(option, part) for part in value]
    if isinstance(value, str) and (value[:1].isupper() or value.count(".") > 1):
        value = {"class_path": value}
    path = value.get("class_path") if isinstance(value, dict) else None
    if isinstance(path, str) and path and "." not in path:
        value = {**value, "class_path": class_paths(option).get(path, path)}
    return _with_handed_on(value) if option == "strategy" else value


def _with_handed_on(value: Any) -> Any:
    """A strategy whose unknown options are those that it hands on, as DDPStrategy does to PyTorch's class."""
    arguments = value.get("init_args") if isinstance(value, dict) else None
    module, _, name = str(value.get("class_path") if isinstance(value, dict) else "").rpartition(".")
    if not isinstance(arguments, dict) or module not in MODULES["strategy"]:
        return value
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return value
    known = {key: argument for key, argument in arguments.items() if key in parameters}
    others = {key: argument for key, argument in arguments.items() if key not in parameters}
    return {**value, "init_args": known, "dict_kwargs": {**(value.get("dict_kwargs") or {}), **others}}


def place_loggers(config: dict[str, Any]) -> None:
    """Let loggers write into a run's folder where its recipe names no other, and know the run's name; in place."""
    name, trainer = str(config.get("name", "run")), config.get("trainer")
    folder = str(config.get("run_dir") or f"runs/{name}")
    loggers = trainer.get("logger") if isinstance(trainer, dict) else None
    for node in loggers if isinstance(loggers, list) else [loggers]:
        if not isinstance(node, dict):
            continue
        module, _, cls = str(node.get("class_path")).rpartition(".")
        if module in MODULES["logger"]:
            parameters = inspect.signature(getattr(importlib.import_module(module), cls)).parameters
            defaults = {"save_dir": folder} if "save_dir" in parameters else {}
            defaults |= {"name": name} if cls == "WandbLogger" else {}
            node["init_args"] = {**defaults, **(node.get("init_args") or {})}


def beside_csv(loggers: Any, folder: Path) -> Any:
    """Loggers of a run, by default TensorBoard's where it is installed, beside a CSV file in its folder, which the
    report reads; ``False`` where none are wanted."""
    if loggers is False:
        return False
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    place: dict[str, Any] = {"save_dir": str(folder), "name": "", "version": ""}
    if loggers in (None, True):
        loggers = [TensorBoardLogger(**place)] if extras.installed("tensorboard") else []
    return [CSVLogger(**place), *(loggers if isinstance(loggers, list) else [loggers])]


def option_errors(trainer: Any, fits: bool) -> list[str]:
    """Options of a recipe's Trainer that a run cannot take, each with its remedy.

    Args:
        trainer: part of a recipe; other types than a mapping have been refused before.
        fits: it is to train.
    """
    if not isinstance(trainer, dict):
        return []
    errors = [
        f"trainer.{name}: {trainer[name]} is not {least} or more"
        for name, least in LEAST.items()
        if type(trainer.get(name)) in (int, float) and not trainer[name] >= least
    ]
    errors += _devices_errors(trainer.get("devices"), trainer.get("accelerator") == "cpu")
    errors += _name_errors(trainer)
    errors += [f"trainer.{name}: {why}" for name, why in SETTLED.items() if trainer.get(name) is True]
    errors += _time_errors(trainer)
    if fits and (fast := trainer.get("fast_dev_run")):
        few = f"trainer.limit_train_batches {1 if fast is True else fast}"
        errors.append(
            f"trainer.fast_dev_run: {fast} leaves a folder that is no run; `tinymim check` takes a few steps, leaving "
            f"none, and {few} with trainer.max_epochs 1 makes a short run"
        )
    if trainer.get("default_root_dir"):
        errors.append("trainer.default_root_dir: the folder of a run is run_dir; give that")
    if trainer.get("max_epochs") == -1 and trainer.get("max_steps", -1) == -1:
        errors.append("trainer.max_epochs: -1 has no end, and a schedule needs one; give trainer.max_steps")
    if trainer.get("max_time") and trainer.get("enable_checkpointing") is False:
        errors.append(
            "trainer.max_time: ends a run by saving it, and enable_checkpointing is false; leave out one of them"
        )
    nothing = [name for name in ("max_epochs", "max_steps", "limit_train_batches") if _is_zero(trainer.get(name))]
    errors += [f"trainer.{name}: 0 trains nothing" for name in nothing if fits]
    loggers = trainer.get("logger")
    if "TensorBoardLogger" in str(loggers) and not extras.installed("tensorboardX"):
        errors += extras.missing("trainer.logger: TensorBoardLogger needs", "tensorboard")
    callbacks = trainer.get("callbacks")
    for part in callbacks if isinstance(callbacks, list) else [callbacks]:
        module, _, name = str(part.get("class_path") if isinstance(part, dict) else "").rpartition(".")
        if name in REFUSED and module.startswith("lightning."):
            errors.append(f"trainer.callbacks: {name} {REFUSED[name]}")
    return errors


def _name_errors(trainer: dict[str, Any]) -> list[str]:
    """Names of kinds of devices, strategies and profilers that Lightning has not, nor anybody has registered with it;
    which of them are here is Lightning's to say."""
    from lightning.pytorch.accelerators import AcceleratorRegistry  # recipes are listed without it
    from lightning.pytorch.strategies import StrategyRegistry

    profilers = {name.removesuffix("Profiler").lower() for name in class_paths("profiler")} - {"", "passthrough"}
    known: dict[str, Iterable[str]] = {
        "accelerator": {"auto", "gpu", *AcceleratorRegistry.available_accelerators()},
        "strategy": {"auto", *StrategyRegistry.available_strategies()},
        "profiler": profilers,
    }
    lower = {"strategy", "profiler"}  # as Lightning reads them
    return [
        f"trainer.{option}: {text.brief(name)} is none that Lightning knows{near(name, names)}"
        for option, names in known.items()
        if isinstance(name := trainer.get(option), str) and (name.lower() if option in lower else name) not in names
    ]


def _devices_errors(devices: Any, on_cpu: bool) -> list[str]:
    """Why devices cannot be meant, on whatever machine; which of them are here is Lightning's to say."""
    if devices in (None, "auto"):
        return []
    given = devices
    if isinstance(devices, str):
        devices = [part.strip() for part in devices.strip("[] ").split(",")]
        devices = devices if len(devices) > 1 or "[" in given else devices[0]
    try:
        if isinstance(devices, list) and not on_cpu:
            numbers = [_whole(number) for number in devices]
            right = bool(numbers) and min(numbers) >= 0 and len(set(numbers)) == len(numbers)
        else:
            right = _whole(devices) > 0 or (_whole(devices) == -1 and not on_cpu)
    except (TypeError, ValueError):
        right = False
    if not right:
        what = "a number of processes above 0" if on_cpu else "a number of devices, -1 for all, a list of their numbers"
        return [f"trainer.devices: {text.brief(given)} is not {what}, or auto"]
    most = PER_CORE * cores()
    if on_cpu and _whole(devices) > most:
        return [f"trainer.devices: {given} processes are more than {most} ({PER_CORE} for each core here)"]
    return []


def _whole(value: Any) -> int:
    if isinstance(value, bool | float):
        raise TypeError
    return int(value)


def time_limit(limit: Any) -> Any:
    """``max_time`` as text, days first, which a saved recipe keeps: a mapping, and what YAML takes for a number of four
    digits to the base of 60; what is no time stays."""
    if type(limit) is int and limit >= 60**3:
        days, hours, minutes, seconds = limit // 60**3, limit // 60**2 % 60, limit // 60 % 60, limit % 60
    elif isinstance(limit, dict):
        try:
            whole = math.ceil(timedelta(**limit).total_seconds())
        except (TypeError, OverflowError):
            return limit
        if whole <= 0:
            return limit
        days, hours, minutes, seconds = whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    else:
        return limit
    return f"{days:02}:{hours:02}:{minutes:02}:{seconds:02}"


def _time_errors(trainer: dict[str, Any]) -> list[str]:
    """Lengths of a run, and of what is between two validations, that are none or contradict each other."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException  # recipes are listed without it
    from lightning.pytorch.callbacks import Timer

    errors, between = [], trainer.get("val_check_interval")
    if isinstance(between, int | float) and not between > 0:
        errors.append(f"trainer.val_check_interval: {between} is not above 0; limit_val_batches: 0 validates never")
    if (limit := trainer.get("max_time")) is not None:
        try:
            seconds = Timer(duration=timedelta(**limit) if isinstance(limit, dict) else limit)._duration
        except (TypeError, AttributeError, MisconfigurationException):
            errors.append(f"trainer.max_time: {limit!r} is no length of time, such as 00:11:30:00, days first")
        else:
            if not seconds or seconds <= 0:
                errors.append(f"trainer.max_time: {limit!r} leaves no time; null is no limit")
    for unit in ("epochs", "steps"):
        least, most = (trainer.get(f"{end}_{unit}") for end in ("min", "max"))
        if isinstance(least, int) and isinstance(most, int) and 0 < most < least:
            errors.append(f"trainer.min_{unit}: {least} is more than max_{unit}, {most}")
    return errors


def seed_errors(seed: Any) -> list[str]:
    """Why a number cannot be ``seed_everything``."""
    if type(seed) is int and not 0 <= seed < 2**32:
        return [f"seed_everything: {seed} is not from 0 to {2**32 - 1}"]
    return []


def _is_zero(value: Any) -> bool:
    return type(value) in (int, float) and value == 0
