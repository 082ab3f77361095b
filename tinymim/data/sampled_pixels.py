"""Pixels of some images, by which a run that goes on knows a data set without files."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image

from tinymim.data.image_files import evenly
from tinymim.data.repeated import content_hash

SAMPLED = 16
"""Images that are opened for it, evenly spread: a tenth of a second for photographs."""


class Images(Protocol):
    """A data set as :mod:`tinymim.data.datasets` has them."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image:
        """Open an image."""
        ...


def pixels_hash(images: Images) -> str:
    """Hash of up to :data:`SAMPLED` images; one that cannot be read counts as none."""
    return content_hash(*(_pixels(images, index) for index in evenly(len(images), SAMPLED)))


def pixels_hash_if_fixed(images: Images) -> str | None:
    """The same hash, or ``None`` where the data set gives other pixels when it is asked again, as one that augments
    does. The random numbers of the program stay as they were."""
    with isolate_rng(include_cuda=False):
        once, again = pixels_hash(images), pixels_hash(images)
    return once if once == again else None


def _pixels(images: Images, index: int) -> Any:
    try:
        with images.image(index) as image:
            return np.asarray(image.convert("RGB"))
    except Exception:  # decoders, and data sets of others, raise all sorts; the fit says it of each in its turn
        return None
