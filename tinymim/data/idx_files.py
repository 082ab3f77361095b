"""IDX files, the form of MNIST and its kin: a magic number, sizes, and bytes; compressed or not."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinymim.errors import TinymimError

UNSIGNED_BYTES = 8  # the form's number of the one kind of value that images and labels have
LARGEST = 2**32  # bytes: more than any of these sets has, and what a damaged header must not have allocated


def idx_file(folder: Path, name: str) -> Path | None:
    """An IDX file in a folder, as it is or compressed; ``None`` where there is neither."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read the bytes of an IDX file (LeCun, The MNIST database).

    Args:
        path: a file, gzip if it ends in ``.gz``; no more of it is unpacked than its header announces.
        dimensions: 3 of images, ``(M, H, W)``; 1 of labels, ``(M,)``.

    Raises:
        TinymimError: the file is damaged, cut off, or holds something else.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:4] != bytes([0, 0, UNSIGNED_BYTES, dimensions]):
                what = "images" if dimensions == 3 else "labels"
                raise TinymimError(
                    f"data.root: {path} is no IDX file of {what}: its header is {head[:4].hex() or 'empty'}"
                )
            shape = tuple(np.frombuffer(head, ">u4", offset=4).tolist())
            length = math.prod(shape)
            contents = file.read(length + 1) if length <= LARGEST else b""
    except (OSError, EOFError, zlib.error) as error:  # gzip's are of three kinds
        raise TinymimError(f"data.root: {path} cannot be read: {error}; fetch it again") from error
    if len(contents) != length:
        more = "more" if len(contents) > length else f"{len(contents)}"
        raise TinymimError(
            f"data.root: {path} is damaged: {length} bytes are announced, {more} are there; fetch it again"
        )
    return np.frombuffer(bytearray(contents), np.uint8).reshape(shape)  # PyTorch wants arrays that can be written
