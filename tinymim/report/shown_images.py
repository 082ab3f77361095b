"""Images that a run's page shows: of a folder, or the run's own held-out ones; and pictures of them."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from tinymim.config import references
from tinymim.data.device_augment import unit
from tinymim.data.image_files import evenly, image_files
from tinymim.data.listed_images import ListedImages
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError
from tinymim.log import say
from tinymim.report.document import Picture
from tinymim.report.runs import Run
from tinymim.training import data_source, inspection

SIDE = 224
"""Pixels of a picture on the page."""

ATTEMPTS = 100
"""Images that are tried in place of broken ones."""


class ShownImages:
    """Images of a run's page, and notes on what cannot be shown.

    Args:
        run: takes its own held-out images where there is no ``folder``.
        folder: to take images from.
        count: how many, spread evenly.
        trust: the data of the run's recipe may be any class, and is built.

    Raises:
        TinymimError: there is no such ``folder``. A page does without pictures, but not in place of what was asked for.
    """

    def __init__(self, run: Run, folder: Path | None, count: int, trust: bool):
        if folder:
            data_source.check_folder(folder)
        self.run, self.folder, self.count, self.trust = run, folder, count, trust
        self.notes: list[str] = []

    @contextmanager
    def noted(self, what: str) -> Iterator[None]:
        """A page does not fail for want of a picture: it says what is missing."""
        try:
            yield
        except TinymimError as error:
            note = references.hidden(f"{what}: {error}", list(references.places(self.run.recipe)))
            if note not in self.notes:
                self.notes.append(note)
                say(f"report: {note}")

    @functools.cached_property
    def data(self) -> Any:
        """The run's own data, set up.

        Raises:
            TinymimError: it cannot be built, or is not trusted.
        """
        data = inspection.data(self.run.recipe, self.trust, f"run {self.run.place}")
        data.setup("test")
        return data

    @functools.cached_property
    def numbers(self) -> list[int]:
        """Place of each of :attr:`images` in the data that it is of."""
        return list(range(len(self.images))) if self.folder else evenly(len(self._pool), self.count)

    @functools.cached_property
    def images(self) -> list[Tensor]:
        """``(3, H, W)`` in [0, 1] each.

        Raises:
            TinymimError: there are none.
        """
        if self.folder:
            return _from_folder(self.folder, self.count)
        return [unit(self._pool[Draw(0, index)]["image"]) for index in evenly(len(self._pool), self.count)]

    @property
    def _pool(self) -> Any:
        return self.data.held_out or self.data.train


def _from_folder(folder: Path, count: int) -> list[Tensor]:
    files = ListedImages(str(folder), sorted(image_files(str(folder))), SIDE)
    if not files.names:
        raise TinymimError(f"images: {folder} holds no images")
    images: list[Tensor] = []
    wanted = evenly(len(files), count)
    why = ""
    for index in dict.fromkeys([*wanted, *evenly(len(files), ATTEMPTS)]):  # others in place of broken ones
        _, pixels = files[index]
        if isinstance(pixels, str):
            why = f"{folder}/{files.names[index]} cannot be read: {pixels}"
        else:
            images.append(unit(pixels))
        if len(images) == len(wanted):
            return images
    if not images:
        raise TinymimError(f"images: none of {folder}, such as {why}")
    return images


def picture(title: str, image: Tensor, text: str = "", bar: np.ndarray[Any, Any] | None = None) -> Picture:
    """A picture of a ``(3, H, W)`` image in [0, 1], each pixel a square where it is small; under it, from the left, a
    ``bar`` of colours, ``(256, 3)`` in [0, 1]."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    shown = Image.fromarray(np.ascontiguousarray(pixels))
    if min(shown.size) < SIDE:
        shown = shown.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    if bar is not None:
        strip = Image.fromarray(np.broadcast_to((255 * bar).round().astype(np.uint8), (8, *bar.shape)).copy())
        taller = Image.new("RGB", (shown.width, shown.height + 12), (128, 128, 128))
        taller.paste(shown)
        taller.paste(strip.resize((shown.width, 8)), (0, shown.height + 4))
        shown = taller
    out = io.BytesIO()
    shown.save(out, "PNG", optimize=True)
    return Picture(title, out.getvalue(), text=text)
