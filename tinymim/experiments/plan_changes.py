"""Changes of a plan since it was begun, and whether that can alter a result."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from typing import Any

from tinymim import precision
from tinymim.config import class_paths, recipe, spec
from tinymim.data.sampler import step_images
from tinymim.experiments.plan import SEED, Plan, Stage, seeded


def decisive(stage: Stage) -> dict[str, Any]:
    """All that decides the results of a stage but its seed. Processes and batches count by the total batch alone."""
    config = _named(copy.deepcopy(stage.config))
    for part, names in spec.FREE.items():
        for name in names:
            _options(config, part).pop(name, None)
    config.pop("checkpoint", None)
    whole: dict[str, Any] = {"kind": stage.kind, "start": stage.start}
    if config:
        whole["total_batch"] = _total_batch(config)
    return whole | config


def _named(node: Any) -> Any:
    """A recipe with the project's classes by their names: their modules may have moved since it was written."""
    if isinstance(node, list):
        return [_named(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    named = {key: _named(value) for key, value in node.items()}
    if isinstance(path := named.get("class_path"), str) and class_paths.is_own(path):
        named["class_path"] = f"tinymim.{path.rpartition('.')[2]}"
    return named


def _options(config: recipe.Config, part: str) -> dict[str, Any]:
    """The options of a part, in place; none where somebody wrote something else there, which the check will say."""
    node = config.get(part)
    options = node.get("init_args", node) if isinstance(node, dict) else None
    return options if isinstance(options, dict) else {}


def _total_batch(config: recipe.Config) -> int | str:
    """Images of a step, taken out of ``config``; in words where Lightning settles the number of processes."""
    trainer, options = _options(config, "trainer"), _options(config, "data")
    images = options.pop("batch_size", "the data's own")
    steps, devices = trainer.pop("accumulate_grad_batches", None) or 1, trainer.pop("devices", None) or "auto"
    nodes = trainer.pop("num_nodes", None) or 1
    processes = len(devices) if isinstance(devices, list) else devices
    if isinstance(images, int) and isinstance(processes, int) and processes > 0:
        return step_images(images, processes * nodes, steps)[0]  # of images that nobody has counted
    return f"{images} x {steps} accumulated x {processes} devices x {nodes} nodes"


def keep_precision(old: Plan, new: Plan) -> Plan:
    """``new`` with the precision that a stage of ``old`` names where it says ``auto``, which goes on with what it has:
    no change."""
    stages = dict(new.stages)
    for name, stage in new.stages.items():
        before = precision.of(old.stages[name].config) if name in old.stages else None
        if before and precision.is_auto(stage.config):
            stages[name] = dataclasses.replace(stage, config=precision.with_precision(stage.config, before))
    return dataclasses.replace(new, stages=stages)


def digest(stage: Stage) -> str:
    """SHA-256 of what decides a stage's results."""
    return hashlib.sha256(json.dumps(decisive(stage), sort_keys=True).encode()).hexdigest()


def between(old: Plan, new: Plan) -> dict[str, list[str]]:
    """Changes that could alter results, a line each, by the stage it is in; ``""`` has what concerns all of them."""
    changes: dict[str, list[str]] = {}
    for name in dict.fromkeys([*old.stages, *new.stages]):
        before, after = old.stages.get(name), new.stages.get(name)
        if before is None or after is None:
            changes[name] = [f"{name}: {'a new stage' if before is None else 'no longer there'}"]
            continue
        if after.config and SEED not in json.dumps(before.config):  # a folder of an earlier version has it in place
            after = dataclasses.replace(after, config=seeded(after.config))
        if lines := spec.differences(decisive(before), decisive(after), name):
            changes[name] = lines
    if old.seeds != new.seeds:
        changes[""] = [f"seeds: {old.seeds}, now {new.seeds}"]
    return changes
