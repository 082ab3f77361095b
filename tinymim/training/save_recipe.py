"""What a run writes of itself before its first step."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from lightning.pytorch.cli import SaveConfigCallback

from tinymim import precision
from tinymim.config import recipe as recipes
from tinymim.config import references
from tinymim.config.spec import differences
from tinymim.errors import TinymimError
from tinymim.files import write_json, write_text
from tinymim.log import say
from tinymim.safety import text
from tinymim.training import run_folder


def precision_before(config: recipes.Config) -> str | None:
    """What the run that a resolved recipe goes on with computed in; ``None`` where it goes on with none."""
    checkpoint = config.get("ckpt_path")
    if not checkpoint:
        return None
    own = Path(config.get("run_dir") or Path("runs") / str(config.get("name", "run")))
    return precision_in([own if checkpoint == "last" else Path(checkpoint).parent.parent])


def precision_in(folders: Iterable[Path]) -> str | None:
    """What the first of these run folders that holds a recipe computed in."""
    for place in folders:
        try:
            recipe = text.read_yaml(place / "config.yaml", "a recipe")
            trainer = references.filled(recipe.get("trainer")) if isinstance(recipe, dict) else None
        except TinymimError:
            continue
        if isinstance(trainer, dict):
            return precision.of({"trainer": trainer}) or precision.EXACT  # none is Lightning's, which is that
    return None


BORN = ("model.init_args.init: ", "model.init_args.weights: ")
"""Options that the first step alone looks at: from then on the checkpoint says them."""


def changed(before: recipes.Config, now: recipes.Config) -> list[str]:
    """Where a run goes on with another recipe than it had, a line each, and whether that changes anything."""
    late = " (which has no effect on weights that are already trained)"
    return [line + late if line.startswith(BORN) else line for line in differences(before, now)]


class SaveRecipe(SaveConfigCallback):
    """Write the resolved recipe and the environment into the run folder, once a checkpoint has been accepted.

    Args:
        args: Lightning's own.
        kept: where the recipe refers to the environment; it is saved so.
        options: Lightning's own.
    """

    def __init__(self, *args: Any, kept: list[tuple[references.Place, str]] | None = None, **options: Any):
        super().__init__(*args, **options)
        self.kept = kept or []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lightning would write here already, before it is known whether the checkpoint fits the recipe."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write both files."""
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lightning's place for it."""
        place = Path(trainer.default_root_dir)
        written = self.parser.dump(self.config, skip_none=False)
        for own in ("ckpt_path: null", "overwrite: false"):  # what was asked of this command alone
            written = re.sub(rf"^{own.partition(':')[0]}: .*$", own, written, flags=re.MULTILINE)
        if self.kept:
            written = yaml.safe_dump(references.put_back(yaml.safe_load(written), self.kept), sort_keys=False)
        before = place / "config.yaml"
        if before.is_file() and (lines := changed(*map(yaml.safe_load, (before.read_text(), written)))):
            say(f"the run goes on with another recipe than it had: {'; '.join(lines)}")
        write_text(before, written)
        write_json(place / "environment.json", run_folder.environment())
