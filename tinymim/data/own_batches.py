"""Batches of a loader of the user's own, in the form of this project's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinymim.data.data_module import Sample
from tinymim.data.device_augment import unit
from tinymim.errors import TinymimError
from tinymim.vit.images import check_values, shape_remedy

IMAGES = ("image", "images", "pixel_values")
"""Keys under which dictionaries have images, transformers' last."""


def as_samples(batch: Any) -> Sample:
    """A batch as a dictionary with ``image`` ``(B, 3, H, W)`` in [0, 1], ``index``, and ``label`` where there is one.

    Masks of held-out images are functions of ``index``; where the loader gives none it is the place in the batch.

    Args:
        batch: images, alone, or first in a tuple or list and perhaps with ``(B,)`` labels after them; or a dictionary
            with ``image`` (or ``images``, ``pixel_values``) and perhaps ``label``. Bytes, or floats in [0, 1].

    Raises:
        TinymimError: no images there, or values outside of [0, 1].
    """
    if isinstance(batch, dict):
        images = next((batch[key] for key in IMAGES if key in batch), None)
        others = {key: value for key, value in batch.items() if key not in IMAGES}
    elif isinstance(batch, tuple | list):
        images, labels = (*batch, None, None)[:2]
        labelled = isinstance(labels, Tensor) and labels.ndim == 1 and not labels.is_floating_point()
        others = {"label": labels} if labelled else {}
    else:
        images, others = batch, {}
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
        given = batch if images is None else images
        what = f"{tuple(images.shape)}" if isinstance(images, Tensor) else type(given).__name__
        if isinstance(given, np.ndarray):
            remedy = ": torch.from_numpy makes a tensor of an array, and the default collate_fn a batch of all of them"
        else:
            remedy = shape_remedy(tuple(images.shape)) if isinstance(images, Tensor) else ""
            remedy = remedy or ": give them alone, first in a tuple, or under 'image' in a dictionary"
        raise TinymimError(f"data: a batch holds {what} where images (B, 3, H, W) belong{remedy}")
    images = unit(images)
    check_values(images, "data: images")
    return {"index": torch.arange(len(images)), **others, "image": images}


def resizing(size: tuple[int, ...], networks: Mapping[str, tuple[int, int]]) -> str:
    """Line on images of ``size``, height and width in pixels, that ``networks``, by name, take in another one; empty
    where all take them as they are."""
    others = {name: taken for name, taken in networks.items() if tuple(size) != taken}
    parts = [f"{height}x{width} for the {name}" for name, (height, width) in others.items()]
    return f"data: images of {size[0]}x{size[1]} px are resized, to {' and '.join(parts)}" if parts else ""
