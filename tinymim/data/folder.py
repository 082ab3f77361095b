"""Any folder of images, labelled by its class folders or not."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from tinymim.data.base import ImageData, Sample
from tinymim.data.fraction import few, fraction_problems
from tinymim.data.sampler import Draw
from tinymim.data.transforms import PlainView, TrainView, read_rgb, view_problems
from tinymim.errors import TinymimError, several
from tinymim.say import say
from tinymim.seeds import seeded, stream

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
ATTEMPTS = 100  # neighbours tried in place of an unreadable image

View = Callable[[Image.Image], dict[str, Tensor]]

log = logging.getLogger(__name__)


def image_files(folder: str) -> Iterator[str]:
    """Paths of the images below ``folder``, relative to it, with ``/`` between; in no order, and lazily.

    Hidden files and folders are passed over; links to folders are followed.

    Raises:
        TinymimError: a folder cannot be listed.
    """
    below = [""]
    try:
        while below:
            here = below.pop()
            with os.scandir(f"{folder}/{here}") as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        if not (entry.is_symlink() and _encloses(entry.path, f"{folder}/{here}")):
                            below.append(f"{here}{entry.name}/")
                    elif entry.name.lower().endswith(EXTENSIONS):
                        yield here + entry.name
    except OSError as error:
        raise TinymimError(f"data.root: {error.filename} cannot be listed: {error.strerror}") from error


def _encloses(link: str, folder: str) -> bool:
    """Whether following ``link``, found in ``folder``, would go in circles."""
    target, here = Path(link).resolve(), Path(folder)
    return any(above.resolve().is_relative_to(target) for above in (here, *here.parents))


class ImageFiles(Dataset[Sample]):
    """Images read from files; in place of an unreadable one, which the log names once, the next readable one is shown.

    Args:
        folder: that the names are relative to.
        names: of the files, ``(M,)``, in fixed-width bytes: one block of memory that forked workers share.
        labels: ``(M,)``, or ``None``.
        view: from an RGB image to tensors.
        seed: of the view, which depends on (seed, epoch, index) alone; ``None`` where nothing in it is random.
    """

    def __init__(
        self,
        folder: str,
        names: NDArray[np.bytes_],
        labels: NDArray[np.int64] | None,
        view: View,
        seed: int | None = None,
    ):
        self.folder, self.names, self.labels, self.view, self.seed = folder, names, labels, view, seed
        self._reported: set[str] = set()
        self._spare: ImageFiles | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, draw: Draw) -> Sample:
        """The sample as it looks in an epoch.

        Raises:
            TinymimError: neither the image nor any of those after it can be read.
        """
        image, label = self._read(draw.index)
        with nullcontext() if self.seed is None else seeded(self.seed, *draw):
            sample: Sample = {**self.view(image), "index": draw.index}
        if self.labels is not None:
            sample["label"] = label
        return sample

    def some(self, indices: NDArray[np.int64], view: View, seed: int | None = None) -> ImageFiles:
        """Some of the images, in another view; what either reports unreadable, the other does not report again."""
        labels = None if self.labels is None else self.labels[indices]
        chosen = ImageFiles(self.folder, self.names[indices], labels, view, seed)
        chosen._reported, chosen._spare = self._reported, self
        return chosen

    def _read(self, index: int) -> tuple[Image.Image, int]:
        """The image and its label; a broken one gives way to the next of its set, or of the set it was chosen from."""
        attempts = min(ATTEMPTS, len(self))
        for step in range(attempts):
            shown = (index + step) % len(self)
            path = f"{self.folder}/{os.fsdecode(self.names[shown])}"
            try:
                return read_rgb(path), -1 if self.labels is None else int(self.labels[shown])
            except Exception as error:  # decoders raise all sorts on broken files, and none may end a long run
                if path not in self._reported:
                    self._reported.add(path)
                    log.warning("skipping %s: %s: %s", path, type(error).__name__, error)
        if self._spare is not None:
            return self._spare._read(index)
        raise TinymimError(
            f"data.root: {self.folder} has {attempts} images in a row that cannot be read, up to {path}: "
            "are they images, and is the disk in order?"
        )


class ImageFolderData(ImageData):
    """Images in a folder: ``train/`` and perhaps ``val/`` below it, as ImageNet has, or else all that lies below it.

    The images have labels if each lies exactly one folder below ``train/`` (or the root) and there are two such folders
    or more: their sorted names are then :attr:`classes`. Otherwise there are neither labels nor a bank. Beside
    ``train/`` only ``val/`` is read; without ``train/``, ``val/`` is a folder like any other.

    Args:
        root: the folder, with .jpg, .jpeg, .png or .webp files.
        image_size: side of the views, in pixels.
        batch_size: of one process.
        num_workers: loading processes.
        seed: of order and augmentation.
        scale: least and greatest share of an image's area in a training crop.
        flip: mirror half of the training crops.
        color_jitter: strength of the student's own colours (TinyMIM: 0.4); 0 is off.
        rand_augment: timm's description, such as ``rand-m9-mstd0.5-inc1``, for fine-tuning.
        random_erasing: probability of erasing a box, for fine-tuning.
        held_out: fraction kept from training where there is no ``val/``, evenly from all classes.
        split_seed: of that split, which stays the same whatever ``seed`` is.
        bank_size: at most so many labelled training images, spread evenly, serve as the bank of neighbours.
        fraction: of the training images that is used, evenly from all classes: few-shot.
    """

    num_classes: int | None = None
    classes: list[str] | None = None

    def __init__(
        self,
        root: str | None = None,
        image_size: int = 224,
        batch_size: int = 128,
        num_workers: int = 2,
        seed: int = 0,
        scale: tuple[float, float] = (0.2, 1.0),
        flip: bool = True,
        color_jitter: float = 0.0,
        rand_augment: str | None = None,
        random_erasing: float = 0.0,
        held_out: float = 0.02,
        split_seed: int = 0,
        bank_size: int = 10000,
        fraction: float = 1.0,
    ):
        super().__init__(image_size, batch_size, num_workers, seed)
        self.root, self.scale, self.flip, self.color_jitter = root, scale, flip, color_jitter
        self.rand_augment, self.random_erasing = rand_augment, random_erasing
        self.held_out_fraction, self.split_seed, self.bank_size = held_out, split_seed, bank_size
        self.fraction = fraction

    def problems(self) -> list[str]:
        """A folder that is not there or has no images, and values out of range. Looks for one image and reads none."""
        checks = [
            (0 < self.held_out_fraction < 1, "held_out", self.held_out_fraction, "a fraction between 0 and 1"),
            (self.bank_size >= 1, "bank_size", self.bank_size, "a positive number of images"),
        ]
        found = self._root_problems() + super().problems() + fraction_problems(self.fraction)
        found += [f"data.{field}: {value} is not {right}" for good, field, value, right in checks if not good]
        view = (self.image_size, self.scale, self.color_jitter, self.rand_augment, self.random_erasing)
        return found + view_problems(*view)

    def _root_problems(self) -> list[str]:
        if self.root is None:
            what = "a folder of images such as ImageNet's, with train/ and val/"
            return [f"data.root is not set: give --data.root FOLDER, {what}"]
        root = Path(self.root).expanduser()
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "does not exist"
            return [f"data.root: {self.root} {what}: give a folder of images"]
        try:
            empty = [folder for folder in self._folders() if folder and next(image_files(folder), None) is None]
        except TinymimError as error:
            return [str(error)]
        extensions = ", ".join(EXTENSIONS)
        return [f"data.root: no images in {folder}: looked for {extensions}, also in its folders" for folder in empty]

    def _folders(self) -> tuple[str, str | None]:
        root = Path(self.root or "").expanduser()
        train, val = root / "train", root / "val"
        if not train.is_dir():
            return str(root), None
        return str(train), str(val) if val.is_dir() else None

    def prepare(self) -> None:
        """List the files and split them.

        Raises:
            TinymimError: there are :meth:`problems`; or ``val/`` has classes that ``train/`` lacks, or images outside
                class folders though ``train/`` has labels; or there is only one image.
        """
        if found := self.problems():
            raise several("the data cannot be used", found)
        folder, val = self._folders()
        files = sorted(image_files(folder))
        stray, folders = _stray(files), {file.partition("/")[0] for file in files}
        self.classes = sorted(folders) if not stray and len(folders) > 1 else None
        self.num_classes = len(self.classes) if self.classes else None
        plain = PlainView(self.image_size)
        view = TrainView(
            self.image_size, self.scale, self.flip, self.color_jitter, self.rand_augment, self.random_erasing
        )
        images = ImageFiles(folder, *self._arrays(files), plain)
        if val:
            train = np.arange(len(images))
            held_out = ImageFiles(val, *self._arrays(self._val_files(val)), plain)
        elif len(images) < 2:
            raise TinymimError(f"data.root: {folder} has one image: training and validation need one each at least")
        else:
            train, held = _split(len(images), images.labels, self.held_out_fraction, self.split_seed)
            held_out = images.some(held, plain)
        labels = None if images.labels is None else images.labels[train]
        train = train[few(labels, len(train), self.fraction, self.split_seed)]
        self.train, self.held_out = images.some(train, view, self.seed), held_out
        self.bank = None
        if self.classes:
            self.bank = images.some(train[_spread(len(train), min(self.bank_size, len(train)))], plain)
        why = f"{stray} is not in a class folder" if stray else "fewer than two class folders"
        kind = f"{self.num_classes} classes" if self.classes else f"no labels ({why})"
        say(f"{folder}: {len(train)} images to train on, {len(held_out)} held out ({val or 'a split'}); {kind}")

    def _arrays(self, files: list[str]) -> tuple[NDArray[np.bytes_], NDArray[np.int64] | None]:
        names = np.array([os.fsencode(file) for file in files])
        if not self.classes:
            return names, None
        label = {name: i for i, name in enumerate(self.classes)}
        return names, np.array([label[file.partition("/")[0]] for file in files], dtype=np.int64)

    def _val_files(self, val: str) -> list[str]:
        files = sorted(image_files(val))
        if not self.classes:
            return files
        if stray := _stray(files):
            raise TinymimError(
                f"data.root: {val} has images outside class folders, such as {stray}, though train/ has "
                f"{len(self.classes)} classes: sort them into folders named as train/'s, or take val/ away"
            )
        if strange := sorted({file.partition("/")[0] for file in files} - set(self.classes)):
            raise TinymimError(
                f"data.root: {val} has {len(strange)} classes that train/ lacks, such as {strange[0]}: "
                "its folders must be named as train/'s"
            )
        return files


def _stray(files: list[str]) -> str | None:
    """An image that does not lie exactly one folder down, if there is any."""
    return next((file for file in files if file.count("/") != 1), None)


def _spread(length: int, count: int) -> NDArray[np.int64]:
    """``count`` of ``length`` positions, evenly."""
    return (np.arange(count) * length + length // 2) // count


def _split(
    length: int, labels: NDArray[np.int64] | None, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted positions to train on and to hold out, at least one of each, every class in proportion."""
    order = stream(seed).permutation(length)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    held = np.sort(order[_spread(length, min(max(1, round(length * fraction)), length - 1))])
    return np.setdiff1d(order, held), held
