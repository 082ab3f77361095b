"""Splits of torchvision's sets opened: images in memory or in files, their labels, and the names of the classes."""

from __future__ import annotations

import operator
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from tinymim.data.array_images import ArrayImages
from tinymim.data.datasets import ImageDataset, ImageFiles, View, states
from tinymim.data.idx_files import idx_file, read_idx
from tinymim.data.torchvision_sets import TorchvisionSet
from tinymim.errors import TinymimError

SECONDS = 10  # until a server that does not answer is given up
IDX_PARTS = {"train": "train", "test": "t10k"}


@dataclass(eq=False, repr=False, kw_only=True)
class IndexedImages(ImageDataset):
    """Images that only the data set itself knows how to open; ``rows`` are its numbers.

    Args:
        opened: torchvision's data set.
        folder: its files are below.
    """

    opened: Any
    folder: Path

    @override
    def name(self, index: int) -> str:
        return f"{self.source}: image {self.rows[index]}"

    @override
    def image(self, index: int) -> Image.Image:
        image: Image.Image = self.opened[int(self.rows[index])][0]
        return image

    @override
    def contents(self) -> list[Any]:
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [repr(self.opened), self.rows, [str(path) for path in files], states(files)]


class SetFiles(ImageFiles):
    """Images in files; ``rows`` are their whole paths, and ``source`` names the split."""

    @override
    def name(self, index: int) -> str:
        return os.fsdecode(self.rows[index])

    @override
    def places(self) -> list[Any]:
        paths = self.rows.tolist()  # below the folder of them all, which may have moved
        start = len(os.path.commonpath([min(paths), max(paths)])) if paths else 0
        return [[path[start:] for path in paths]]


@dataclass
class Split:
    """Images of a split.

    Args:
        images: without labels yet.
        labels: number of each one's class, ``(M,)``; ``None`` where some have none.
        classes: names of all classes, or ``None``.
    """

    images: ImageDataset
    labels: NDArray[np.int64] | None
    classes: list[str] | None


