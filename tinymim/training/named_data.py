"""Data that a command names in place of a folder: what needs no file, or a recipe's."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from tinymim.config import recipe as recipes
from tinymim.data import DigitsData, ShapesData
from tinymim.data.data_module import ImageData
from tinymim.data.named_sets import NamedSets
from tinymim.errors import TinymimError, several
from tinymim.training import inspection
from tinymim.training.data_source import BUILT_IN, recipe_of

CLASSES: dict[str, Callable[..., ImageData]] = {"digits": DigitsData, "shapes": ShapesData}
"""Data modules of :data:`BUILT_IN`."""


def find(source: str, size: int, trust: bool = False) -> tuple[ImageData, str]:
    """The data module of that name, not set up, and its name for people.

    Args:
        source: ``digits``, ``shapes``, or a recipe's name or file.
        size: side that its images are read in, in pixels.
        trust: a recipe's data may be of any class.

    Raises:
        TinymimError: nothing of that name, test sets alone, or mistakes in it.
    """
    if source in BUILT_IN:
        data, name = CLASSES[source](image_size=size), source
    else:
        recipe = recipe_of(source)
        with inspection.trusted(None, trust, str(recipe)):  # a class in another's place is looked up already
            resolved = recipes.resolve(["--config", str(recipe)])[0]
        if not resolved.get("data"):
            raise TinymimError(f"data: the recipe {recipe} has none")
        built = inspection.data(resolved, trust, f"data: recipe {recipe}", image_size=size, num_workers=0)
        data, name = cast(ImageData, built), recipe.stem
    if isinstance(data, NamedSets):
        raise TinymimError(f"data: the recipe {name} has test sets alone; name the folder of one of them")
    if problems := data.problems():
        raise several(f"data: {name} cannot be used; a folder of images is named by its path", problems)
    return data, name
