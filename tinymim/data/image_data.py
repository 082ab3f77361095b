"""Bases of the data modules that train: which images are trained on, and the views of those from anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from tinymim.data.data_module import ImageData, Workers
from tinymim.data.datasets import ImageDataset, View
from tinymim.data.open_image import MAX_PIXELS
from tinymim.data.transforms import PlainView, TrainView, crop_problems, view_problems, wrong_values
from tinymim.errors import TinymimError, counted
from tinymim.log import detail, say
from tinymim.seeds import stream

Positions = NDArray[np.int64]

NAMED = 20  # unreadable files, at the end of a run
NUMBERS = 100_000  # labels that are whole numbers below it are classes as they are


class SubsetData(ImageData):
    """Base of the data modules that can train on some of their images, and choose settings on others of them.

    Args:
        fraction: of the training images that is used, evenly from all classes: few-shot.
        choice_split: share of the training images, evenly from all classes, that is held out in place of the held-out
            ones, to choose settings on; ``fraction`` is of the others. 0 leaves all as it is.
        options: of :class:`ImageData`.
    """

    repeatable = True

    def __init__(self, fraction: float = 1.0, choice_split: float = 0.0, **options: Any):
        super().__init__(**options)
        self.fraction, self.choice_split = fraction, choice_split

    @override
    def problems(self) -> list[str]:
        share = "a share of the training images"
        return super().problems() + wrong_values(
            fraction=(0 < self.fraction <= 1, self.fraction, f"{share}, more than 0 and up to 1"),
            choice_split=(0 <= self.choice_split < 1, self.choice_split, f"{share}, from 0 (none) to less than 1"),
        )

    def choose(self, train: Positions, labels: Positions | None, split_seed: int) -> tuple[Positions, Positions | None]:
        """Choose from the training images as ``choice_split`` and then ``fraction`` say.

        Args:
            train: positions of the training images, ``(M,)``.
            labels: of all images, by position; ``None`` takes any.
            split_seed: of the choice.

        Returns:
            Positions to train on, and those held out to choose settings on, or ``None``.
        """
        chosen = None
        if self.choice_split and len(train) > 1:
            of_train = None if labels is None else labels[train]
            kept, held = divided(len(train), of_train, self.choice_split, split_seed)
            train, chosen = train[kept], train[held]
        of_train = None if labels is None else labels[train]
        return train[few(of_train, len(train), self.fraction, split_seed)], chosen


class ViewedData(SubsetData):
    """Base of the data modules that read images of any size: subclasses hand theirs to :meth:`divide`.

    Args:
        image_size: side of the views, in pixels.
        num_workers: loading processes, see :class:`ImageData`.
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
        crop_pct: share of the shorter side that is evaluated, see :class:`tinymim.data.transforms.PlainView`; 0.875 for
            figures that compare with those of runs above 224 px from before there was this option.
        max_pixels: images of more are taken for unreadable; each decoded pixel takes 3 bytes in each worker, so raise
            it for slides and satellites as memory allows.
        options: of :class:`SubsetData`.
    """

    classes: list[str] | None = None
    is_split = False
    """Whether the held-out images are some of those to train on, as there are no others."""

    def __init__(
        self,
        image_size: int = 224,
        num_workers: Workers = "auto",
        scale: tuple[float, float] = (0.2, 1.0),
        flip: bool = True,
        color_jitter: float = 0.0,
        rand_augment: str | None = None,
        random_erasing: float = 0.0,
        device_augment: bool = False,
        held_out: float = 0.02,
        split_seed: int = 0,
        bank_size: int = 10000,
        crop_pct: float | None = None,
        max_pixels: int = MAX_PIXELS,
        **options: Any,
    ):
        super().__init__(image_size=image_size, num_workers=num_workers, **options)
        self.scale, self.flip, self.color_jitter = scale, flip, color_jitter
        self.rand_augment, self.random_erasing, self.device_augment = rand_augment, random_erasing, device_augment
        self.held_out_fraction, self.split_seed, self.bank_size = held_out, split_seed, bank_size
        self.crop_pct, self.max_pixels = crop_pct, max_pixels

    @override
    def problems(self) -> list[str]:
        view = (self.image_size, self.scale, self.color_jitter, self.rand_augment, self.random_erasing)
        return [
            *super().problems(),
            *crop_problems(self.crop_pct),
            *wrong_values(
                held_out=(0 < self.held_out_fraction < 1, self.held_out_fraction, "a fraction between 0 and 1"),
                bank_size=(self.bank_size >= 1, self.bank_size, "a positive number of images"),
                max_pixels=(self.max_pixels >= 1, self.max_pixels, "a positive number of pixels"),
            ),
            *view_problems(*view),
        ]

    def plain(self) -> View:
        """The view of evaluation."""
        return PlainView(self.image_size, self.crop_pct)

    def divide(self, images: ImageDataset, held_out: ImageDataset | None, field: str, why: str) -> None:
        """Fill the datasets.

        Args:
            images: to train on, plain.
            held_out: of their own, plain; ``None`` holds some of ``images`` out.
            field: of the recipe that names them.
            why: they have no labels, if they have none.

        Raises:
            TinymimError: a single image.
        """
        # The held-out images first, then those to choose settings on, and the fraction of what is left.
        self._read = [images] if held_out is None else [images, held_out]
        for part in self._read:
            part.max_pixels = self.max_pixels
        self.num_classes = len(self.classes) if self.classes else None
        whose = held_out.source if held_out is not None else "a split"
        train, self.is_split = np.arange(len(images)), held_out is None
        if held_out is None:
            if len(images) < 2:
                raise TinymimError(
                    f"data.{field}: {images.source} has {'one image' if len(images) else 'no images'}: training and "
                    "validation need one each at least"
                )
            train, held = divided(len(images), images.labels, self.held_out_fraction, self.split_seed)
            held_out = images.some(held, self.plain())
        all_of_them = len(train)
        train, chosen = self.choose(train, images.labels, self.split_seed)
        if chosen is not None:
            held_out, whose = images.some(chosen, self.plain()), "a part of the training images"
            self.is_split = False
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
        kind = counted(self.num_classes or 0, "class") if self.classes else f"no labels ({why})"
        some = (
            f"{len(train):,} of {counted(all_of_them, 'image')}" if self.fraction < 1 else counted(len(train), "image")
        )
        counts = f"{some} to train on, {len(held_out):,} held out ({whose})"
        self.description = f"{images.source}: {counts}; {kind}"
        detail("; ".join([self.description, *self.notes]))

    @override
    def teardown(self, stage: str) -> None:
        if not self._prepared or not (broken := [name for images in self._read for name in images.unreadable()]):
            return
        shown = ", ".join(broken[:NAMED]) + (f" and {len(broken) - NAMED} more" if len(broken) > NAMED else "")
        say(
            f"{len(broken)} of {counted(sum(map(len, self._read)), 'image')} could not be read; neighbours were shown "
            f"instead: {shown}{self.advice()}"
        )

    def advice(self) -> str:
        """Remedy for unreadable images, to end a sentence with."""
        return ""


def few(labels: NDArray[np.int64] | None, length: int, fraction: float, seed: int) -> NDArray[np.int64]:
    """Choose ``fraction`` of the images, as sorted positions: of each class its share, and one at least.

    A larger fraction with the same seed has all images of a smaller one.

    Args:
        labels: ``(length,)``; ``None`` takes any.
        length: images there are.
        fraction: more than 0 and up to 1.
        seed: of the choice.
    """
    if fraction == 1:
        return np.arange(length)
    order = stream(seed).permutation(length)
    groups = [order] if labels is None else [order[labels[order] == label] for label in np.unique(labels)]
    return np.sort(np.concatenate([group[: max(1, round(len(group) * fraction))] for group in groups]))


def divided(
    length: int, labels: NDArray[np.int64] | None, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted positions to train on and to hold out, at least one of each, every class in proportion.

    Args:
        length: images there are, two at least.
        labels: ``(length,)``; ``None`` takes any.
        fraction: to hold out, between 0 and 1.
        seed: of the choice.
    """
    order = stream(seed).permutation(length)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]  # evenly spread positions then take of each class
    held = np.sort(order[spread(length, min(max(1, round(length * fraction)), length - 1))])
    return np.setdiff1d(order, held), held


def spread(length: int, count: int) -> NDArray[np.int64]:
    """``count`` of ``length`` positions, evenly."""
    return (np.arange(count) * length + length // 2) // count


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
    if lacking := labels.count(""):
        raise TinymimError(
            f"{where} has {lacking} of {counted(len(labels), 'image')} without a label, and the training images all"
        )
    if strange := sorted(set(labels) - number.keys()):
        raise TinymimError(
            f"{where} has {counted(len(strange), 'class')} that the training images lack, such as {strange[0]!r}: "
            "its labels must be theirs"
        )
    return np.array([number[label] for label in labels], dtype=np.int64)
