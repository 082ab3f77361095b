"""Names of data that a command is given in place of a folder, looked up by name: nothing is opened or imported."""

from __future__ import annotations

import os
from pathlib import Path

from tinymim.config import recipe as recipes
from tinymim.errors import TinymimError

BUILT_IN = ("digits", "shapes")
"""Data that need no file."""


def recipe_of(source: str, field: str = "data") -> Path:
    """The recipe that ``source`` names; the error of any other name tells all that may stand there."""
    try:
        return recipes.find(source)
    except TinymimError as error:
        raise TinymimError(
            f"{field}: {source} is no folder of images, neither {' nor '.join(BUILT_IN)}, and no recipe ({error})"
        ) from None


def check(source: str, field: str = "data") -> None:
    """Raise where ``source`` names neither a folder, nor data that are built in, nor a recipe."""
    if source and source not in BUILT_IN and not os.path.isdir(source):  # noqa: PTH112  # a name of any length
        recipe_of(source, field)


def check_folder(folder: Path) -> None:
    """Raise where the folder that ``--images`` gives is none."""
    if not os.path.isdir(folder):  # noqa: PTH112  # a name of any length
        raise TinymimError(f"images: {folder} is no folder")
