"""Views that come again: what a teacher gives for them can be stored (see ``tinymim/teacher_cache``)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinymim.data.sampler import Draw
from tinymim.seeds import stream

NONE = -1
"""In place of a record: the image shown is none of its set's, and is not stored."""


@dataclass(frozen=True)
class Repeats:
    """The views of a data set: epoch e shows view e mod ``count``, a function of (``seed``, view, record).

    A record is an image of the set by its number, which is the sample's index, or that of the neighbour shown in place
    of an image that cannot be read.

    Args:
        part: number of the data set among a data module's: see :meth:`tinymim.data.data_module.ImageData.parts`.
        count: views.
        seed: of the views; not the run's, so that runs of all seeds see the same ones.
    """

    part: int
    count: int
    seed: int

    def view(self, draw: Draw) -> int:
        """Number of the view that ``draw`` asks for."""
        return draw.epoch % self.count

    def stream(self, draw: Draw, record: int) -> np.random.Generator:
        """Random numbers of a view of an image, of a length of key that nothing else uses: a view's crop has nothing
        in common with the colours of an epoch of the same number."""
        return stream(self.seed, self.view(draw), record, 0, 0)

    def tag(self, draw: Draw, record: int) -> Tensor:
        """Tag of a sample, int64 ``(3,)``: part, view, record."""
        return torch.tensor([self.part, self.view(draw), record])


def content_hash(*parts: Any) -> str:
    """sha256 of arrays, or of the text of anything else, in hex."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).view(np.uint8).data)
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()
