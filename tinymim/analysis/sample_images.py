"""The images of an analysis: evenly spread over a folder or a recipe's data, in a fixed order, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tinymim.data.device_augment import finished
from tinymim.data.image_files import EXTENSIONS, evenly, image_files
from tinymim.data.listed_images import ListedImages
from tinymim.data.passed_over import PassedOver
from tinymim.data.sampler import Draw
from tinymim.data.split_folders import splits
from tinymim.errors import TinymimError, counted
from tinymim.log import say
from tinymim.training import data_source, named_data


@dataclass
class SampleImages:
    """Some images of a set, read one after the other, so that memory does not grow with their number.

    Args:
        what: the images, in words.
        dataset: files of a folder, or a recipe's data.
        chosen: the images' numbers in it.
        unreadable: names of those passed over so far.
    """

    what: str
    dataset: ListedImages | Dataset[Any]
    chosen: list[int]
    unreadable: list[str] = field(default_factory=list)

    @property
    def used(self) -> int:
        """Images that were read, once all batches were taken."""
        return len(self.chosen) - len(self.unreadable)

    def batches(self, size: int) -> Iterator[Tensor]:
        """``(B, 3, S, S)`` in [0, 1], all of ``size`` images but the last; unreadable ones are named and passed over.

        Raises:
            TinymimError: none can be read.
        """
        self.unreadable.clear()
        batch: list[Tensor] = []
        for index in self.chosen:
            pixels, name, why = self._read(index)
            if name:
                self.unreadable.append(name)
                say(f"unreadable, left out: {name}{why}")
                continue
            batch.append(finished({"image": pixels[None]})["image"][0])
            if len(batch) == size:
                yield torch.stack(batch)
                batch = []
        if batch:
            yield torch.stack(batch)
        if not self.used:
            raise TinymimError(f"data: no image of {len(self.chosen)} can be read, from {self.unreadable[0]} on")

    def _read(self, index: int) -> tuple[Tensor, str, str]:
        """An image's pixels or, of an unreadable one, its name and the reason."""
        if isinstance(self.dataset, ListedImages):
            _, pixels = self.dataset[index]
            if isinstance(pixels, Tensor):
                return pixels, "", ""
            return torch.empty(0), self.dataset.names[index], f": {pixels}"
        # a recipe's data show another image in place of an unreadable one, and list it; here it is left out
        unreadable = getattr(self.dataset, "unreadable", list)
        before = set(unreadable())
        pixels = cast(Dataset[Any], self.dataset)[Draw(0, index)]["image"]
        return pixels, next(iter(sorted(set(unreadable()) - before)), ""), ""


def find(source: str, count: int, size: int, trust: bool = False) -> SampleImages:
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
    if not source:
        raise TinymimError(
            f"data: nothing is named; give a folder of images, {', '.join(data_source.BUILT_IN)} or a recipe"
        )
    if Path(source).is_dir():
        train, val = splits(Path(source))
        folder, passed = val or train, PassedOver()
        names = sorted(image_files(folder, passed))
        if not names:
            raise TinymimError(f"data: no images in {folder}: looked for {', '.join(EXTENSIONS)}, also in its folders")
        for note in passed.notes(folder):
            say(f"data: {note}")
        chosen = evenly(len(names), count)
        return SampleImages(
            f"{len(chosen)} of {counted(len(names), 'image')} in {folder}", ListedImages(folder, names, size), chosen
        )
    data, name = named_data.find(source, size, trust)
    data.setup("predict")
    pool = next(images for images in (data.held_out, data.bank, data.train) if images is not None)
    length = len(cast(Sized, pool))
    chosen = evenly(length, count)
    kind = "held-out" if pool is data.held_out else "training"
    return SampleImages(f"{len(chosen)} of {length} {kind} images of {name}", pool, chosen)
