"""Output of ``tinymim predict``: a table as NumPy arrays (NPZ) or Parquet, or a PNG for each predicted mask."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from tinymim import extras
from tinymim.errors import TinymimError
from tinymim.files import check_writable, write_atomically
from tinymim.log import say

Columns = dict[str, NDArray[Any]]
"""Rows by column: ``(M,)``, or ``(M, D)`` where each row has a vector; text as a NumPy array of strings."""

ROWS = 4096
"""Rows of a Parquet row group: what is held in memory, and what a reader may skip."""


class PredictionArrays(pl.Callback):
    """Write what ``predict`` gives as NumPy arrays, ordered by image index: ``predictions.npz`` of a run folder."""

    def __init__(self, run_dir: Path):
        self.path = run_dir / "predictions.npz"
        self._batches: list[dict[str, torch.Tensor]] = []
        check_writable("run_dir", self.path)

    @override
    def on_predict_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *args: Any) -> None:
        self._batches.append({name: value.cpu() for name, value in outputs.items()})

    @override
    def on_predict_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.world_size > 1:
            raise TinymimError(
                "predict: use one process (--trainer.devices 1); the images are not put together again over several"
            )
        columns = _joined([{name: value.numpy() for name, value in batch.items()} for batch in self._batches])
        order = columns["index"].argsort()
        columns = {name: values[order] for name, values in columns.items()}
        write_table(self.path, iter([columns]))
        say(f"wrote {self.path}: " + ", ".join(f"{name} {values.shape}" for name, values in columns.items()))


class MaskFiles(pl.Callback):
    """Write each mask that ``predict`` gives as a PNG in ``masks/`` of a run folder, named after its image or numbered,
    in the data's own classes."""

    def __init__(self, run_dir: Path):
        self.folder = run_dir / "masks"
        self._written = 0
        check_writable("run_dir", self.folder, inside=True)

    @override
    def on_predict_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, *args: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        masks = (outputs["mask"] + data.first_class).to(torch.uint8).cpu().numpy()
        for index, mask in zip(outputs["index"].tolist(), masks, strict=True):
            path = self.folder / f"{data.name_of(index)}.png"
            write_atomically(path, functools.partial(Image.fromarray(mask).save, format="PNG"))
            self._written += 1

    @override
    def on_predict_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        say(f"wrote {self._written} masks into {self.folder}")


def check_ending(path: Path) -> None:
    """Raise unless a table can be written to a file with this ending."""
    if path.suffix not in WRITERS:
        raise TinymimError(f"out: {path} ends in neither {' nor '.join(WRITERS)}, which choose the form")
    if path.suffix == ".parquet":
        extras.need(f"out: {path.name} needs", "pyarrow")


def write_table(path: Path, batches: Iterator[Columns]) -> None:
    """Write rows as they come, whole or not at all.

    Args:
        path: its ending chooses the form: ``.npz`` keeps all rows in memory until the end, ``.parquet`` a few
            thousand.
        batches: rows, with the same columns in each; at least one.

    Raises:
        TinymimError: another ending.
    """
    check_ending(path)
    write_atomically(path, lambda temporary: WRITERS[path.suffix](temporary, batches))


def _write_npz(path: Path, batches: Iterator[Columns]) -> None:
    columns = _joined(list(batches))
    with path.open("wb") as stream:
        np.savez(stream, **columns)  # type: ignore[arg-type]


def _write_parquet(path: Path, batches: Iterator[Columns]) -> None:
    """One row group every :data:`ROWS` rows; vectors become fixed-size lists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def arrow(values: NDArray[Any]) -> Any:
        if values.ndim == 1:
            return pa.array(values)
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])

    with contextlib.ExitStack() as opened:
        writer = None
        for group in _row_groups(batches):
            table = pa.table({name: arrow(values) for name, values in group.items()})
            writer = writer or opened.enter_context(pq.ParquetWriter(path, table.schema))
            writer.write_table(table)


def _row_groups(batches: Iterator[Columns]) -> Iterator[Columns]:
    """The same rows in groups of at least :data:`ROWS`, but for the last."""
    group: list[Columns] = []
    for batch in batches:
        group.append(batch)
        if sum(len(next(iter(columns.values()))) for columns in group) >= ROWS:
            yield _joined(group)
            group = []
    if group:
        yield _joined(group)


def _joined(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


WRITERS = {".npz": _write_npz, ".parquet": _write_parquet}
