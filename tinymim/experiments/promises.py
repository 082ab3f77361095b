"""Before anything runs: each stage against what the one before it will leave, derived from recipes and sizes alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from rich.table import Table

from tinymim.config import recipe, validation
from tinymim.errors import TinymimError
from tinymim.experiments.plan import CHECKPOINT, SEED, Chain, Stage
from tinymim.methods.distillation import Distiller
from tinymim.safety.console import PlainConsole
from tinymim.targets import Target
from tinymim.tasks.classification import Classifier
from tinymim.tasks.dense import DensePredictionTask
from tinymim.tasks.scene_tasks import SceneTasks
from tinymim.teachers import locate
from tinymim.teachers.locate import Teacher
from tinymim.training import preflight


@dataclass
class Promise:
    """What is known of a stage before it runs.

    Args:
        problems: why it cannot run.
        model: its module, unless its recipe is too wrong to build one.
        data: its data module, likewise.
        leaves: what it starts the next one with; ``None`` where that cannot be told, or where it leaves nothing.
    """

    problems: list[str] = field(default_factory=list)
    model: Any = None
    data: Any = None
    leaves: Teacher | None = None


def seeded(config: recipe.Config, seed: int | None = None) -> recipe.Config:
    """A stage's recipe with its seed in place, its own where ``None``."""
    number = config.get("seed_everything", 0) if seed is None else seed
    return {key: _filled(value, number) for key, value in config.items()} | {"seed_everything": number}


def _filled(node: Any, seed: int) -> Any:
    if isinstance(node, dict):
        return {key: _filled(value, seed) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, seed) for value in node]
    if node == SEED:
        return seed
    return node.replace(SEED, str(seed)) if isinstance(node, str) else node


def check(chain: Chain) -> dict[str, Promise]:
    """Every stage's promise, by its name. A stage whose predecessor cannot run is checked by its text alone."""
    promises: dict[str, Promise] = {}
    for name, stage in chain.stages.items():
        promises[name] = _promise(stage, chain, promises[stage.parent] if stage.parent else None)
    return promises


def problems(promises: dict[str, Promise], stages: Iterable[str]) -> list[str]:
    """The mistakes of ``stages``, each once, with the names of those that share it."""
    sharing: dict[str, list[str]] = {}
    for name in stages:
        for problem in promises[name].problems:
            sharing.setdefault(problem, []).append(name)
    return [f"{', '.join(names)}: {problem}" for problem, names in sharing.items()]


def _promise(stage: Stage, chain: Chain, before: Promise | None) -> Promise:
    source = before.leaves if before else None
    if stage.kind == "export":
        return Promise([] if stage.parent or before else _export_problems(str(stage.start)))
    config = seeded(stage.config)
    if stage.parent and not source:
        return Promise(validation.mistakes(config)[0])
    seen = preflight.inspect(config, source)
    found = list(seen.problems)
    if seen.model is not None:
        found += _kind_problems(stage, seen.model)
    rows = (chain.compare.get("rows") or {}).values()
    if isinstance(seen.model, DensePredictionTask) and any(stage.name in row for row in rows):
        found.append("compare.rows: they show accuracy on labels, and this stage is measured otherwise; take it out")
    taken = any(other.parent == stage.name for other in chain.stages.values())
    if taken and (config.get("trainer") or {}).get("enable_checkpointing") is False:
        found.append("trainer.enable_checkpointing: false, and another stage starts from its checkpoint; leave it out")
    return Promise(found, seen.model, seen.data, _leaves(stage, seen.model))


def _leaves(stage: Stage, model: Any) -> Teacher | None:
    """What its checkpoint will be. A missing file of weights or images does not matter to that; a recipe whose sizes do
    not fit says nothing."""
    try:
        return locate.promised(f"{stage.name}/{CHECKPOINT}", model.checkpoint_record())
    except (TinymimError, NotImplementedError, AttributeError, AssertionError):
        return None


def _export_problems(source: str) -> list[str]:
    try:
        return [problem] if (problem := locate.locate(source).problem()) else []
    except TinymimError as error:
        return [str(error)]


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


def show(chain: Chain, promises: dict[str, Promise]) -> None:
    """Print the resolved stages."""
    lengths: dict[str, int] = {}
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, stage in chain.stages.items():
        table.add_row(name, f"{stage.kind} {stage.recipe}".strip(), style="bold")
        for title, text in _lines(stage, promises[name], lengths):
            table.add_row(f"  {title}", text)
    console = PlainConsole()
    seeds = "" if chain.seeds is None else f", each from seeds {', '.join(map(str, chain.seeds))}"
    console.print(f"chain {chain.name}: {len(chain.stages)} stages{seeds}")
    console.print(table)


def _lines(stage: Stage, promise: Promise, lengths: dict[str, int]) -> list[tuple[str, str]]:
    """What the plan says of a stage: title and text of each line."""
    lines = [("from", stage.start or "scratch")]
    if stage.kind == "export":
        return [*lines, ("writes", f"{stage.name}/student.safetensors")]
    if promise.leaves is None:
        return [*lines, ("leaves", "cannot be told before the mistakes are mended")]
    network = promise.leaves.skeleton
    if isinstance(promise.model, Distiller):
        start = cast(Teacher, promise.model.located)
        lines.append(("teacher", f"{start.skeleton.describe()}; {_trained(start)}; licence {start.licence}"))
        for target in cast(list[Target], promise.model.targets):
            lines.append((target.name, target.describe()))
    count = sum(parameter.numel() for parameter in network.vit.parameters())
    lines.append(("network", f"{network.describe()}, {count:,} parameters"))
    lines.append(("leaves", f"{_trained(promise.leaves)}; licence {promise.leaves.licence}"))
    return [*lines, ("run", _length(stage, promise, lengths))]


def _trained(start: Teacher) -> str:
    """How far a network was trained, for people."""
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
    batch = promise.data.batch_size * max(int(processes), 1) * nodes
    length = f"{epochs} epochs" if epochs != -1 else f"{most:,} steps"
    text = f"{length}, total batch {batch * accumulate}"
    if batch < 1:  # one of the mistakes
        return text
    images = _images(promise.data, stage, lengths)
    if not images:
        return f"{text}; the images cannot be counted yet"
    batches = max(images // batch, 1)
    limit = trainer.get("limit_train_batches")
    if limit is not None:
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = epochs * max(-(-batches // accumulate), 1)
    if most >= 0:
        steps = min(steps, most) if epochs != -1 else most
    return f"{text}, about {steps:,} steps over {images:,} images"


def count(data: Any) -> int:
    """Training images of a data module, which is set up for that."""
    data.setup("fit")
    return len(data.train)


def _images(data: Any, stage: Stage, lengths: dict[str, int]) -> int:
    """Training images, counted once for all stages that read the same; 0 where they are not here."""
    key = json.dumps(stage.config.get("data"), sort_keys=True)
    if key not in lengths:
        try:
            lengths[key] = count(data)
        except (TinymimError, OSError):
            lengths[key] = 0
    return lengths[key]
