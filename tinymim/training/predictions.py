"""What ``tinymim predict`` writes: a table of rows, as NumPy arrays (NPZ) or as Parquet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray

from tinymim.errors import TinymimError
from tinymim.files import write_atomically
from tinymim.log import say

Columns = dict[str, NDArray[Any]]
"""Rows by column: ``(M,)``, or ``(M, D)`` where each row has a vector; text as a NumPy array of strings."""

ROWS = 4096
"""Rows of a Parquet row group: what is held in memory, and what a reader may skip."""


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
        write_table(self.path, iter([arrays]))
        say(f"wrote {self.path}: " + ", ".join(f"{k} {v.shape}" for k, v in arrays.items()))


def check_ending(path: Path) -> None:
    """Raise unless a table can be written to a file with this ending."""
    if path.suffix not in FORMS:
        raise TinymimError(f"out: {path} ends in neither {' nor '.join(FORMS)}, which choose the form")


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
    write_atomically(path, lambda temporary: FORMS[path.suffix](temporary, batches))


def _npz(path: Path, batches: Iterator[Columns]) -> None:
    arrays = _joined(list(batches))
    with path.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def _parquet(path: Path, batches: Iterator[Columns]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with contextlib.ExitStack() as opened:
        writer = None
        for group in _groups(batches):
            table = pa.table({name: _arrow(values) for name, values in group.items()})
            writer = writer or opened.enter_context(pq.ParquetWriter(path, table.schema))
            writer.write_table(table)


def _arrow(values: NDArray[Any]) -> Any:
    """A column: vectors as fixed-size lists."""
    import pyarrow as pa

    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _groups(batches: Iterator[Columns]) -> Iterator[Columns]:
    """The same rows, at least :data:`ROWS` together but for the last."""
    held: list[Columns] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += len(next(iter(batch.values())))
        if rows >= ROWS:
            yield _joined(held)
            held, rows = [], 0
    if held:
        yield _joined(held)


def _joined(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


FORMS = {".npz": _npz, ".parquet": _parquet}
