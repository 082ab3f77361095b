"""What ``tinymim predict`` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from tinymim.errors import TinymimError
from tinymim.files import write_atomically
from tinymim.say import say


class Predictions(pl.Callback):
    """Write what ``predict`` gives, ordered by image index, as NumPy arrays.

    Args:
        run_dir: the run folder; ``predictions.npz`` goes there.
    """

    def __init__(self, run_dir: Path):
        self.path = run_dir / "predictions.npz"
        self._parts: list[dict[str, torch.Tensor]] = []

    def on_predict_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *args: Any) -> None:
        """Keep a batch."""
        self._parts.append({name: value.cpu() for name, value in outputs.items()})

    def on_predict_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write them all."""
        if trainer.world_size > 1:
            raise TinymimError(
                "predict: use one process (--trainer.devices 1); the images are not put together again over several"
            )
        joined = {name: torch.cat([part[name] for part in self._parts]).numpy() for name in self._parts[0]}
        order = joined["index"].argsort()
        arrays = {name: value[order] for name, value in joined.items()}

        def save(temporary: Path) -> None:
            with temporary.open("wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]

        write_atomically(self.path, save)
        say(f"wrote {self.path}: " + ", ".join(f"{k} {v.shape}" for k, v in arrays.items()))
