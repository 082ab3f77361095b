"""Batches of a loader of the user's own, in the form of this project's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinymim.data.data_module import Sample
from tinymim.data.device_augment import unit
from tinymim.errors import TinymimError

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
            remedy = "torch.from_numpy makes a tensor of an array, and the default collate_fn a batch of all of them"
        else:
            remedy = "give them alone, first in a tuple, or under 'image' in a dictionary"
        raise TinymimError(f"data: a batch holds {what} where images (B, 3, H, W) belong: {remedy}")
    images = unit(images)
    if images.device.type == "cpu" and not -0.01 <= images.amin() <= images.amax() <= 1.01:
        raise TinymimError(
            f"data: images with values from {images.amin():.3g} to {images.amax():.3g}, and they are to be in [0, 1]; "
            "leave Normalize out of the transforms, as each network normalises by itself"
        )
    return {"index": torch.arange(len(images)), **others, "image": images}
