"""The schema of a scaling study's file (see ``grid.py``), and every mistake in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from tinymim.config import recipe as recipes
from tinymim.config.spec import texts
from tinymim.errors import TinymimError
from tinymim.experiments import schema
from tinymim.near_names import near

Written = dict[str, Any]


def _numbers(what: str, good: Callable[[Any], bool]) -> schema.Check:
    """A check of a list of different numbers, which are described by ``what``."""

    def check(values: Any, path: str) -> list[str]:
        if not isinstance(values, list) or not values:
            return [f"{path}: {values!r} is not a list of {what}"]
        errors = [f"{path}: {value!r} is not one of {what}" for value in values if not good(value)]
        return errors or [f"{path}: {value} twice" for value in dict.fromkeys(values) if values.count(value) > 1]

    return check


SHARES = _numbers(
    "shares of the training images, above 0 and up to 1", lambda value: type(value) in (int, float) and 0 < value <= 1
)
STEPS = _numbers("optimiser steps, whole numbers from 1", lambda value: type(value) is int and value >= 1)

Shares = Annotated[list[float], Meta(extra={"check": SHARES})]
Lengths = Annotated[list[int], Meta(extra={"check": STEPS})]
Count = Annotated[int, Meta(ge=1, description="a whole number from 1")]


class GridSize(Struct, forbid_unknown_fields=True):
    """A size of a scaling study; see ``grid.py``."""

    width: Count
    depth: Count
    heads: Count


class GridObjective(Struct, forbid_unknown_fields=True):
    """An objective of a scaling study."""

    recipe: schema.Recipe
    set: schema.Settings = None
    sizes: Annotated[list[str], Meta(min_length=1, description="a list of sizes")] | None = None
    fractions: Shares | None = None
    lengths: Lengths | None = None


class GridFinetune(Struct, forbid_unknown_fields=True):
    """The fine-tuning of a scaling study's cells."""

    recipe: schema.Recipe
    set: schema.Settings = None
    of: Annotated[Literal["all", "longest"], Meta(description="all or longest")] = "all"


class GridText(Struct, forbid_unknown_fields=True):
    """The file of a scaling study."""

    objectives: dict[str, GridObjective]
    sizes: dict[str, GridSize]
    fractions: Shares
    lengths: Lengths
    seeds: schema.Seeds
    mask_seeds: Count
    evaluations: Count
    warmup: Annotated[float, Meta(ge=0, le=1, description="a share of the steps, from 0 to 1")]
    about: schema.Text | None = None
    finetune: GridFinetune | None = None
    set: schema.Settings = None
    quick: schema.Settings = None


TUNED = "-ft"
"""Ends the name of a cell's fine-tuning."""

SETTLED = (
    *("data.fraction", "trainer.max_epochs", "trainer.max_steps", "trainer.check_val_every_n_epoch"),
    *("trainer.val_check_interval", "model.optim.warmup_steps", "model.train_loss", "model.mask_seeds"),
)
"""Keys of a cell's recipe that the grid settles."""


def resolved(recipe: str | list[str], settings: dict[str, Any] | None = None) -> recipes.Config:
    """A recipe, or several laid over each other, and settings over them."""
    listed = recipe if isinstance(recipe, list) else [recipe]
    return recipes.resolve([*(text for path in listed for text in ("--config", path)), *texts(settings)])[0]


def mistakes(content: Written) -> list[str]:
    """Mistakes in the text of a study, once here and not for each of its cells."""
    objectives = content.get("objectives")
    named = {f"objectives.{id}": part for id, part in (objectives if isinstance(objectives, dict) else {}).items()}
    named = {path: part for path, part in named.items() if isinstance(part, dict)}
    for part in (content, *named.values()):  # YAML reads ids such as 2 as numbers
        sizes = part.get("sizes")
        if isinstance(sizes, dict):
            part["sizes"] = {str(id): size for id, size in sizes.items()}
        elif isinstance(sizes, list):
            part["sizes"] = [str(id) for id in sizes]
    errors = schema.mistakes(content, GridText)
    for path, part in {"finetune": content.get("finetune"), **named}.items():
        if isinstance(part, dict) and isinstance(part.get("recipe"), str | list):
            try:
                resolved(part["recipe"])
            except TinymimError as error:
                errors.append(f"{path}.recipe: {error}")
    for path, part in named.items():
        known, sizes = content.get("sizes") or {}, part.get("sizes")
        errors += [f"{path}.sizes: no size {id!r}{near(id, known)}" for id in sizes or [] if id not in known]
    for path, part in {"": content, **{f"{path}.": part for path, part in named.items()}}.items():
        settings = part.get("set")
        errors += [f"{path}set.{key}: {_settled(key)}" for key in settings or {} if key in SETTLED]
    return errors


def setting_mistakes(settings: list[str]) -> list[str]:
    """Mistakes of ``--set``: what the grid settles cannot be set for cells; a fine-tuning has its own."""
    errors = []
    for text in settings:
        key = text.partition("=")[0]
        stage_key = key.partition(".")[2]
        if key in SETTLED or (stage_key in SETTLED and not key.partition(".")[0].endswith(TUNED)):
            errors.append(f"--set {text}: {_settled(stage_key if stage_key in SETTLED else key)}")
    return errors


def _settled(key: str) -> str:
    return f"{key} is settled by the grid; change its fractions, lengths, warmup, evaluations or mask_seeds"
