"""Images with masks, in the layout of ADE20K's challenge."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tinymim.data.base import ImageData, Sample
from tinymim.data.folder import ATTEMPTS, image_files
from tinymim.data.sampler import Draw, InTurn
from tinymim.data.segmentation_views import CropView, Mask, WholeView
from tinymim.data.transforms import read_rgb
from tinymim.errors import TinymimError, several
from tinymim.pixels import UNLABELLED
from tinymim.say import say
from tinymim.seeds import stream

View = Callable[[Image.Image, Mask, np.random.Generator], dict[str, Tensor]]

log = logging.getLogger(__name__)


class Masks:
    """How mask files are read.

    Args:
        classes: of pixels.
        zero_unlabelled: 0 means no class, and classes count from 1, as in ADE20K; 255 never has one.
    """

    def __init__(self, classes: int, zero_unlabelled: bool):
        self.classes, self.zero_unlabelled = classes, zero_unlabelled

    def read(self, path: Path) -> Mask:
        """Classes ``(H, W)`` from 0, :data:`UNLABELLED` where there is none.

        Raises:
            TinymimError: not one number a pixel, or a number that is no class.
            Exception: on a broken file, of many types.
        """
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "I", "I;16", "1"):
                raise TinymimError(
                    f"data.root: {path} is in mode {image.mode}; a mask is a PNG with one number a pixel, its class"
                )
            values = np.asarray(image).astype(np.int64)  # of a palette, the indices
        values = np.where(values == UNLABELLED, UNLABELLED, values - self.zero_unlabelled)
        wrong = (values >= self.classes) & (values != UNLABELLED)
        if wrong.any():
            found = int(values[wrong].max()) + self.zero_unlabelled
            first, last = int(self.zero_unlabelled), self.classes - (not self.zero_unlabelled)
            raise TinymimError(
                f"data.root: {path} has a pixel of {found}, and {self.classes} classes are {first} to {last}; "
                "see data.classes and data.zero_unlabelled"
            )
        return np.where(values < 0, UNLABELLED, values).astype(np.uint8)


class SegmentationFiles(Dataset[Sample]):
    """Images and their masks from files; in place of a pair that cannot be read, which the log names once, the next
    readable one is shown.

    Args:
        pairs: paths of image and mask, by their common name without ending.
        masks: how masks are read.
        view: from both to tensors.
        seed: of the view, which depends on (seed, epoch, index) alone.
    """

    def __init__(self, pairs: dict[str, tuple[Path, Path]], masks: Masks, view: View, seed: int):
        self.names, self.pairs = list(pairs), list(pairs.values())
        self.masks, self.view, self.seed = masks, view, seed
        self._reported: set[Path] = set()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, draw: Draw) -> Sample:
        """The sample as it looks in an epoch.

        Raises:
            TinymimError: neither the pair nor any of those after it can be read, or a mask holds no classes.
        """
        image, mask = self._read(draw.index)
        return {**self.view(image, mask, stream(self.seed, *draw)), "index": draw.index}

    def _read(self, index: int) -> tuple[Image.Image, Mask]:
        attempts = min(ATTEMPTS, len(self))
        for step in range(attempts):
            path, beside = self.pairs[(index + step) % len(self)]
            try:
                image, mask = read_rgb(str(path)), self.masks.read(beside)
                if image.size != mask.shape[::-1]:
                    raise ValueError(
                        f"its mask has {mask.shape[1]}x{mask.shape[0]} pixels, it {image.width}x{image.height}"
                    )
                return image, mask
            except TinymimError:
                raise
            except Exception as error:  # decoders raise all sorts on broken files, and none may end a long run
                if path not in self._reported:
                    self._reported.add(path)
                    log.warning("skipping %s: %s: %s", path, type(error).__name__, error)
        raise TinymimError(f"data.root: {attempts} images in a row cannot be read with their masks, up to {path}")


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
    """

    num_classes = None
    bank = None
    held_out: SegmentationFiles

    def __init__(
        self,
        root: str | None = None,
        image_size: int = 512,
        batch_size: int = 16,
        num_workers: int = 4,
        seed: int = 0,
        classes: int = 150,
        zero_unlabelled: bool = True,
        scale: tuple[int, int] = (2048, 512),
        ratio: tuple[float, float] = (0.5, 2.0),
        most: float = 0.75,
        flip: bool = True,
        distort: bool = True,
    ):
        super().__init__(image_size, batch_size, num_workers, seed)
        self.root, self.mask_classes, self.scale, self.ratio = root, classes, scale, ratio
        self.most, self.flip, self.distort = most, flip, distort
        self.masks, self.first_class = Masks(classes, zero_unlabelled), int(zero_unlabelled)

    def problems(self) -> list[str]:
        """A folder that is not there, images without masks, masks without images, and values out of range."""
        checks = [
            (self.image_size >= 1, "image_size", self.image_size, "a positive number of pixels"),
            (1 < self.masks.classes <= 255, "classes", self.masks.classes, "a number of classes from 2 to 255"),
            (min(self.scale) >= 1, "scale", list(self.scale), "two sides in pixels"),
            (0 < self.ratio[0] <= self.ratio[1], "ratio", list(self.ratio), "two factors, 0 < least <= greatest"),
            (0 < self.most <= 1, "most", self.most, "a share above 0, to 1"),
        ]
        found = super().problems()
        found += [f"data.{field}: {value} is not {right}" for good, field, value, right in checks if not good]
        for part in ("training", "validation"):
            try:
                self._pairs(part)
            except TinymimError as error:
                found.append(str(error))
        return list(dict.fromkeys(found))

    def _pairs(self, part: str) -> dict[str, tuple[Path, Path]]:
        """Images and masks, by name and in that order.

        Raises:
            TinymimError: no such folders, or names that do not match.
        """
        if self.root is None:
            what = "a folder with images/ and annotations/, each with training/ and validation/, as ADE20K has"
            raise TinymimError(f"data.root is not set: give --data.root FOLDER, {what}")
        images, masks = (Path(self.root).expanduser() / kind / part for kind in ("images", "annotations"))
        if absent := [str(folder) for folder in (images, masks) if not folder.is_dir()]:
            raise TinymimError(f"data.root: there is no {' and no '.join(absent)}")
        pictures = _by_stem(image_files(str(images)))
        marks = _by_stem(name for name in image_files(str(masks)) if name.lower().endswith(".png"))
        for what, alone in (
            (f"in {images} have no PNG of the same name in {masks}", pictures.keys() - marks.keys()),
            (f"in {masks} have no image of the same name in {images}", marks.keys() - pictures.keys()),
        ):
            if alone:
                raise TinymimError(f"data.root: {len(alone)} files {what}, such as {', '.join(sorted(alone)[:3])}")
        if not pictures:
            raise TinymimError(f"data.root: no images in {images}")
        return {stem: (images / pictures[stem], masks / marks[stem]) for stem in sorted(pictures)}

    def prepare(self) -> None:
        """List the files.

        Raises:
            TinymimError: there are :meth:`problems`.
        """
        if found := self.problems():
            raise several("the data cannot be used", found)
        crop = CropView(self.image_size, self.scale, self.ratio, self.most, self.flip, self.distort)
        self.train = SegmentationFiles(self._pairs("training"), self.masks, crop, self.seed)
        self.held_out = SegmentationFiles(self._pairs("validation"), self.masks, WholeView(self.scale), self.seed)
        say(
            f"{self.root}: {len(self.train)} images to train on, {len(self.held_out)} held out; "
            f"{self.mask_classes} classes of pixels"
        )

    def name_of(self, index: int) -> str:
        """That of the image, without ending."""
        return self.held_out.names[index]

    def _in_turn(self, dataset: Any) -> DataLoader[Sample]:
        return self._loader(dataset, InTurn(len(dataset), *self._place()), batch_size=1)


def _by_stem(names: Iterable[str]) -> dict[str, str]:
    return {name.rpartition(".")[0]: name for name in names}
