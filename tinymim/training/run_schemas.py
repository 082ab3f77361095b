"""Types and ranges of what lies in a run folder: its recipe, its figures, its steps that were not finite."""

from __future__ import annotations

from collections.abc import Iterable
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
    """A captured step."""

    step: Annotated[int, Meta(ge=1)]  # of the optimiser
    epoch: Whole  # of the data, from 0
    rank: Whole
    world_size: Annotated[int, Meta(ge=1)]
    loss: bool  # whether it was not finite
    gradients: Names  # not finite, after averaging over processes; replay sees one process's own
    weights: Names  # not finite before the step
    batches: list[Annotated[list[Any], Meta(min_length=2, max_length=2)]]  # batch_idx, and what training_step was given
    changed: bool  # whether training_step changed a batch in place, so that it is not what the step began with
    rng: Random  # from before the first batch
    state_dict: Plain  # from before the step
    eval_modules: Names
    recipe: str  # resolved
    precision: Line
    data: Plain  # what modules ask a data module for
    teacher: Line | None  # sha256 of its weights
    conventions: Followed | UnsetType = UNSET  # type: ignore[valid-type]


class Position(Struct):
    """Place in the data at which a checkpoint was written; see ``training/exact_resume.py``."""

    seed: int
    epoch: Whole
    steps: Whole
    total_batch: Annotated[int, Meta(ge=1)]


class Counts(Struct):
    """Lightning's counts of a loop."""

    ready: Whole
    started: Whole
    processed: Whole
    completed: Whole


class Current(Struct):
    """Lightning's counts of a loop's current run."""

    current: Counts


class FitLoop(Struct, rename={"batch_progress": "epoch_loop.batch_progress"}):
    """Lightning's loops of a fit."""

    epoch_progress: Current
    batch_progress: Current


class Loops(Struct):
    """Lightning's loops."""

    fit_loop: FitLoop


class Checkpoint(Struct):
    """A checkpoint, as far as training goes on with it."""

    state_dict: dict[str, Any]
    optimizer_states: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    lr_schedulers: list[dict[str, Any]]
    loops: Loops
    epoch: Whole
    global_step: Whole
    callbacks: dict[str, Any] = {}
    tinymim_position: Position | None = None


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


Amount = Annotated[float, Meta(ge=0, le=1e15)]


class BenchRow(Struct):
    """What was measured of a network, see :class:`tinymim.export.bench.Measured`."""

    name: Line
    form: Line
    parameters: Whole
    gmacs: Amount
    size_mb: Amount
    latency_p50_ms: Amount
    latency_p95_ms: Amount
    images_per_second: Amount
    times_the_first: Amount = 1.0
    quality: Annotated[dict[Line, Amount], Meta(max_length=20)] = {}


class Bench(Struct):
    """``bench.json`` of a run: networks beside each other on one machine."""

    machine: Line
    batch: Whole
    networks: Annotated[list[BenchRow], Meta(min_length=1, max_length=100)]
    data: Line | None = None


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


def says(name: str, values: Iterable[float]) -> bool:
    """Whether the values of a metric say anything: those of runs from before top-5 was left out of five classes or
    fewer are all 1."""
    return not name.endswith("/top5") or min(values, default=0.0) < 1
