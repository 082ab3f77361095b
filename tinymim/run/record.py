"""What a run writes of itself before its first step."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from lightning.pytorch.cli import SaveConfigCallback

from tinymim import references
from tinymim.files import write_json, write_text
from tinymim.run import folder
from tinymim.run.outline import differences
from tinymim.say import say


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
        text = self.parser.dump(self.config, skip_none=False)
        for own in ("ckpt_path: null", "overwrite: false"):  # what was asked of this command alone
            text = re.sub(rf"^{own.partition(':')[0]}: .*$", own, text, flags=re.MULTILINE)
        if self.kept:
            text = yaml.safe_dump(references.put_back(yaml.safe_load(text), self.kept), sort_keys=False)
        before = place / "config.yaml"
        if before.is_file() and (lines := differences(*map(yaml.safe_load, (before.read_text(), text)))):
            say(f"the run goes on with another recipe than it had: {'; '.join(lines)}")
        write_text(before, text)
        write_json(place / "environment.json", folder.environment())
