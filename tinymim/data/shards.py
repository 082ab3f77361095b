"""WebDataset shards: images in tar files, local or by URL, each sample read at its place."""

from __future__ import annotations

import glob
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from braceexpand import braceexpand
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from typing_extensions import override

from tinymim.data.datasets import ImageDataset, states
from tinymim.data.image_data import ViewedData, class_names, numbered
from tinymim.data.image_files import evenly
from tinymim.data.open_image import open_image
from tinymim.data.remote import fetch, is_url, local
from tinymim.data.sampler import in_windows
from tinymim.data.tar_index import IMAGES, Index, index, member_name
from tinymim.data.transforms import wrong_values
from tinymim.errors import TinymimError, first_few, several
from tinymim.log import say
from tinymim.safety.console import PlainConsole
from tinymim.system import disk

CACHE = "~/.cache/tinymim"
OPEN = 64  # shards a process has open at once

Item = TypeVar("Item")

PLACE = np.dtype([("shard", np.int32), ("offset", np.int64), ("length", np.int64)])
"""Place of an image: its shard, and its bytes there."""


@dataclass(eq=False, repr=False, kw_only=True)
class ShardImages(ImageDataset):
    """Images in tar files; ``rows`` are their places, of :data:`PLACE`, the shards ascending.

    Args:
        shards: the tar files.
    """

    shards: list[Path]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._open = _OpenFiles()

    @override
    def name(self, index: int) -> str:
        shard = self.shards[self.rows[index]["shard"]]
        return f"{shard}: {member_name(shard, int(self.rows[index]['offset']))}"

    @override
    def image(self, index: int) -> Image.Image:
        shard, offset, length = self.rows[index].tolist()
        return open_image(disk.read_at(self._open[self.shards[shard]], length, offset), self.max_pixels)

    @override
    def contents(self) -> list[Any]:
        return [[shard.name for shard in self.shards], states(self.shards), self.rows]

    @override
    def looked_at(self, most: int) -> NDArray[np.int64]:
        return states(self.shards[number] for number in evenly(len(self.shards), most))

    @override
    def places(self) -> list[Any]:
        return [[shard.name for shard in self.shards], self.rows]


