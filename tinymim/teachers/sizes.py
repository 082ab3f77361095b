"""Sizes that a file tells, compared with the weights in it before anything is built: a few bytes of text ask for no
gigabytes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from tinymim.errors import TinymimError
from tinymim.teachers import record_schemas, weights_summary
from tinymim.teachers.formats import State
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone, skeleton

SPARE = 128 << 20
"""Bytes that any network may take beyond four times those of its file."""


def compare(path: Path, state: State, record: dict[str, Any]) -> None:
    """Raise unless the network of a record has the width, depth and patch of the weights beside it.

    Args:
        path: of the file, for the error.
        state: under timm's names.
        record: as the schema has it.

    Raises:
        TinymimError: other sizes; or no weights of a ViT at all.
    """
    held, told = weights_summary.summarise(state), record["backbone"]["architecture"]
    if held is None:
        raise TinymimError(f"{path} holds no weights of a ViT (keys: {', '.join(sorted(state)[:4])})")
    options = told.get("options", {})
    sizes = {"width": ("embed_dim", held.width), "depth": ("depth", held.depth), "patch": ("patch_size", held.patch)}
    own = None
    if any(option not in options for option, _ in sizes.values()):
        own = weights_summary.summarise(skeleton(Architecture(told.get("arch", Architecture.arch))).vit.state_dict())
    for name, (option, stored) in sizes.items():
        said = options.get(option, getattr(own, name, 0))
        if stored and stored not in (said if isinstance(said, list) else [said]):
            raise TinymimError(f"{path}: its record says {name} {said}, its weights {stored}")


def check_bytes(path: Path, weights: Iterable[Tensor], backbone: Backbone) -> None:
    """Raise where a network would take many times the bytes of its file: tables of positions grow with the image.

    Args:
        path: of the file, for the error.
        weights: in it.
        backbone: may be a skeleton, and should be.

    Raises:
        TinymimError: it would.
    """
    held = sum(value.numel() for value in weights) * 4
    asked = sum(part.nbytes for part in (*backbone.parameters(), *backbone.buffers()))
    if asked > 4 * held + SPARE:
        raise TinymimError(
            f"{path} holds {held / 1e6:.0f} MB of weights, and {backbone.describe()} would take {asked / 1e6:.0f} MB: "
            "they are not its own, or img_size is far from theirs"
        )


def check_described(model: dict[str, Any], weights: Iterable[Tensor]) -> None:
    """Raise where a network that a recipe's model describes has more weights than there are beside the recipe.

    Args:
        model: ``class_path`` and ``init_args``, of which ``student`` or ``architecture`` describes one.
        weights: of the module.

    Raises:
        TinymimError: it has more; or no network is described so.
    """
    held = sum(value.numel() for value in weights)
    for name in ("student", "architecture"):
        given = (model.get("init_args") or {}).get(name)
        if isinstance(given, dict):
            described = record_schemas.architecture(
                {key: value for key, value in given.items() if value is not None}, name
            )
            if (asked := sum(part.numel() for part in skeleton(described).parameters())) > held:
                raise TinymimError(f"{name}: it would have {asked:,} weights, and the file has {held:,} numbers")
