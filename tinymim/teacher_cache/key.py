"""Key of a folder of the cache: all that determines the numbers in it. Its hash is the folder's name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from tinymim.vit.backbone import Backbone

FORMAT = 1
"""Goes up with any change of what a record means: of the reader, the views, or the files."""


def key_of(teacher: Backbone, sha256: str, precision: str, data: dict[str, Any], view_seed: int) -> dict[str, Any]:
    """The key, in plain values.

    Not in it are the taps, views and number of images, by which the files of a folder are named or sized, and the
    kind of device, on which only the last bits depend.

    Args:
        teacher: whole, not cut at a target block; sizes are enough.
        sha256: of its weights' file.
        precision: that it computes in.
        data: ``identity()`` of the data set.
        view_seed: of its views.
    """
    network = {**dataclasses.asdict(teacher.architecture), "heads": teacher.heads}
    sizes = {"image_size": teacher.image_size, "grid": teacher.grid}  # positions are resampled to the grid
    key = {
        "format": FORMAT,
        "teacher": {"sha256": sha256, **network, **sizes},
        "precision": precision,
        "data": data,
        "view_seed": view_seed,
    }
    return json.loads(json.dumps(key))  # tuples and lists are the same to a reader


def digest(key: dict[str, Any]) -> str:
    """Its hash, in 16 hex digits."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
