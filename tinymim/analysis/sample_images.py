"""The images of an analysis: evenly spread over a folder or a recipe's data, in a fixed order, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tinymim.cli import predict_command
from tinymim.config import recipe as recipes
from tinymim.data import DigitsData, ShapesData
from tinymim.data.batches import finished
from tinymim.data.image_limits import EXTENSIONS, evenly, image_files, splits
from tinymim.data.module import ImageData
from tinymim.data.named import NamedSets
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError, several
from tinymim.log import say
from tinymim.training import looking

MADE: dict[str, Callable[..., ImageData]] = {"digits": DigitsData, "shapes": ShapesData}
"""Data that need no file."""


@dataclass
class Images:
    """Some images of a set, read one after the other, so that memory does not grow with their number.

    Args:
        what: they are, for people.
        dataset: by :class:`Draw`, or by number where ``folder`` names one.
        chosen: their numbers in it.
        names: of the files of a folder; empty where the set is a recipe's, which names its own.
        unreadable: those passed over so far.
    """

    what: str
    dataset: Dataset[Any]
    chosen: list[int]
    names: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def used(self) -> int:
        """Images that were read, once all batches were asked for."""
        return len(self.chosen) - len(self.unreadable)

    def batches(self, size: int) -> Iterator[Tensor]:
        """``(B, 3, S, S)`` in [0, 1], all of ``size`` images but the last; unreadable ones are named and passed over.

        Raises:
            TinymimError: none can be read.
        """
        self.unreadable.clear()
        held: list[Tensor] = []
        for index in self.chosen:
            image = self._from_folder(index) if self.names else self._from_data(index)
            if image is not None:
                held.append(image)
            if len(held) == size:
                yield torch.stack(held)
                held = []
        if held:
            yield torch.stack(held)
        if not self.used:
            raise TinymimError(f"data: none of the {len(self.chosen)} images can be read, from {self.unreadable[0]} on")

    def _from_folder(self, index: int) -> Tensor | None:
        _, seen = cast(predict_command.Item, self.dataset[index])
        if isinstance(seen, str):
            self._pass_over(self.names[index], f": {seen}")
            return None
        return finished({"image": seen[None]})["image"][0]

    def _from_data(self, index: int) -> Tensor | None:
        """A recipe's data show another image in place of an unreadable one, and say that they do; it is left out."""
        known = getattr(self.dataset, "unreadable", list)
        before = set(known())
        sample = self.dataset[Draw(0, index)]
        if new := sorted(set(known()) - before):
            self._pass_over(new[0])
            return None
        return finished({"image": sample["image"][None]})["image"][0]

    def _pass_over(self, name: str, why: str = "") -> None:
        self.unreadable.append(name)
        say(f"unreadable, left out: {name}{why}")


def find(source: str, count: int, size: int, trust: bool = False) -> Images:
    """The images that ``--data`` names.

    Args:
        source: a folder (of whose ``train/`` and ``val/``, if it has both, ``val/`` is read), ``digits``, ``shapes``,
            or a recipe's name or file: its held-out images, or those it trains on where it holds none out.
        count: how many at most, spread evenly.
        size: side they are read in, in pixels.
        trust: a recipe's data may be of any class.

    Raises:
        TinymimError: nothing of that name, or no image there.
    """
    if source in MADE:
        return _of_data(MADE[source](image_size=size), source, count)
    if Path(source).is_dir():
        return _of_folder(Path(source), count, size)
    try:
        recipe = recipes.find(source)
    except TinymimError as error:
        raise TinymimError(
            f"data: {source} is no folder of images, neither {' nor '.join(MADE)}, and no recipe ({error})"
        ) from None
    return _of_data(_data_of(str(recipe), size, trust), recipe.stem, count)


def _of_folder(folder: Path, count: int, size: int) -> Images:
    train, val = splits(folder)
    place = val or train
    names = sorted(image_files(place))
    if not names:
        raise TinymimError(f"data: no images in {place}: looked for {', '.join(EXTENSIONS)}, also in its folders")
    chosen = evenly(len(names), count)
    what = f"{len(chosen)} of {len(names)} images in {place}"
    return Images(what, predict_command.Images(place, names, size), chosen, names)


def _of_data(data: ImageData, name: str, count: int) -> Images:
    if isinstance(data, NamedSets):
        raise TinymimError(f"data: the recipe {name} has test sets alone; name the folder of one of them")
    if problems := data.problems():
        raise several(f"data: {name} cannot be used; a folder of images is named by its path", problems)
    data.setup("predict")
    shown = next(kept for kept in (data.held_out, data.bank, data.train) if kept is not None)
    length = len(cast(Sized, shown))
    chosen = evenly(length, count)
    kind = "held-out" if shown is data.held_out else "training"
    return Images(f"{len(chosen)} of {length} {kind} images of {name}", shown, chosen)


def _data_of(recipe: str, size: int, trust: bool) -> ImageData:
    """A recipe's data module, alone; its images in the size that is asked for, where it can give them in any."""
    with looking.trusted(None, trust, recipe):  # a class that takes another's place in a recipe is looked up already
        resolved = recipes.resolve(["--config", recipe])[0]
    if not resolved.get("data"):
        raise TinymimError(f"data: the recipe {recipe} has none")
    built = looking.data(resolved, trust, f"data: recipe {recipe}", image_size=size, num_workers=0)
    return cast(ImageData, built)
