"""Before anything runs: each stage against what the one before it will leave, derived from recipes and sizes alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, cast

from rich.table import Table

from tinymim.config import validation
from tinymim.data.sampler import step_images
from tinymim.errors import TinymimError, counted
from tinymim.experiments.chain import SOURCES
from tinymim.experiments.plan import CHECKPOINT, Plan, Stage, keeps_checkpoint, seeded
from tinymim.methods.distillation import Distiller
from tinymim.safety.console import PlainConsole
from tinymim.targets import Target
from tinymim.tasks.classification import Classifier
from tinymim.tasks.dense import DensePredictionTask
from tinymim.tasks.scene_tasks import SceneTasks
from tinymim.teachers import locate
from tinymim.teachers.locate import Teacher
from tinymim.training import preflight

NAMED = 3
"""Stages that share a mistake and are named before it, at most."""


@dataclass
class Promise:
    """Knowledge of a stage before it runs: why it cannot; its module and data, unless its recipe is too wrong to build
    them; and the weights it will leave, with their record, unless that cannot be told."""

    problems: list[str] = field(default_factory=list)
    model: Any = None
    data: Any = None
    leaves: Teacher | None = None
    record: dict[str, Any] | None = None


def check(plan: Plan, stages: Iterable[str] | None = None) -> dict[str, Promise]:
    """Build each stage on the meta device, from the record of the one before.

    Args:
        plan: whose stages; one whose parent cannot run is checked by its text alone.
        stages: these, and those whose checkpoints they read; by default all.
    """
    wanted = set(plan.stages if stages is None else stages)
    for stage in reversed(plan.stages.values()):  # sources stand above what reads them
        if stage.name in wanted:
            wanted.update(stage.sources.values())
    promises: dict[str, Promise] = {}
    alike: dict[str, Promise] = {}  # rows of a study share most of their stages
    for name, stage in plan.stages.items():
        if name not in wanted:
            continue
        before = promises[stage.parent] if stage.parent else None
        start = None if stage.config else stage.start
        same = json.dumps([stage.kind, stage.config, start, before.record if before else None], default=str)
        if same not in alike:
            alike[same] = _promise(stage, before)
        promises[name] = replace(alike[same], problems=alike[same].problems + _use_problems(plan, stage, alike[same]))
    return promises


def problems(plan: Plan, promises: dict[str, Promise], stages: Iterable[str] | None = None) -> list[str]:
    """The mistakes of ``stages``, by default of all that were checked, each once: behind the names of the stages that
    share it or, where these are more than :data:`NAMED`, before their number."""
    sharing: dict[str, list[str]] = {}
    chosen = plan.settings.keys() if plan.settings else set()
    checked = list(promises if stages is None else stages)
    for name in checked:
        for problem in promises[name].problems:
            key = problem.partition(":")[0].replace(".init_args", "")
            blamed = f"{plan.settings.source}: {problem}" if plan.settings and key in chosen else problem
            sharing.setdefault(blamed, []).append(name)
    return [_told(problem, names, len(checked)) for problem, names in sharing.items()]


def _told(problem: str, names: list[str], of: int) -> str:
    """A mistake and the stages, ``of`` so many, that have it."""
    if len(names) <= NAMED:
        return f"{', '.join(names)}: {problem}"
    return f"{problem} (in {'all ' if len(names) == of else ''}{len(names)} stages, from {names[0]} on)"


def _promise(stage: Stage, before: Promise | None) -> Promise:
    try:
        if stage.kind == "export":
            problem = None if stage.parent else locate.locate(str(stage.start)).problem()
            return Promise([problem] if problem else [])
        config = seeded(stage.config)
        leaves = before.leaves if before else None
        if stage.sources and not leaves:  # files that are yet to be written, and of which nothing is known
            return Promise(validation.mistakes(config)[0])
        seen = preflight.inspect(config, leaves)
    except TinymimError as error:
        return Promise([str(error)])
    kind = _kind_problems(stage, seen.model) if seen.model is not None and stage.kind in SOURCES else []
    return Promise([*seen.problems, *kind], seen.model, seen.data, *_leaves(seen.model))


def _use_problems(plan: Plan, stage: Stage, promise: Promise) -> list[str]:
    """Requirements of the rest of the plan that a stage does not meet."""
    errors = []
    rows = (plan.compare.get("rows") or {}).values()
    if isinstance(promise.model, DensePredictionTask) and any(stage.name in row for row in rows):
        errors.append("compare.rows: they show accuracy on labels, and this stage is measured otherwise; take it out")
    if not keeps_checkpoint(stage) and any(stage.name in other.sources.values() for other in plan.stages.values()):
        errors.append("trainer.enable_checkpointing: false, and another stage needs its checkpoint; leave it out")
    return errors


def _leaves(model: Any) -> tuple[Teacher | None, dict[str, Any] | None]:
    """The weights and record that its checkpoint will hold. A missing file of weights or images does not matter to
    that; a recipe whose sizes do not fit says nothing."""
    try:
        record = model.checkpoint_record()
        return locate.promised(CHECKPOINT, record), record
    except (TinymimError, NotImplementedError, AttributeError, AssertionError):
        return None, None


def _kind_problems(stage: Stage, model: Any) -> list[str]:
    if isinstance(model, Distiller):
        kind = "distill"
    elif isinstance(model, Classifier):
        kind = "probe" if model.linear_probe else "finetune"
    elif isinstance(model, SceneTasks):
        kind = "probe" if model.frozen else "finetune"
    elif isinstance(model, DensePredictionTask):
        kind = "finetune"
    else:
        kind = "pretrain"
    if kind == stage.kind:
        return []
    return [f"kind: {stage.kind}, and recipe {stage.recipe} trains a {type(model).__name__}, which is of kind {kind}"]


def show(plan: Plan, promises: dict[str, Promise]) -> None:
    """Print the resolved stages."""
    lengths: dict[str, int] = {}
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name in promises:
        stage = plan.stages[name]
        table.add_row(name, f"{stage.kind} {stage.recipe}".strip(), style="bold")
        for title, text in _lines(stage, promises[name], lengths):
            table.add_row(f"  {title}", text)
    console = PlainConsole()
    seeds = "" if plan.seeds is None else f", each from seeds {', '.join(map(str, plan.seeds))}"
    console.print(f"{plan.kind} {plan.name}: {counted(len(plan.stages), 'stage')}{seeds}")
    console.print(table)


def _lines(stage: Stage, promise: Promise, lengths: dict[str, int]) -> list[tuple[str, str]]:
    """The lines of a stage in the plan: title and text of each."""
    taught = stage.kind == "distill" or isinstance(promise.model, Distiller)
    lines = [("teacher", stage.start or "the recipe's") if taught else ("from", stage.start or "scratch")]
    if stage.kind == "export":
        return [*lines, ("writes", f"{stage.name}/student.safetensors")]
    if promise.leaves is None:
        return [*lines, ("leaves", "cannot be told before the mistakes are mended")]
    network = promise.leaves.skeleton
    if isinstance(promise.model, Distiller):
        start = cast(Teacher, promise.model.located)
        lines.append(("", f"{start.skeleton.describe()}; {_trained(start)}; licence {start.licence}"))
        for target in cast(list[Target], promise.model.targets):
            lines.append((target.name, target.describe()))
    count = sum(parameter.numel() for parameter in network.vit.parameters())
    lines.append(("network", f"{network.describe()}, {count:,} parameters"))
    if stage.kind == "test":  # which trains nothing
        return lines
    lines.append(("leaves", f"{_trained(promise.leaves)}; licence {promise.leaves.licence}"))
    return [*lines, ("run", _length(stage, promise, lengths))]


def _trained(start: Teacher) -> str:
    """The parts of a network that were trained, for people."""
    network = start.skeleton
    text = f"output block {network.output_block} of {network.depth}"
    if network.output_block < network.depth and network.trained_qkv:
        text += f" ({', '.join(network.trained_qkv)} of block {network.output_block + 1} trained too)"
    return text


def _length(stage: Stage, promise: Promise, lengths: dict[str, int]) -> str:
    """Epochs and, where the images can be counted, steps."""
    trainer = stage.config.get("trainer") or {}
    epochs, most = trainer.get("max_epochs") or 1000, trainer.get("max_steps", -1)  # Lightning's defaults
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes") or 1
    processes = (len(devices) if isinstance(devices, list) else devices) if not isinstance(devices, str) else 1
    accumulate = trainer.get("accumulate_grad_batches") or 1
    step = promise.data.batch_size, max(int(processes), 1) * nodes, accumulate
    length = counted(epochs, "epoch") if epochs != -1 else f"{most:,} steps"
    text = f"{length}, total batch {step_images(*step)[0]}"
    if min(step) < 1:  # one of the mistakes
        return text
    read = json.dumps(stage.config.get("data"), sort_keys=True)
    if read not in lengths:  # counted once for all stages that read the same
        try:
            lengths[read] = count(promise.data)
        except (TinymimError, OSError):
            lengths[read] = 0
    if not (images := lengths[read]):
        return f"{text}; the images cannot be counted yet"
    held, batches = step_images(*step, images, trainer.get("limit_train_batches"))
    steps = epochs * max(-(-batches // accumulate), 1)
    if most >= 0:
        steps = min(steps, most) if epochs != -1 else most
    return f"{length}, total batch {held}, about {steps:,} steps over {images:,} images"


def count(data: Any) -> int:
    """Training images of a data module, which is set up for that."""
    data.setup("fit")
    return len(data.train)
