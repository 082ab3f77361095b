"""What a run writes of itself before its first step."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import yaml
from lightning.pytorch.cli import SaveConfigCallback

from tinymim import recipes
from tinymim.run import folder
from tinymim.run.outline import differences
from tinymim.say import say
from tinymim.weights import write_text


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
        before = place / "config.yaml"
        if before.is_file() and (lines := differences(_recipe(before.read_text()), _recipe(text))):
            say(f"the run goes on with another recipe than it had: {'; '.join(lines)}")
        write_text(before, text)
        folder.write_json(place / "environment.json", folder.environment())


def _recipe(text: str) -> recipes.Config:
    """A resolved recipe without what belongs to one command."""
    return {key: value for key, value in yaml.safe_load(text).items() if key not in ("ckpt_path", "overwrite")}