class _OpenFiles:
    """Descriptors of the files used last. Each read says where, so that processes forked meanwhile may share them."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, int] = OrderedDict()

    def __getitem__(self, path: Path) -> int:
        if path not in self._files:
            if len(self._files) >= OPEN:
                os.close(self._files.popitem(last=False)[1])
            self._files[path] = os.open(path, disk.flags())
        self._files.move_to_end(path)
        return self._files[path]

    def __reduce__(self) -> tuple[type[_OpenFiles], tuple[()]]:
        return _OpenFiles, ()  # a process that is not forked opens its own

    def __del__(self) -> None:
        for file in self._files.values():
            os.close(file)


class ShardsData(ViewedData):
    """Images in WebDataset's tar shards, each sample an image (``jpg``, ``jpeg``, ``png`` or ``webp``) and perhaps a
    label (``cls``, or a field of ``json``).

    Shards by URL are fetched whole before training. Each shard's headers are read once, and what is where kept in
    ``cache``; so samples are numbered, and which are seen when is a function of (seed, epoch), whatever the workers
    and processes. The samples of ``window`` shards are mixed at a time: shards should be written in random order, as
    is usual.

    There are labels if all training samples have one and two or more differ: whole numbers below 100,000 are the
    classes' numbers, and others their names.

    Args:
        train: the shards: a path or URL, with ``{000000..000146}`` for numbers and, in paths, ``*``; or a list of them.
        val: shards to hold out; ``None`` holds a fraction of ``train`` out.
        cache: folder for indexes and what is fetched; ``None`` is tinymim's in ``~/.cache``.
        window: shards that are read together.
        label_key: the label's field in a sample's JSON.
        options: of :class:`ViewedData`.
    """

    def __init__(
        self,
        train: str | list[str] | None = None,
        val: str | list[str] | None = None,
        cache: str | None = None,
        window: int = 16,
        label_key: str = "label",
        **options: Any,
    ):
        super().__init__(**options)
        self.patterns = {"train": train, "val": val}
        self.cache, self.window, self.label_key = Path(cache or CACHE).expanduser(), window, label_key
        self._indexes: dict[Path, Index] = {}

    @override
    def problems(self) -> list[str]:
        # Reads no shard and asks no server.
        problems = []
        if not self.patterns["train"]:
            what = "WebDataset shards such as 'train-{000000..000146}.tar'"
            problems.append(f"data.train is not set: give --data.train PATTERN, {what}")
        for field, pattern in self.patterns.items():
            if pattern:
                problems += [f"data.{field}: {problem}" for problem in _pattern_problems(pattern)]
        problems += wrong_values(window=(self.window >= 1, self.window, "a positive number of shards"))
        return problems + super().problems()

    @override
    def source(self) -> str:
        train = self.patterns["train"] or ""
        patterns = train if isinstance(train, str) else ", ".join(train)
        return "" if is_url(patterns) else patterns  # which may hold a password

    @override
    def prepare_data(self) -> None:
        # In one process a machine: what is fetched and indexed here, the others find.
        self._index()

    @override
    def prepare(self) -> None:
        # Fetches and indexes what is not yet, numbers the samples, and splits them.
        self._index()
        shards, places, labels = self._samples("train")
        self.classes = class_names(labels)
        images = self._images("train", shards, places, labels)
        held_out = self._images("val", *self._samples("val")) if self.patterns["val"] else None
        passed = [index.passed.tolist() for index in self._indexes.values()]
        if count := sum(int(names[-1]) for names in passed):
            first = next(names[0] for names in passed if len(names) > 1)
            self.notes.append(f"{count} samples without {', '.join(IMAGES)} are not read, such as {first}")
        unlabelled = labels.count("")
        why = f"{unlabelled} of {len(labels)} have none" if unlabelled else "all have the same"
        self.divide(images, held_out, "train", why)

    def order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The order of training images in an epoch: shards shuffled, then samples within each ``window`` of them."""
        assert isinstance(self.train, ShardImages)
        return in_windows(self.train.rows["shard"], self.window, rng)

    def _index(self) -> None:
        """Fetch all shards, and find out what is in them."""
        if problems := self.problems():
            raise several("the data cannot be used", problems)
        places = [place for pattern in self.patterns.values() if pattern for place in expanded(pattern)]
        missing = [place for place in places if is_url(place) and not self._local(place).exists()]
        for url in _tracked(missing, "fetching shards"):
            fetch(url, self._local(url))
        unknown = {path: None for place in places if (path := self._local(place)) not in self._indexes}
        for path in _tracked(list(unknown), "reading what is in the shards"):
            self._indexes[path] = index(path, self.label_key, self.cache / "indexes")

    def _local(self, place: str) -> Path:
        return local(place, self.cache / "shards")

    def _samples(self, field: str) -> tuple[list[Path], NDArray[Any], list[str]]:
        """Shards, places of the images in them, and their labels."""
        shards = [self._local(place) for place in expanded(self.patterns[field] or [])]
        indexes = [self._indexes[shard] for shard in shards]
        lengths = [len(index.offset) for index in indexes]
        places = np.empty(sum(lengths), PLACE)
        if not len(places):
            passed = [name for index in indexes for name in index.passed[:-1].tolist()]
            there = f", and the first are {first_few(passed)} (an ending begins at the first dot)" if passed else ""
            raise TinymimError(
                f"data.{field}: no images in {self.patterns[field]}: looked for samples with {', '.join(IMAGES)}{there}"
            )
        places["shard"] = np.repeat(np.arange(len(shards)), lengths)
        places["offset"] = np.concatenate([index.offset for index in indexes])
        places["length"] = np.concatenate([index.length for index in indexes])
        return shards, places, [label.decode(errors="replace") for index in indexes for label in index.label.tolist()]

    def _images(self, field: str, shards: list[Path], places: NDArray[Any], labels: list[str]) -> ShardImages:
        numbers = numbered(labels, self.classes, f"data.{field}: {self.patterns[field]}") if self.classes else None
        return ShardImages(str(self.patterns[field]), places, numbers, self.plain(), shards=shards)


def expanded(patterns: str | list[str]) -> list[str]:
    """The paths and URLs that patterns stand for, each once.

    Raises:
        ValueError: braces that are not closed.
    """
    places: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        for place in braceexpand(pattern):
            path = Path(place).expanduser()
            if is_url(place) or not glob.has_magic(place):
                places.append(place if is_url(place) else str(path))
            else:
                places += sorted(map(str, Path(path.anchor).glob(str(path.relative_to(path.anchor)))))
    return list(dict.fromkeys(places))


def _pattern_problems(patterns: str | list[str]) -> list[str]:
    """Why shards that patterns name cannot be read."""
    try:
        places = expanded(patterns)
    except ValueError as error:
        return [f"{patterns}: {error}"]
    if not places:
        return [f"{patterns} matches no file"]
    if folder := next((place for place in places if not is_url(place) and Path(place).is_dir()), None):
        return [f"{folder} is a folder; name its shards, such as '{folder}/*.tar'"]
    missing = [place for place in places if not is_url(place) and not Path(place).is_file()]
    return [f"{len(missing)} of {len(places)} shards are not there, such as {missing[0]}"] if missing else []


def _tracked(items: Sequence[Item], what: str) -> Iterable[Item]:
    """``items`` one by one: a line that says how many, and a bar in a terminal."""
    if not items:
        return items
    say(f"{what}: {len(items)}")
    console = PlainConsole(stderr=True)
    return track(items, what, console=console, transient=True, disable=not console.is_terminal)
