"""Types and ranges of what lies in a run folder: its recipe, its figures, its steps that were not finite."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from tinymim.teachers.record_schemas import Followed, Line, Plain, Stored, Whole

Names = Annotated[list[Line], Meta(max_length=25_000)]
"""Of parameters or modules; a ViT of 48 blocks has 1,600."""


class TrainerPart(Struct):
    """Options of a trainer that a captured step needs."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] | None = None
    precision: Line | int | None = None
    accumulate_grad_batches: Annotated[int, Meta(ge=1)] | None = None


class Random(Struct):
    """States of random number generators; torch's are tensors."""

    python: tuple[Any, Any, Any]
    numpy: tuple[Any, Any, Any, Any, Any]
    torch: Any
    cuda: Any


class Capture(Struct):
    """A captured step; see ``tinymim/training/captured_step.py``."""

    step: Annotated[int, Meta(ge=1)]
    epoch: Whole
    rank: Whole
    world_size: Annotated[int, Meta(ge=1)]
    loss: bool
    gradients: Names
    weights: Names
    batches: list[Annotated[list[Any], Meta(min_length=2, max_length=2)]]
    changed: bool
    rng: Random
    state_dict: Plain
    eval_modules: Names
    recipe: str
    precision: Line
    data: Plain
    teacher: Line | None
    conventions: Followed | UnsetType = UNSET  # type: ignore[valid-type]


class Results(Struct):
    """``results.json`` of a run, and ``progress.json``."""

    metrics: dict[str, float] = {}
    seconds: Annotated[float, Meta(ge=0, le=1e12)] | None = None
    epochs: int | None = None
    epoch: int | None = None
    state: Line | None = None
    parameters: int | None = None
    weights: Line | None = None
    backbone: Stored | None = None
    skipped_steps: list[int] = []


class Git(Struct):
    """The state of the code."""

    revision: Line = ""
    changed: bool = False


class Environment(Struct):
    """``environment.json`` of a run."""

    date: Line = ""
    command: Annotated[str, Meta(max_length=100_000)] = ""
    git: Git | None = None
    python: Line = ""
    packages: dict[str, Line] = {}
    device: Line = ""


class RecipePart(Struct):
    """The model or the data of a recipe: a class and its options."""

    class_path: Line
    init_args: Plain | None = None
    dict_kwargs: Plain | None = None


class Recipe(Struct):
    """A saved recipe, as far as it is looked at."""

    model: RecipePart | None = None
    data: RecipePart | None = None
    trainer: Plain | None = None
    name: Line | int | float | None = None
