"""Images with masks of classes, in the layout of ADE20K's challenge."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader
from typing_extensions import override

from tinymim.data.data_module import ImageData, Sample, Workers
from tinymim.data.datasets import ImageDataset, View, states
from tinymim.data.image_files import evenly
from tinymim.data.image_files import listed as listed_files
from tinymim.data.open_image import MASK_MODES, MAX_PIXELS, open_image, rgb
from tinymim.data.sampler import InTurn
from tinymim.data.segmentation_views import UNLABELLED, CropView, Mask, WholeView
from tinymim.data.transforms import wrong_values
from tinymim.errors import TinymimError, counted, several
from tinymim.log import detail


@dataclass
class Masks:
    """Reader of mask files.

    Args:
        classes: of pixels.
        zero_unlabelled: 0 means no class, and classes count from 1, as in ADE20K; 255 never has one.
    """

    classes: int
    zero_unlabelled: bool

    def read(self, path: Path, max_pixels: int = MAX_PIXELS) -> Mask:
        """Classes ``(H, W)`` from 0, :data:`UNLABELLED` where there is none.

        Raises:
            TinymimError: not one number a pixel, or a number that is no class.
            Exception: on a broken file, of many types.
        """
        return self.decoded(self.open(path, max_pixels), path)

    def open(self, path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """A mask of which only the header is decoded yet; raises as :meth:`read`."""
        image = open_image(str(path), max_pixels)
        if image.mode not in MASK_MODES:
            raise TinymimError(
                f"data.root: {path} is in mode {image.mode}; a mask is a PNG with one number a pixel, its class"
            )
        return image

    def decoded(self, image: Image.Image, path: Path) -> Mask:
        """The classes of a mask that is open; raises as :meth:`read`."""
        values = np.asarray(image)  # of a palette, the indices
        classes = np.empty(values.shape, np.uint8)
        rows = max(BAND // values.shape[1], 1)
        for top in range(0, len(values), rows):  # wide numbers of a few rows at a time
            classes[top : top + rows] = self._classes(values[top : top + rows].astype(np.int64), path)
        return classes

    def _classes(self, values: NDArray[np.int64], path: Path) -> Mask:
        values = np.where(values == UNLABELLED, UNLABELLED, values - self.zero_unlabelled)
        wrong = (values >= self.classes) & (values != UNLABELLED)
        if wrong.any():
            value = int(values[wrong].max()) + self.zero_unlabelled
            first, last = int(self.zero_unlabelled), self.classes - (not self.zero_unlabelled)
            raise TinymimError(
                f"data.root: {path} has a pixel of {value}, and {self.classes} classes are {first} to {last}; "
                "see data.classes and data.zero_unlabelled"
            )
        return np.where(values < 0, UNLABELLED, values).astype(np.uint8)


@dataclass(eq=False, repr=False, kw_only=True)
class SegmentationFiles(ImageDataset):
    """Images and their masks from files; a pair that cannot be read gives way as an image alone does. ``rows`` are the
    names of both, ``(M, 2)``, the images' in the folder ``source``.

    Args:
        masks: folder.
        reader: how masks are read.
    """

    masks: Path
    reader: Masks

    @override
    def name(self, index: int) -> str:
        return f"{self.source}/{os.fsdecode(self.rows[index, 0])}"

    @override
    def image(self, index: int) -> Any:
        path = self.masks / os.fsdecode(self.rows[index, 1])
        image, mask = open_image(self.name(index), self.max_pixels), self.reader.open(path, self.max_pixels)
        if image.size != mask.size:  # before either is decoded
            raise ValueError(f"its mask has {mask.width}x{mask.height} pixels, it {image.width}x{image.height}")
        return rgb(image), self.reader.decoded(mask, path)

    def mask(self, index: int) -> Mask:
        """Classes ``(H, W)``; raises as :meth:`Masks.read`."""
        return self.reader.read(self.masks / os.fsdecode(self.rows[index, 1]), self.max_pixels)

    @override
    def looked_at(self, most: int) -> NDArray[np.int64]:
        folders = (Path(self.source), self.masks)
        rows = self.rows[evenly(len(self), most // 2)].tolist()
        return states(folder / os.fsdecode(name) for row in rows for folder, name in zip(folders, row, strict=True))

    def check_labelled(self) -> None:
        """Look at a few masks.

        Raises:
            TinymimError: all are without a labelled pixel, or one has a pixel of no class.
        """
        looked = evenly(len(self), LOOKED_AT)
        with suppress(OSError, SyntaxError, ValueError):  # a broken one is left to the training, which names it
            if all((self.mask(index) == UNLABELLED).all() for index in looked):
                raise TinymimError(
                    f"data.root: no pixel has a class in {len(looked)} masks of {self.masks}, such as "
                    f"{os.fsdecode(self.rows[looked[0], 1])}: 255 is none, and 0 is none with data.zero_unlabelled; a "
                    "mask of two classes has 1 and 2, or 0 and 1 with data.zero_unlabelled false"
                )


LOOKED_AT = 8  # masks that are looked at before a training
BAND = 1 << 20  # pixels of a mask that are read at once


class SegmentationFolderData(ImageData):
    """``images/training``, ``images/validation``, and a PNG of the same name for each below ``annotations/``.

    Training samples are square crops; held-out images are shown whole, one at a time, each in its own size.

    Args:
        root: the folder; ADE20K's challenge data has this layout.
        image_size: side of the crops, in pixels.
        batch_size: of one process, in training.
        num_workers: loading processes.
        seed: of order and augmentation.
        classes: of pixels, at most 255.
        zero_unlabelled: 0 in a mask means no class, and classes count from 1, as in ADE20K; 255 never has one.
        scale: long and short side, in pixels, that images are made to fit into.
        ratio: least and greatest factor on ``scale`` in training.
        most: share of a crop's labelled pixels that one class may have; another crop is tried, at most ten times.
        flip: mirror half of the crops.
        distort: change brightness, contrast, saturation and hue, each of half of the crops.
        max_pixels: images of more are taken for unreadable, see :class:`tinymim.data.image_data.ViewedData`.
    """

    num_classes = None
    bank = None
    held_out: SegmentationFiles

    def __init__(
        self,
        root: str | None = None,
        image_size: int = 512,
        batch_size: int = 16,
        num_workers: Workers = "auto",
        seed: int = 0,
        classes: int = 150,
        zero_unlabelled: bool = True,
        scale: tuple[int, int] = (2048, 512),
        ratio: tuple[float, float] = (0.5, 2.0),
        most: float = 0.75,
        flip: bool = True,
        distort: bool = True,
        max_pixels: int = MAX_PIXELS,
    ):
        super().__init__(image_size, batch_size, num_workers, seed)
        self.root, self.mask_classes, self.scale, self.ratio = root, classes, scale, ratio
        self.most, self.flip, self.distort, self.max_pixels = most, flip, distort, max_pixels
        self.masks, self.first_class = Masks(classes, zero_unlabelled), int(zero_unlabelled)

    @override
    def problems(self) -> list[str]:
        problems = super().problems() + wrong_values(
            image_size=(self.image_size >= 1, self.image_size, "a positive number of pixels"),
            classes=(1 < self.masks.classes <= 255, self.masks.classes, "a number of classes from 2 to 255"),
            scale=(min(self.scale) >= 1, list(self.scale), "two sides in pixels"),
            ratio=(0 < self.ratio[0] <= self.ratio[1], list(self.ratio), "two factors, 0 < least <= greatest"),
            most=(0 < self.most <= 1, self.most, "a share above 0, to 1"),
            max_pixels=(self.max_pixels >= 1, self.max_pixels, "a positive number of pixels"),
        )
        for part in ("training", "validation"):
            try:
                self._pairs(part)
            except TinymimError as error:
                problems.append(str(error))
        return list(dict.fromkeys(problems))

    def _pairs(self, part: str) -> tuple[Path, Path, dict[str, tuple[str, str]]]:
        """The folders of images and masks, and their names in them, in order, by what is common to both.

        Raises:
            TinymimError: no such folders, or names that do not match.
        """
        if self.root is None:
            what = "a folder with images/ and annotations/, each with training/ and validation/, as ADE20K has"
            raise TinymimError(f"data.root is not set: give --data.root FOLDER, {what}")
        images, masks = (Path(self.root).expanduser() / kind / part for kind in ("images", "annotations"))
        if absent := [str(folder) for folder in (images, masks) if not folder.is_dir()]:
            raise TinymimError(f"data.root: there is no {' and no '.join(absent)}")
        listed, passed = listed_files(str(images))
        listed_masks, other_masks = listed_files(str(masks))
        pictures = _by_stem(listed)
        marks = _by_stem(name for name in listed_masks if name.lower().endswith(".png"))
        self.notes = list(dict.fromkeys([*self.notes, *passed.notes(str(images)), *other_masks.notes(str(masks))]))
        for what, alone in (
            (f"in {images} without a PNG of the same name in {masks}", pictures.keys() - marks.keys()),
            (f"in {masks} without an image of the same name in {images}", marks.keys() - pictures.keys()),
        ):
            if alone:
                raise TinymimError(
                    f"data.root: {counted(len(alone), 'file')} {what}, such as {', '.join(sorted(alone)[:3])}"
                )
        if not pictures:
            raise TinymimError(f"data.root: no images in {images}")
        return images, masks, {stem: (pictures[stem], marks[stem]) for stem in sorted(pictures)}

    @override
    def prepare(self) -> None:
        if problems := self.problems():
            raise several("the data cannot be used", problems)
        crop = CropView(self.image_size, self.scale, self.ratio, self.most, self.flip, self.distort)
        self.train = self._files("training", crop, self.seed)
        self.held_out = self._files("validation", WholeView(self.scale))
        counts = f"{counted(len(self.train), 'image')} to train on, {len(self.held_out)} held out"
        self.description = f"{self.root}: {counts}; {self.mask_classes} classes of pixels"
        detail("; ".join([self.description, *self.notes]))

    def _files(self, part: str, view: View, seed: int = 0) -> SegmentationFiles:
        images, masks, pairs = self._pairs(part)
        rows = np.array([[os.fsencode(name) for name in pair] for pair in pairs.values()])
        files = SegmentationFiles(str(images), rows, None, view, seed, masks=masks, reader=self.masks)
        files.max_pixels = self.max_pixels
        files.check_labelled()
        return files

    @override
    def name_of(self, index: int) -> str:
        return os.fsdecode(self.held_out.rows[index, 0]).rpartition(".")[0]

    @override
    def _in_turn(self, dataset: Any, lasting: bool = True) -> DataLoader[Sample]:
        # One at a time, for each has its own size.
        return self._loader(dataset, InTurn(len(dataset), *self._place()), lasting, batch_size=1)


def _by_stem(names: Iterable[str]) -> dict[str, str]:
    return {name.rpartition(".")[0]: name for name in names}
