"""Data sets that the running program has opened, by the names that its recipes have in their place."""

from __future__ import annotations

import re
from typing import Any

PREFIX = "object:"

_opened: dict[str, Any] = {}
"""A recipe is text, and holds no object; it is run in the process that has named it."""


def name_of(dataset: Any) -> str:
    """The name that recipes of this process can give a data set."""
    name = next((name for name, known in _opened.items() if known is dataset), "")
    if not name:
        name = f"{PREFIX}{len(_opened) + 1}:{type(dataset).__name__}"
        _opened[name] = dataset
    return name


def called(name: str) -> str:
    """A name for people, the same in every process: of a data set of the program its class, else ``name``."""
    return re.sub(rf"^{PREFIX}\d+:", "", name)


def find(name: str | None) -> Any:
    """The data set of that name, ``None`` where this process has none."""
    return _opened.get(name or "")


def is_opened(data: Any) -> bool:
    """Whether a data module reads one of them."""
    return str(getattr(data, "dataset", "")).startswith(PREFIX)


def error(field: str, name: str) -> str | None:
    """Why a data set cannot be read by numbers, with a remedy."""
    dataset = find(name)
    if dataset is None:
        return (
            f"data.{field}: {name} is a data set of a Python program that has ended; call tinymim.distill there again "
            "with the same `out`, which goes on, or give data from files, such as --data tinymim.data.ImageFolderData"
        )
    try:
        if len(dataset) and hasattr(dataset, "__getitem__"):
            return None
    except TypeError:
        remedy = "give a map-style data set or a folder, or use tinymim.Distiller in a Trainer of your own"
        return f"data.{field}: {type(dataset).__name__} has no length; {remedy}"
    return f"data.{field}: {type(dataset).__name__} is empty"