def idx_names(split: str) -> list[str]:
    """Names of the files of images and of labels, without ``.gz``."""
    return [f"{IDX_PARTS[split]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]


def idx_folder(folders: Sequence[Path]) -> Path | None:
    """The first folder that has one of the files."""
    names = [name for split in IDX_PARTS for name in idx_names(split)]
    return next((folder for folder in folders if any(idx_file(folder, name) for name in names)), None)


def open_idx(of: TorchvisionSet, folder: Path, split: str, view: View) -> Split:
    """Open a split of MNIST or a set of its form.

    Raises:
        TinymimError: a file is missing or damaged, or they do not fit each other.
    """
    names = idx_names(split)
    paths = [idx_file(folder, name) for name in names]
    if None in paths:
        raise TinymimError(f"data.root: {folder} has no {names[paths.index(None)]}, .gz or not")
    pixels, labels = (read_idx(path, dimensions) for path, dimensions in zip(paths, (3, 1), strict=True) if path)
    classes = list(of.opener.classes)
    if len(pixels) != len(labels) or not len(labels):
        raise TinymimError(f"data.root: {paths[0]} has {len(pixels)} images, and {paths[1]} {len(labels)} labels")
    if labels.max() >= len(classes):
        raise TinymimError(f"data.root: {paths[1]} has a label of {labels.max()}; {of.name} has {len(classes)} classes")
    images = ArrayImages(f"{of.name} ({split}) in {folder}", np.arange(len(pixels)), None, view, pixels=pixels)
    return Split(images, labels.astype(np.int64), classes)


def construct(of: TorchvisionSet, root: Path, split: str, arguments: dict[str, Any], download: bool = False) -> Any:
    """Open torchvision's own data set.

    Raises:
        TinymimError: a file is missing or damaged, it cannot be fetched, or the class refuses the arguments.
    """
    options: dict[str, Any] = dict(arguments)
    if of.argument:
        options[of.argument] = of.splits[split]
    if of.takes("root"):
        options["root"] = str(root)
    if of.takes("loader"):
        options["loader"] = os.fspath  # of files their paths: the house decodes them
    if of.fetched:  # of two sets torchvision's own default is to fetch
        options["download"] = download
    if of.pickled and not download and (wrong := of.wrong_file(root)):
        raise TinymimError(f"data.root: {wrong}")
    try:
        with _patience():
            return of.opener(**options)
    except Exception as error:  # of many types, by set
        if arguments and isinstance(error, TypeError | ValueError):
            raise TinymimError(f"data.arguments: {of.name} refuses {arguments}: {_line(error)}") from error
        if download:
            raise TinymimError(
                f"data.download: {of.name} cannot be fetched: {_line(error)}; is there a network? "
                f"Else put its files into {root}"
            ) from error
        reason = of.wrong_file(root, split) or f"{of.name} cannot be read in {root}: {_line(error)}"
        raise TinymimError(f"data.root: {reason}") from error


def open_split(of: TorchvisionSet, root: Path, split: str, arguments: dict[str, Any], view: View) -> Split:
    """Open a split with torchvision's class.

    Raises:
        TinymimError: as of :func:`construct`, or it has no images.
    """
    opened = construct(of, root, split, arguments)
    source = f"{of.name} ({split})" if of.argument else of.name
    rows = np.arange(len(opened))
    if not len(rows):
        raise TinymimError(f"data.root: {source} has no images in {root}")
    pixels = pixels_of(getattr(opened, "data", None), len(rows))
    if pixels is not None:
        images: ImageDataset = ArrayImages(source, rows, None, view, pixels=pixels)
    elif of.takes("loader"):
        samples = [opened[index] for index in rows.tolist()]
        paths = np.array([os.fsencode(path) for path, _ in samples])
        return Split(SetFiles(source, paths, None, view), _numbers([label for _, label in samples]), _classes(opened))
    else:
        images = IndexedImages(source, rows, None, view, opened=opened, folder=root)
    return Split(images, _labels(opened), _classes(opened))


def joined(splits: list[Split]) -> Split:
    """Several splits, one behind the other.

    Raises:
        TinymimError: their images are not of one kind and size.
    """
    first, *others = splits
    for other in others:
        images, more = first.images, other.images
        if isinstance(images, ArrayImages) and isinstance(more, ArrayImages) and _same(images.pixels, more.pixels):
            pixels = np.concatenate([images.pixels, more.pixels])
            both: ImageDataset = ArrayImages("", np.arange(len(pixels)), None, images.view, pixels=pixels)
        elif isinstance(images, SetFiles) and isinstance(more, SetFiles):
            both = SetFiles("", np.concatenate([images.rows, more.rows]), None, images.view)
        else:
            raise TinymimError("data.train_split: these splits cannot be put together; name one of them")
        both.source = f"{images.source} and {more.source}"
        labels = None if first.labels is None or other.labels is None else np.concatenate([first.labels, other.labels])
        first = Split(both, labels, first.classes)
    return first


def _same(first: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    return first.shape[1:] == other.shape[1:]


def pixels_of(data: Any, length: int) -> NDArray[np.uint8] | None:
    """Images that a data set holds, channels last, if it holds any."""
    array = data.numpy() if hasattr(data, "numpy") else data
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim not in (3, 4) or len(array) != length:
        return None
    return array if array.ndim == 3 or array.shape[-1] == 3 else array.transpose(0, 2, 3, 1)


def labels_of(opened: Any) -> NDArray[np.int64] | None:
    """Number of each image's class, as a data set of torchvision's form keeps them; ``None`` where it does not, or some
    images have none."""
    kept = _kept_labels(opened)
    return None if kept is None else _numbers(kept)


def _kept_labels(opened: Any) -> Any:
    for name in ("targets", "labels", "_labels", "y"):
        values = getattr(opened, name, None)
        if values is not None and len(values) == len(opened):
            return values[:, 0] if getattr(opened, "compat", False) else values  # QMNIST's have 8 numbers
    return None


def _labels(opened: Any) -> NDArray[np.int64] | None:
    if _kept_labels(opened) is not None or _numbers([opened[0][1]]) is None:
        return labels_of(opened)
    return _numbers([opened[index][1] for index in range(len(opened))])  # which decodes every image, once


def _numbers(values: Any) -> NDArray[np.int64] | None:
    """Labels as numbers, if all images have one: what is no whole number from 0 up is none."""
    try:
        numbers = np.array([operator.index(value) for value in values], dtype=np.int64)
    except TypeError:
        return None
    return numbers if numbers.min() >= 0 else None


def _classes(opened: Any) -> list[str] | None:
    for name in ("classes", "categories", "all_categories", "_characters"):
        if names := getattr(opened, name, None):
            return [name if isinstance(name, str) else str(name[0]) for name in names]
    return None


def _line(error: Exception) -> str:
    """An error of torchvision's in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:3])[:300] if lines else type(error).__name__
    return re.sub(r"\.? *You can (use|set) download=True to download it\.?", "; --data.download true fetches it", text)


@contextmanager
def _patience() -> Iterator[None]:
    """Give a server up that does not answer; torchvision would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
