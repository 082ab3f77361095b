"""Any folder of images, labelled by its class folders or not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinymim.data.base import ImageData
from tinymim.data.image_files import ImageFiles
from tinymim.data.transforms import PlainView, TrainView, view_problems
from tinymim.errors import TinymimError, several
from tinymim.images import classes, image_files, root_problems, splits, stray
from tinymim.say import say
from tinymim.seeds import stream

NAMED = 20  # unreadable files, at the end of a run


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
        device_augment: leave colours and erasing, which are then only drawn by the workers, to the device, for a whole
            batch at once: less work for the workers, the same images but for rounding. Crop, flip and RandAugment stay.
        held_out: fraction kept from training where there is no ``val/``, evenly from all classes.
        split_seed: of that split, which stays the same whatever ``seed`` is.
        bank_size: at most so many labelled training images, spread evenly, serve as the bank of neighbours.
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
        device_augment: bool = False,
        held_out: float = 0.02,
        split_seed: int = 0,
        bank_size: int = 10000,
    ):
        super().__init__(image_size, batch_size, num_workers, seed)
        self.root, self.scale, self.flip, self.color_jitter = root, scale, flip, color_jitter
        self.rand_augment, self.random_erasing, self.device_augment = rand_augment, random_erasing, device_augment
        self.held_out_fraction, self.split_seed, self.bank_size = held_out, split_seed, bank_size

    def problems(self) -> list[str]:
        """A folder that is not there or has no images, and values out of range. Looks for one image and reads none."""
        checks = [
            (0 < self.held_out_fraction < 1, "held_out", self.held_out_fraction, "a fraction between 0 and 1"),
            (self.bank_size >= 1, "bank_size", self.bank_size, "a positive number of images"),
        ]
        found = self._root_problems() + super().problems()
        found += [f"data.{field}: {value} is not {right}" for good, field, value, right in checks if not good]
        view = (self.image_size, self.scale, self.color_jitter, self.rand_augment, self.random_erasing)
        return found + view_problems(*view)

    def _root_problems(self) -> list[str]:
        if self.root is None:
            what = "a folder of images such as ImageNet's, with train/ and val/"
            return [f"data.root is not set: give --data.root FOLDER, {what}"]
        try:
            return [f"data.root: {problem}" for problem in root_problems(self.root)]
        except TinymimError as error:
            return [str(error)]

    def prepare(self) -> None:
        """List the files and split them.

        Raises:
            TinymimError: there are :meth:`problems`; or ``val/`` has classes that ``train/`` lacks, or images outside
                class folders though ``train/`` has labels; or there is only one image.
        """
        if found := self.problems():
            raise several("the data cannot be used", found)
        folder, val = splits(Path(self.root or "").expanduser())
        files = sorted(image_files(folder))
        self.classes = classes(files)
        self.num_classes = len(self.classes) if self.classes else None
        plain = PlainView(self.image_size)
        view = TrainView(
            self.image_size,
            self.scale,
            self.flip,
            self.color_jitter,
            self.rand_augment,
            self.random_erasing,
            self.device_augment,
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
        self.train, self.held_out = images.some(train, view, self.seed), held_out
        self._files = [images, held_out] if val else [images]
        self.bank = None
        if self.classes:
            self.bank = images.some(train[_spread(len(train), min(self.bank_size, len(train)))], plain)
        why = f"{odd} is not in a class folder" if (odd := stray(files)) else "fewer than two class folders"
        kind = f"{self.num_classes} classes" if self.classes else f"no labels ({why})"
        say(f"{folder}: {len(train)} images to train on, {len(held_out)} held out ({val or 'a split'}); {kind}")

    def teardown(self, stage: str) -> None:
        """Say which images could not be read, if any."""
        if not self._prepared or not (broken := [path for files in self._files for path in files.unreadable()]):
            return
        shown = ", ".join(broken[:NAMED]) + (f" and {len(broken) - NAMED} more" if len(broken) > NAMED else "")
        say(
            f"{len(broken)} of {sum(map(len, self._files))} images could not be read, and their neighbours were shown "
            f"instead: {shown}. `tinymim data check {self.root}` looks at all of them"
        )

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
        if odd := stray(files):
            raise TinymimError(
                f"data.root: {val} has images outside class folders, such as {odd}, though train/ has "
                f"{len(self.classes)} classes: sort them into folders named as train/'s, or take val/ away"
            )
        if strange := sorted({file.partition("/")[0] for file in files} - set(self.classes)):
            raise TinymimError(
                f"data.root: {val} has {len(strange)} classes that train/ lacks, such as {strange[0]}: "
                "its folders must be named as train/'s"
            )
        return files


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
