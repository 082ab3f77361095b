"""IDX files written from the published description, byte by byte."""

import gzip
import struct
from pathlib import Path

import numpy as np


def idx(values: np.ndarray) -> bytes:
    """Two zeros, the kind (8: bytes), the number of sides, each side in four bytes, big end first; the values."""
    sides = b"".join(struct.pack(">I", side) for side in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sides + b"".join(bytes([value]) for value in values.ravel().tolist())


def write_set(
    folder: Path, train: int = 40, test: int = 20, side: int = 28, zipped: bool = False
) -> dict[str, np.ndarray]:
    """Four files of smooth pictures, whose class is how bright they are."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, written = np.random.default_rng(0), {}
    for part, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % 10
        pixels = np.clip(rng.integers(0, 30, (count, side, side)) + 22 * labels[:, None, None], 0, 255)
        for kind, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            name, content = f"{part}-{kind}-ubyte", idx(values)
            written[name] = values
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return written
