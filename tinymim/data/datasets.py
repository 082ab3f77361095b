"""Datasets of images, wherever they are kept and whatever state they are in; and the one of image files."""

from __future__ import annotations

import copy
import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset
from typing_extensions import override

from tinymim.data.data_module import Sample
from tinymim.data.image_files import evenly
from tinymim.data.open_image import MAX_PIXELS, open_image, unreadable
from tinymim.data.repeated import NONE, Repeats, content_hash
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError
from tinymim.seeds import stream

ATTEMPTS = 100  # neighbours tried in place of an unreadable image

View = Callable[..., dict[str, Any]]
"""From an image and its sample's random numbers to what is shown; where views come again, which needs an ``identity``,
the numbers are the view's, and the sample's own, for what the student alone sees, come after them."""

log = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class ImageDataset(Dataset[Sample]):
    """Images as samples; in place of an unreadable one, which the log names once, the next readable one is shown.
    Subclasses know where they are kept.

    Args:
        source: what they are kept in, for people.
        rows: where in it each is, ``(M,)``: one block of memory that forked workers share.
        labels: ``(M,)``, or ``None``.
        view: from an image and the sample's random numbers to what is shown of it.
        seed: of those numbers, which are a function of (seed, epoch, index).
    """

    source: str
    rows: NDArray[Any]
    labels: NDArray[np.int64] | None
    view: View
    seed: int = 0
    repeats: Repeats | None = field(default=None, init=False)
    max_pixels: int = field(default=MAX_PIXELS, init=False)

    def __post_init__(self) -> None:
        self._whole, self._numbers, self._hash = self, np.arange(len(self.rows)), ""
        self._unreadable = torch.zeros(len(self.rows), dtype=torch.bool).share_memory_()  # all workers write to it

    @abstractmethod
    def name(self, index: int) -> str:
        """Name an image for people."""

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Open an image, not decoded yet.

        Raises:
            Exception: of many types, where it cannot be read.
        """

    def __len__(self) -> int:
        return len(self.rows)

    @torch.autocast("cpu", enabled=False)  # a loader without processes may be asked from within a step's
    def __getitem__(self, draw: Draw) -> Sample:
        """The sample as it looks in an epoch.

        Raises:
            TinymimError: neither the image nor any of those after it can be read.
        """

        def view(image: Image.Image, number: int) -> dict[str, Any]:
            rng = stream(self.seed, *draw)  # anew for each image tried, so that a broken one changes no other's view
            return self.view(image, self.repeats.stream(draw, number), rng) if self.repeats else self.view(image, rng)

        seen, label, shown = self._read(draw.index, view)
        sample = {**seen, "index": draw.index, **({} if self.labels is None else {"label": label})}
        return sample if self.repeats is None else {**sample, "view": self.repeats.tag(draw, shown)}

    def identity(self) -> dict[str, Any]:
        """All that determines the views, but for their seed: plain values. Looks at each file, and reads none."""
        return {"set": "images", "contents": content_hash(*self.contents()), "view": self.view.identity()}  # type: ignore[attr-defined]

    def contents(self) -> list[Any]:
        """Places and state of the images, as arrays or plain values: what a teacher cache is good for."""
        return [*self.places(), *self.states()]

    def places(self) -> list[Any]:
        """Places of the images, as arrays or plain values; the same wherever their folder lies."""
        return [self.rows]

    def states(self) -> list[Any]:
        """State of what they are kept in."""
        return []

    def looked_at(self, most: int) -> NDArray[np.int64]:
        """Size and time of change of at most so many of its files, evenly spread, ``(K, 2)``; none without files."""
        return states([])

    def contents_hash(self) -> str:
        """Hash of the images' places and labels, by which a run that goes on knows its images."""
        if not self._hash:
            self._hash = content_hash(*self.places(), self.labels)
        return self._hash

    def some(self, indices: NDArray[np.int64], view: View, seed: int = 0) -> Self:
        """Some of the images, in another view; what any such choice finds unreadable is named once."""
        chosen = copy.copy(self)
        chosen.rows, chosen.labels = self.rows[indices], None if self.labels is None else self.labels[indices]
        chosen.view, chosen.seed, chosen._whole, chosen._numbers, chosen._hash = view, seed, self, indices, ""
        return chosen

    def unreadable(self) -> list[str]:
        """Names of the images that this process and its workers could not read so far, here or in :meth:`some`."""
        return [self._whole.name(int(row)) for row in self._unreadable.nonzero()]

    def _read(self, index: int, view: Callable[[Image.Image, int], dict[str, Any]]) -> tuple[dict[str, Any], int, int]:
        """A view, its label, and which image it is of: a broken one gives way to the next of its set, or of the set it
        was chosen from, which has no number in this one."""
        attempts, last = min(ATTEMPTS, len(self)), ""
        for step in range(attempts):
            shown = (index + step) % len(self)
            try:
                seen = view(self.image(shown), shown)
                return seen, -1 if self.labels is None else int(self.labels[shown]), shown
            except TinymimError:  # the file is sound, but not what the recipe says
                raise
            except Exception as error:  # decoders raise all sorts on broken files, and none may end a long run
                last = f"{self.name(shown)}: {unreadable(error)}"
                row = int(self._numbers[shown])
                # The others are named in their own turn, which only one worker has in an epoch.
                if step == 0 and not self._unreadable[row]:
                    self._unreadable[row] = True
                    log.warning("skipping %s", last)
                    self._check_broken(last)
        if self._whole is not self:
            return *self._whole._read(index, view)[:2], NONE
        raise TinymimError(
            f"data: {self.source} has {attempts} images in a row that cannot be read, up to {last}; "
            "are they images, and is the disk in order?"
        )

    def _check_broken(self, last: str) -> None:
        """Raise where more than half of all images could not be read so far, the last of them for this reason."""
        if (broken := int(self._unreadable.sum())) > len(self._unreadable) / 2:
            raise TinymimError(
                f"data: more than half of the {len(self._unreadable)} images of {self._whole.source} cannot be read, "
                f"{broken} so far, the last {last}; are they images, and is the disk in order?"
            ) from None


class ImageFiles(ImageDataset):
    """Images in files: ``source`` is a folder, ``rows`` their names in it, in fixed-width bytes."""

    @override
    def name(self, index: int) -> str:
        return f"{self.source}/{os.fsdecode(self.rows[index])}"

    @override
    def image(self, index: int) -> Image.Image:
        return open_image(self.name(index), self.max_pixels)

    @override
    def looked_at(self, most: int) -> NDArray[np.int64]:
        return states(self.name(index) for index in evenly(len(self), most))

    @override
    def states(self) -> list[Any]:
        return [self.looked_at(len(self))]


def states(paths: Iterable[str | os.PathLike[str]]) -> NDArray[np.int64]:
    """Size and time of change of each file, ``(M, 2)``; -1 where there is none."""
    sizes_and_times = []
    for path in paths:
        try:
            state = os.stat(path)  # noqa: PTH116  # a million paths, and objects for them take longer than the system
            sizes_and_times.append((state.st_size, state.st_mtime_ns))
        except OSError:
            sizes_and_times.append((-1, -1))
    return np.array(sizes_and_times, dtype=np.int64).reshape(-1, 2)
