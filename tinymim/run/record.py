"""What a run writes of itself before its first step."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import lightning.pytorch as pl
import yaml
from lightning.pytorch.cli import SaveConfigCallback

from tinymim import precision, recipes
from tinymim.files import write_json, write_text
from tinymim.run import folder
from tinymim.run.outline import differences
from tinymim.say import say


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
            recipe = yaml.safe_load((place / "config.yaml").read_text())
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(recipe, dict) and isinstance(recipe.get("trainer"), dict):
            return precision.of(recipe) or precision.EXACT  # none is Lightning's, which is that
    return None


class SaveRecipe(SaveConfigCallback):
    """Write the resolved recipe and the environment into the run folder, once a checkpoint has been accepted."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lightning would write here already, before it is known whether the checkpoint fits the recipe."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write both files."""
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lightning's place for it."""
        place = Path(trainer.default_root_dir)
        text = self.parser.dump(self.config, skip_none=False)
        for own in ("ckpt_path: null", "overwrite: false"):  # what was asked of this command alone
            text = re.sub(rf"^{own.partition(':')[0]}: .*$", own, text, flags=re.MULTILINE)
        before = place / "config.yaml"
        if before.is_file() and (lines := differences(*map(yaml.safe_load, (before.read_text(), text)))):
            say(f"the run goes on with another recipe than it had: {'; '.join(lines)}")
        write_text(before, text)
        write_json(place / "environment.json", folder.environment())
