"""Recipes that are only looked at: of a run folder beside a checkpoint, or in a captured step.

Nobody has said to run these, so they are read as text: which blocks were compared, which folder of images was used.
Where something has to be built, it is of tinymim's own classes, and of data of those that read images and do nothing
else; other classes are built where the command says ``--trust``, which names them first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import msgspec

from tinymim.config import class_paths, references, validation
from tinymim.config import recipe as recipes
from tinymim.data import DigitsData, ImageFolderData, SegmentationFolderData, ShapesData, TorchvisionData
from tinymim.data.open_image import MAX_PIXELS
from tinymim.errors import TinymimError, several
from tinymim.log import say
from tinymim.safety import text
from tinymim.safety.wording import message
from tinymim.targets.base import Blocks, compared_blocks, target_block
from tinymim.teachers import locate, record_schemas
from tinymim.teachers.locate import Teacher
from tinymim.training import preflight, run_schemas
from tinymim.vit.backbone import Backbone

READERS = (DigitsData, ImageFolderData, SegmentationFolderData, ShapesData, TorchvisionData)
"""Data modules that read images and neither fetch nor write; TorchvisionData fetches in ``prepare_data`` alone, which
only a run calls."""

MOST = 10**7
"""Largest whole number in the options of data that is only looked at."""

LARGEST = {"image_size": 2048, "max_pixels": MAX_PIXELS}
"""Likewise of single options: the side of its images, of which a picture takes 50 MB, and there are a few; and the
pixels of a file that is decoded, at most those that are read anyway."""


def read(path: Path, what: str) -> recipes.Config:
    """A saved recipe as plain data; references to the environment stay.

    Raises:
        TinymimError: it cannot be read, or its parts are of other types.
    """
    return checked(text.contents(path, what), what)


def checked(written: str, what: str) -> recipes.Config:
    """Like :func:`read`, from text."""
    content = text.mapping(text.yaml_data(written, what), what)
    record_schemas.fit(content, run_schemas.Recipe, what)
    if "extends" in content:
        raise TinymimError(f"{what}: extends: a saved recipe is whole, and reads no other one")
    return content


@contextmanager
def trusted(node: Any, trust: bool, what: str) -> Iterator[None]:
    """Within it, classes of ``node`` may be built: tinymim's own; or all, which are named first, where ``trust``."""
    classes = class_paths.classes_in(node)
    strangers = [f"{place}: {path}" for place, path in classes.items() if not class_paths.is_own(path)]
    if trust:
        if strangers:
            say(f"{what} is trusted with classes that are not tinymim's own: {', '.join(strangers)}")
        yield
    else:
        with class_paths.own_only():
            yield


def compared(recipe: recipes.Config, student: Backbone) -> list[tuple[int, int]]:
    """The teacher's and the student's blocks that a recipe of distillation compares, each pair once; none of others.

    Args:
        recipe: as saved.
        student: as it was trained.

    Raises:
        TinymimError: its teacher cannot be found, or blocks that the networks do not have.
    """
    arguments = _arguments(recipe, "model")
    targets = arguments.get("targets")
    if not isinstance(arguments.get("teacher"), str) or not isinstance(targets, list):
        return []
    teacher = located(arguments["teacher"])
    block = teacher.target_block or target_block(teacher.skeleton, student)
    pairs: list[tuple[int, int]] = []
    for number, node in enumerate(targets):
        options = (node.get("init_args") or {}) if isinstance(node, dict) else {}
        read, trained = (_blocks(options, side, f"targets[{number}]") for side in ("teacher_block", "student_block"))
        pairs += compared_blocks(f"targets[{number}]", read, trained, teacher.skeleton, student, block)
    return list(dict.fromkeys(pairs))


def located(source: str) -> Teacher:
    """The teacher that a saved recipe names, which may be by a reference to the environment; errors say the reference.

    Raises:
        TinymimError: it cannot be found.
    """
    with references.hiding(source):
        return locate.locate(str(references.filled(source)))


def _arguments(recipe: recipes.Config, part: str) -> dict[str, Any]:
    return (recipe.get(part) or {}).get("init_args") or {}


def _blocks(options: Any, side: str, target: str) -> Blocks | None:
    try:
        return msgspec.convert(options.get(side) if isinstance(options, dict) else None, Blocks | None)
    except msgspec.ValidationError as error:
        raise TinymimError(f"{target}.{side}: {message(error)}") from None


def data(recipe: recipes.Config, trust: bool, what: str, **options: Any) -> Any:
    """The data module of a saved recipe.

    Args:
        recipe: as saved.
        trust: it is one's own.
        what: name of the recipe, for messages.
        options: options laid over its own, where its class takes them.

    Raises:
        TinymimError: it has none, or mistakes in it; or it does more than read images, and is not trusted.
    """
    errors: list[str] = []
    built, node = None, references.filled(recipe.get("data"))
    with references.hiding(recipe.get("data")), trusted({"data": node}, trust, what):
        if validation.check_class(node, "data", errors, (pl.LightningDataModule,)) and not errors:
            cls = class_paths.import_class(node["class_path"])
            if not trust and cls not in READERS:
                raise TinymimError(
                    f"{what}: {cls.__name__} does more than read images; name a folder of some, or say --trust"
                )
            if not trust and (large := next(_large(node), None)):
                raise TinymimError(f"{what}: data: {large}; if it is meant so, say --trust")
            names = class_paths.options_of(node["class_path"])
            options = {name: value for name, value in options.items() if name in names}
            node = {**node, "init_args": {**(node.get("init_args") or {}), **options}}
            built = preflight.build(pl.LightningDataModule, node, errors)
        if errors:
            raise several(f"{what}: its data cannot be built", errors)
    return built


def _large(node: Any, name: str = "") -> Iterator[str]:
    if isinstance(node, dict | list):
        for key, inner in node.items() if isinstance(node, dict) else ((name, each) for each in node):
            yield from _large(inner, str(key))
    elif isinstance(node, int | float) and abs(node) > (most := LARGEST.get(name, MOST)):
        yield f"{name} {node:,} is more than {most:,}"
