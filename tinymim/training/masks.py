"""What ``tinymim predict`` writes of a Segmenter."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from PIL import Image

from tinymim.files import write_atomically
from tinymim.log import say


class MaskFiles(pl.Callback):
    """Write each predicted mask as a PNG, named after its image or numbered, in the classes of the data's own masks.

    Args:
        run_dir: the run folder; ``masks/`` goes there.
    """

    def __init__(self, run_dir: Path):
        self.folder = run_dir / "masks"
        self._written = 0

    def on_predict_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, *args: Any) -> None:
        """Write the masks of a batch."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        masks = (outputs["mask"] + data.first_class).to(torch.uint8).cpu().numpy()
        for index, mask in zip(outputs["index"].tolist(), masks, strict=True):
            path = self.folder / f"{data.name_of(index)}.png"
            write_atomically(path, functools.partial(Image.fromarray(mask).save, format="PNG"))
            self._written += 1

    def on_predict_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Say where they are."""
        say(f"wrote {self._written} masks into {self.folder}")
