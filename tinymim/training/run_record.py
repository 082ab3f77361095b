"""The record of a run in its folder: its resolved recipe and its environment, and how another one differs from it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.cli import SaveConfigCallback
from typing_extensions import override

from tinymim import precision
from tinymim.config import recipe as recipes
from tinymim.config import references
from tinymim.config.spec import FREE, differences, in_line, unlike
from tinymim.data.opened import called
from tinymim.errors import TinymimError
from tinymim.files import write_json, write_text
from tinymim.log import say
from tinymim.methods.checkpoint_record import OTHER_RUN
from tinymim.safety import text
from tinymim.training.run_folder import ENVIRONMENT, RECIPE

PACKAGES = (
    *("tinymim", "torch", "torchvision", "timm", "lightning"),
    *("torchmetrics", "jsonargparse", "omegaconf", "numpy"),
)

NOTES = {
    "model.init_args.init": " (which has no effect on weights that are already trained)",
    "model.init_args.weights": " (which has no effect on weights that are already trained)",
    "model.init_args.compile": " (compiled code draws other random numbers, so drop path and masks are not the same)",
}
"""Options that mean something else to a run that goes on."""


_FREE = [
    *(f"{part}.{name}" for part, names in FREE.items() for name in names),
    *("name", "run_dir", "ckpt_path", "overwrite", "on_nonfinite", "max_rewinds", "checkpoint", "compare"),
    *("trainer.devices", "trainer.num_nodes", "trainer.accumulate_grad_batches", "data.batch_size", "trainer.max_time"),
    *("data.root", "model.teacher_cache_dir"),
]
UNLOOKED = re.compile(rf"({'|'.join(map(re.escape, _FREE))})(?!\w)")
"""Options that may be others in a call that goes on with a run. Of images, and of their number in a step, its
checkpoint knows more."""

LENGTHS = ("trainer.max_epochs", "trainer.max_steps")


def changed(before: recipes.Config, now: recipes.Config) -> list[str]:
    """Differences between the recipe that a run had and the one it goes on with, and whether they have any effect.
    Where the run lies is none: `tinymim resume` names its folder, which a first command may have left to the rule."""
    before, now = ({name: value for name, value in each.items() if name != "run_dir"} for each in (before, now))
    return [line + NOTES.get(line.partition(":")[0], "") for line in differences(before, now)]


class SaveRecipe(SaveConfigCallback):
    """Write the resolved recipe and the environment into the run folder, once a checkpoint has been accepted.

    The recipe is saved with its references to the environment, which ``kept`` has.
    """

    def __init__(self, *args: Any, kept: list[tuple[references.Place, str]] | None = None, **options: Any):
        super().__init__(*args, **options)
        self.kept = kept or []

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Lightning would write here already, before it is known whether the checkpoint fits the recipe
        pass

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")

    @override
    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        folder = Path(trainer.default_root_dir)
        recipe = dumped(self.parser, self.config)
        for line in ("ckpt_path: null", "overwrite: false"):  # options of this command alone
            recipe = re.sub(rf"^{line.partition(':')[0]}: .*$", line, recipe, flags=re.MULTILINE)
        if self.kept:
            recipe = yaml.safe_dump(references.put_back(yaml.safe_load(recipe), self.kept), sort_keys=False)
        path = folder / RECIPE
        if path.exists():
            try:
                changes = changed(text.read_yaml(path, "the recipe that the run had"), yaml.safe_load(recipe))
            except TinymimError as error:
                changes = [str(error)]
            if changes:
                say(f"the run goes on with another recipe than it had: {'; '.join(changes)}")
        write_text(path, recipe)
        now, before = environment(), _environment_before(folder)
        if now["device"] == "cpu" and before.get("threads", now["threads"]) != now["threads"]:
            say(f"threads: the run had {before['threads']}, and now has {now['threads']}: sums are rounded otherwise")
        write_json(folder / ENVIRONMENT, now)


def dumped(parser: Any, config: Any) -> str:
    """A parsed recipe as YAML, without defaults that no text holds, such as a callback's device."""
    written: str = parser.dump(config, skip_unset=False)
    return re.sub(r"^[ -]*\w+: Unable to serialize instance .*\n", "", written, flags=re.MULTILINE)


def check_same(folder: Path, parser: Any, config: Any, data: Any) -> None:
    """Check that a recipe, which is to go on with the run in ``folder``, comes to that run's results; its images are
    compared once they are known.

    More epochs or steps are none of the differences, nor is how it is done (:data:`UNLOOKED`).

    Args:
        folder: of the run.
        parser: of the recipe.
        config: the recipe, parsed.
        data: its data module.

    Raises:
        TinymimError: it does not; the message names what differs.
    """
    data.same_images = True
    if not (folder / RECIPE).is_file():
        return
    before = text.read_yaml(folder / RECIPE, "the recipe that the run had")
    now = text.yaml_data(dumped(parser, config), "the recipe")
    others = {
        path: (old, new)
        for path, old, new in unlike(before, now, any_version=True)
        if not UNLOOKED.match(path) and [_called(old)] != [_called(new)]
    }
    for name in LENGTHS:
        if name in others and _longer(*others[name]):
            del others[name]
            others.pop("model.optim.warmup_epochs", None)  # which follows them
    if others:
        lines = [in_line(path, *values) for path, values in others.items()]
        raise TinymimError(f"run_dir: {folder} holds another run ({'; '.join(lines)}); {OTHER_RUN}")


def _called(value: Any) -> Any:
    """A value in which a data set of a Python program has no number, which is this process's."""
    return called(value) if isinstance(value, str) else value


def _longer(old: Any, new: Any) -> bool:
    return new in (None, -1) or (isinstance(old, int) and isinstance(new, int) and -1 != old < new)


def _environment_before(folder: Path) -> dict[str, Any]:
    try:
        return text.mapping(json.loads(text.contents(folder / ENVIRONMENT, ENVIRONMENT)), ENVIRONMENT)
    except (TinymimError, ValueError):
        return {}


def precision_before(config: recipes.Config) -> str | None:
    """Precision of the run that a resolved recipe goes on with; ``None`` where it goes on with none."""
    checkpoint = config.get("ckpt_path")
    if not checkpoint:
        return None
    folder = Path(config.get("run_dir") or Path("runs") / str(config.get("name", "run")))
    return precision_in([folder if checkpoint == "last" else Path(checkpoint).parent.parent])


def precision_in(folders: Iterable[Path]) -> str | None:
    """Precision in the first of these run folders that holds a recipe."""
    for folder in folders:
        try:
            recipe = text.read_yaml(folder / RECIPE, "a recipe")
            trainer = references.filled(recipe.get("trainer")) if isinstance(recipe, dict) else None
        except TinymimError:
            continue
        if isinstance(trainer, dict):
            return precision.of({"trainer": trainer}) or precision.EXACT  # none is Lightning's, which is that
    return None


def environment() -> dict[str, Any]:
    """Everything a run depends on besides its recipe."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(sys.argv),
        "git": _git(),
        "python": sys.version.split()[0],
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
    }


def _git() -> dict[str, Any]:
    """Revision of the project, and whether files differ from it; empty outside a repository."""

    def git(*arguments: str) -> str:
        options: dict[str, Any] = {"capture_output": True, "text": True, "check": True, "timeout": 10}
        return subprocess.run(["git", *arguments], cwd=Path(__file__).parent, **options).stdout.strip()

    try:
        return {"revision": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return {}
