"""The files between stages: what each starts from and what it leaves, and whether they are still the same."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path

from tinymim.config import references
from tinymim.errors import TinymimError
from tinymim.experiments.plan import CHECKPOINT, keeps_checkpoint, overrides
from tinymim.experiments.state import State, recipe_path
from tinymim.files import sha256
from tinymim.teachers import locate

RESULTS = "results.json"
TESTED = "test.json"
EXPORTED = "student.safetensors"

MEASURED = ("study", "search")
"""Kinds of plans that are run for their figures: their checkpoints may go once every fit has started from them."""


def promised(state: State, key: str) -> list[str]:
    """The files that a finished fit leaves, in its folder."""
    stage = state.plan.stage(key)
    others = {"export": [EXPORTED], "command": [], "test": [TESTED]}
    return others.get(stage.kind, [*([CHECKPOINT] if keeps_checkpoint(stage) else []), RESULTS])


def outputs(state: State, key: str) -> dict[str, str]:
    """Files that a stage has left as they are now, with the sha256 of each."""
    files = {name: state.place / key / name for name in promised(state, key)}
    return {name: sha256(path) for name, path in files.items() if path.is_file()}


def source(state: State, key: str) -> Path | None:
    """The file that a stage starts from; ``None`` where it starts from nothing, or the file is not here."""
    start, parent = state.plan.stage(key).start, state.plan.parent(key)
    if parent:
        path = state.place / parent / CHECKPOINT
        return path if path.is_file() else None
    try:
        return locate.file_of(references.filled(start)) if start else None
    except TinymimError:
        return None


def inputs(state: State, key: str) -> dict[str, str]:
    """The file that a stage starts from as it is now: its name, and its sha256."""
    path = source(state, key)
    return {str(state.plan.stage(key).start): sha256(path)} if path else {}


def altered(state: State, keys: Iterable[str], needed: Collection[str]) -> dict[str, list[str]]:
    """Files of finished fits that are missing or altered, and teachers that are not those a fit was begun with.

    Args:
        state: of a plan.
        keys: of the fits to look at.
        needed: fits from which others have yet to start.

    Returns:
        A line for each, by key.
    """
    changes: dict[str, list[str]] = {}
    for key in keys:
        entry, lines = state.entries[key], []
        if entry.state == "done":
            there = outputs(state, key)
            if state.plan.kind in MEASURED and key not in needed and CHECKPOINT in entry.outputs:
                there.setdefault(CHECKPOINT, entry.outputs[CHECKPOINT])
            lines = [
                f"{state.place / key / name}: sha256 was {sha}, and it is {there.get(name, 'missing')}"
                for name, sha in entry.outputs.items()
                if there.get(name) != sha
            ]
        if entry.inputs and not state.plan.parent(key):
            lines += [
                f"{source(state, key)}: sha256 is {sha}, and {key} was begun with {entry.inputs[name]}"
                for name, sha in inputs(state, key).items()
                if entry.inputs.get(name, sha) != sha
            ]
        if lines:
            changes[key] = lines
    return changes


def command(state: State, key: str, settled: str | None) -> list[str]:
    """The command line of a fit, behind ``tinymim``.

    Args:
        state: of its plan.
        key: of the fit.
        settled: the precision that ``auto`` means; ``None`` leaves what the recipe says.
    """
    stage, place = state.plan.stage(key), state.place / key
    if stage.kind == "command":
        return list(stage.config["words"])
    if stage.kind == "export":
        return ["export", str(source(state, key) or stage.start), str(place / EXPORTED), "--overwrite"]
    words = ["--config", str(recipe_path(state.place, stage.name)), f"--run_dir={json.dumps(str(place))}"]
    if (seed := state.plan.fits[key].seed) is not None:
        words.append(f"--seed_everything={seed}")
    if settled:
        words.append(f"--trainer.precision={settled}")
    sources = state.plan.sources(key)
    words += overrides(stage.config, {path: str(state.place / sources[path] / CHECKPOINT) for path in sources})
    return ["test", *words] if stage.kind == "test" else ["fit", *words, "--ckpt_path", "last"]
