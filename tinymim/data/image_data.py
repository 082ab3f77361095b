"""Images of any size and from anywhere, in the views of training and evaluation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinymim.data.fraction import choice_problems, divided, few, fraction_problems, spread
from tinymim.data.image_files import Images, View
from tinymim.data.module import ImageData
from tinymim.data.transforms import PlainView, TrainView, crop_problems, view_problems
from tinymim.errors import TinymimError
from tinymim.log import say

NAMED = 20  # unreadable files, at the end of a run
NUMBERS = 100_000  # labels that are whole numbers below it are classes as they are


class ViewedData(ImageData):
    """Base of the data modules that read images: subclasses hand theirs to :meth:`divide`.

    Args:
        image_size: side of the views, in pixels.
        batch_size: of one process.
        num_workers: loading processes.
        seed: of order and augmentation.
        scale: least and greatest share of the image's area in a training crop.
        flip: mirror half of the training crops.
        color_jitter: strength of the student's own colours (TinyMIM: 0.4); 0 is off.
        rand_augment: timm's description, such as ``rand-m9-mstd0.5-inc1``, for fine-tuning.
        random_erasing: probability of erasing a box, for fine-tuning.
        device_augment: leave colours and erasing, which are then only drawn by the workers, to the device, for a whole
            batch at once: less work for the workers, the same images but for rounding. Crop, flip and RandAugment stay.
        held_out: fraction kept from training where nothing else is held out, evenly from all classes.
        split_seed: of that split, which stays the same whatever ``seed`` is.
        bank_size: at most so many labelled training images, spread evenly, serve as the bank of neighbours.
        fraction: of the training images that is used, evenly from all classes: few-shot.
        crop_pct: share of the shorter side that is evaluated, see :class:`tinymim.data.transforms.PlainView`; 0.875 for
            figures that compare with those of runs above 224 px from before there was this option.
        view_seed: of the views where they come again (``model.teacher_cache``).
        choice_split: share of the training images, evenly from all classes, that is held out in place of the held-out
            ones, to choose settings on; ``fraction`` is of the others. 0 leaves all as it is.
    """

    repeatable = True

    num_classes: int | None = None
    classes: list[str] | None = None

    def __init__(
        self,
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
        fraction: float = 1.0,
        crop_pct: float | None = None,
        view_seed: int = 0,
        choice_split: float = 0.0,
    ):
        super().__init__(image_size, batch_size, num_workers, seed, view_seed)
        self.scale, self.flip, self.color_jitter = scale, flip, color_jitter
        self.rand_augment, self.random_erasing, self.device_augment = rand_augment, random_erasing, device_augment
        self.held_out_fraction, self.split_seed, self.bank_size = held_out, split_seed, bank_size
        self.fraction, self.crop_pct = fraction, crop_pct
        self.fraction, self.choice_split = fraction, choice_split

    def problems(self) -> list[str]:
        """Values out of range."""
        checks = [
            (0 < self.held_out_fraction < 1, "held_out", self.held_out_fraction, "a fraction between 0 and 1"),
            (self.bank_size >= 1, "bank_size", self.bank_size, "a positive number of images"),
        ]
        found = super().problems() + fraction_problems(self.fraction) + crop_problems(self.crop_pct)
        found += choice_problems(self.choice_split)
        found += [f"data.{field}: {value} is not {right}" for good, field, value, right in checks if not good]
        view = (self.image_size, self.scale, self.color_jitter, self.rand_augment, self.random_erasing)
        return found + view_problems(*view)

    def plain(self) -> View:
        """How images are evaluated."""
        return PlainView(self.image_size, self.crop_pct)

    def divide(self, images: Images, held_out: Images | None, field: str, why: str) -> None:
        """Fill the datasets.

        Args:
            images: to train on, plain.
            held_out: of their own, plain; ``None`` holds some of ``images`` out.
            field: of the recipe that names them.
            why: they have no labels, if they have none.

        Raises:
            TinymimError: a single image.
        """
        self._read = [images] if held_out is None else [images, held_out]
        self.num_classes = len(self.classes) if self.classes else None
        whose = held_out.source if held_out is not None else "a split"
        train = np.arange(len(images))
        if held_out is None:
            if len(images) < 2:
                raise TinymimError(
                    f"data.{field}: {images.source} has one image: training and validation need one each at least"
                )
            train, held = divided(len(images), images.labels, self.held_out_fraction, self.split_seed)
            held_out = images.some(held, self.plain())
        if self.choice_split and len(train) > 1:
            labels = None if images.labels is None else images.labels[train]
            kept, chosen = divided(len(train), labels, self.choice_split, self.split_seed)
            held_out, whose = images.some(train[chosen], self.plain()), "a part of the training images"
            train = train[kept]
        labels = None if images.labels is None else images.labels[train]
        train = train[few(labels, len(train), self.fraction, self.split_seed)]
        view = TrainView(
            self.image_size,
            self.scale,
            self.flip,
            self.color_jitter,
            self.rand_augment,
            self.random_erasing,
            self.device_augment,
        )
        self.train, self.held_out = images.some(train, view, self.seed), held_out
        self.bank = None
        if self.classes:
            self.bank = images.some(train[spread(len(train), min(self.bank_size, len(train)))], self.plain())
        kind = f"{self.num_classes} classes" if self.classes else f"no labels ({why})"
        say(f"{images.source}: {len(train)} images to train on, {len(held_out)} held out ({whose}); {kind}")

    def teardown(self, stage: str) -> None:
        """Say which images could not be read, if any."""
        if not self._prepared or not (broken := [name for images in self._read for name in images.unreadable()]):
            return
        shown = ", ".join(broken[:NAMED]) + (f" and {len(broken) - NAMED} more" if len(broken) > NAMED else "")
        say(
            f"{len(broken)} of {sum(map(len, self._read))} images could not be read, and their neighbours were shown "
            f"instead: {shown}{self.advice()}"
        )

    def advice(self) -> str:
        """What else a user could do about unreadable images, to end a sentence with."""
        return ""


def class_names(labels: list[str]) -> list[str] | None:
    """The classes that labels speak of, in the order of their numbers, if there are two or more: small whole numbers
    are numbers of classes already, and other labels are names, sorted."""
    distinct = set(labels)
    if all(label.isdecimal() and label == str(int(label)) and int(label) < NUMBERS for label in distinct):
        names = [str(number) for number in range(max(map(int, distinct), default=0) + 1)]
    else:
        names = sorted(distinct)
    return names if len(distinct) > 1 and "" not in distinct else None


def numbered(labels: list[str], classes: list[str], where: str) -> NDArray[np.int64]:
    """The numbers of labels' classes.

    Raises:
        TinymimError: a label that is none of the classes.
    """
    number = {name: i for i, name in enumerate(classes)}
    if strange := sorted(set(labels) - number.keys()):
        raise TinymimError(
            f"{where} has {len(strange)} classes that the training images lack, such as {strange[0]!r}: "
            "its labels must be theirs"
        )
    return np.array([number[label] for label in labels], dtype=np.int64)
