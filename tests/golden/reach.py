"""Where goldens reach into the package; all else goes through the command. A move of what is here edits it here."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from typing import Any, get_type_hints

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import CheckpointIO, PrecisionPlugin

import tinymim
from tinymim.cli.main import COMMANDS
from tinymim.config import recipe
from tinymim.config.value_types import bases_of
from tinymim.experiments import chain, study
from tinymim.experiments.settings import Settings
from tinymim.ops import relation_kl
from tinymim.targets import Target

__all__ = ["COMMANDS", "relation_kl"]


def recipe_names() -> list[str]:
    """The shipped recipes."""
    return sorted(path.stem for path in recipe.shipped("recipes").glob("*.yaml"))


def resolved(name: str) -> dict[str, Any]:
    """A recipe as composed."""
    return recipe.resolve(["--config", name])[0]


def chain_plan(name: str) -> dict[str, Any]:
    """A chain's stages, what each starts from, and their resolved recipes."""
    plan = dataclasses.asdict(chain.load(name))
    for key in ("kind", "fits", "command"):
        del plan[key]
    for stage in plan["stages"].values():
        del stage["sources"]
    return plan


def study_fits(name: str, quick: bool) -> dict[str, Any]:
    """Seeds of a study, and the fits of each row and of what rows need; paths are below ``RUN``."""
    found = study.load(name, quick)
    chosen = found.plan.settings or Settings()
    cells: dict[str, Any] = {}
    for row, own in found.rows.items():
        prepared = f"prepare/{row}/fit" in found.plan.stages
        cell = f"{'prepare' if prepared else 'cells'}/{row}"
        fits = {"fit": study.Written(str(own.recipe), tuple(own.overrides))}
        if not prepared:
            fits = study.written(own, found.later, chosen, found.shared)
        stages = [cell + "/fit"] if prepared else list(found.compared.rows[row].values())
        cells[cell] = {
            "needs": _needs(found, stages),
            "fits": [
                [role, "fit", fit.recipe, *(_placed(text, cell) for text in fit.overrides)]
                for role, fit in fits.items()
            ],
        }
    return {
        "seeds": found.plan.seeds,
        "figures": list(found.compared.figures),
        "questions": {key: list(question.rows) for key, question in found.compared.questions.items()},
        "cells": {key: cells[key] for key in sorted(cells, key=lambda key: not key.startswith("prepare/"))},
    }


def _needs(found: study.Study, stages: list[str]) -> list[str]:
    """What is prepared for some stages, each behind what it needs itself."""
    needed: dict[str, None] = {}
    for stage in stages:
        for source in found.plan.stages[stage].sources.values():
            if source.startswith("prepare/"):
                needed |= dict.fromkeys([*_needs(found, [source]), source.split("/")[1]])
    return list(needed)


def _placed(text: str, cell: str) -> str:
    return text.replace("cell/", f"RUN/{cell}/").replace("prepare/", "RUN/prepare/").replace("RUN/RUN/", "RUN/")


def class_paths() -> list[str]:
    """Every ``module:Class`` of the package that a user's file may name, where it is defined and where re-exported.

    Modules, data, targets, callbacks, loggers and plugins, and the classes that their options are made of.
    """
    modules = [importlib.import_module(one.name) for one in pkgutil.walk_packages(tinymim.__path__, "tinymim.")
               if not one.name.endswith(("__main__", "triton_kernels"))]  # fmt: skip
    named = (pl.LightningModule, pl.LightningDataModule, Target, pl.Callback, Logger, CheckpointIO, PrecisionPlugin)
    classes = {value for module in modules for value in vars(module).values() if _ours(value)}
    chosen = {cls for cls in classes if issubclass(cls, named)}
    waiting = list(chosen)
    while waiting:  # options whose values are classes or dataclasses of ours, and their own options
        cls = waiting.pop()
        init = vars(cls).get("__init__")
        hints = get_type_hints(inspect.unwrap(init)) if init else {}
        for part in {part for hint in hints.values() for part in bases_of(hint) if _ours(part)} - chosen:
            if issubclass(part, named) or dataclasses.is_dataclass(part):
                chosen.add(part)
                waiting.append(part)
    places = [module for module in modules if hasattr(module, "__path__")]
    found = {f"{cls.__module__}:{cls.__qualname__}" for cls in chosen}
    found |= {
        f"{module.__name__}:{name}"
        for module in places
        for name, value in vars(module).items()
        if _ours(value) and value in chosen
    }
    return sorted(found)


def _ours(value: Any) -> bool:
    return inspect.isclass(value) and value.__module__.startswith("tinymim.") and not value.__name__.startswith("_")
