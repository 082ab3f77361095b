"""Judge of written networks: the same held-out images through each of them, and what their features and classes are
worth."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tinymim.data import ImageFolderData
from tinymim.data.data_module import ImageData
from tinymim.data.datasets import ImageDataset
from tinymim.data.device_augment import finished
from tinymim.data.image_data import ViewedData
from tinymim.data.image_files import evenly, image_files
from tinymim.data.listed_images import ListedImages
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError, several
from tinymim.evaluation.few_images import few_images
from tinymim.evaluation.knn import knn_top1
from tinymim.teachers.provenance import run_name
from tinymim.training import data_source, inspection, named_data
from tinymim.training.run_folder import RECIPE

Run = Callable[[Tensor], dict[str, Tensor]]
"""A network: ``features`` ``(B, D)`` and perhaps ``logits`` ``(B, classes)`` of ``(B, 3, S, S)`` images in [0, 1]."""

QUERIES, BANK, BATCH = 500, 1000, 50

LEAST = 20
"""Held-out images on which a loss is decided, at least: where none of 20 changes, 3 in 20 of others may (95 %)."""

HELD_OUT = 0.02
"""Share of a folder's images that is held out where they are many, as by default in a training."""


@dataclass
class Reading:
    """What a network gave for the held-out images: ``(Q, D)`` features, and what they are worth, by name."""

    features: Tensor
    figures: dict[str, float] = field(default_factory=dict)

    def cosine(self, other: Reading) -> float:
        """Mean cosine of the features and those of another network, image by image."""
        return float(F.cosine_similarity(self.features, other.features, dim=-1).mean())


@dataclass
class Judge:
    """Held-out images, spread evenly, and labelled training images as their neighbours.

    Args:
        what: the data, in words.
        data: set up.
        queries: most held-out images.
        bank: most neighbours.
    """

    what: str
    data: ImageData
    queries: int = QUERIES
    bank: int = BANK

    def __post_init__(self) -> None:
        self._held = self.data.held_out or self.data.train
        self._bank = self.data.bank
        train = self.data.train
        self._known = self._bank or self._held
        if self._bank is None and isinstance(self.data, ViewedData) and isinstance(train, ImageDataset):
            self._known = train.some(np.arange(len(train)), self.data.plain())

    def calibration(self, count: int) -> Iterator[Tensor]:
        """Training images as they are evaluated, a batch at a time: no held-out image, where any are held out."""
        for batch, _ in self._batches(self._known, count):
            yield batch

    def calibrates_on(self, count: int) -> int:
        """Number of images that :meth:`calibration` has of so many."""
        return min(count, len(cast(Sized, self._known)))

    @property
    def judges_on(self) -> int:
        """Number of held-out images that :meth:`read` reads."""
        return min(self.queries, len(cast(Sized, self._held)))

    def few(self) -> str:
        """The line on shares of few held-out images, see :func:`few_images`; empty where they are enough."""
        return few_images(self.judges_on, self.data.num_classes)

    def check(self, name: str, classes: int | None, otherwise: str) -> None:
        """Raise where a network has a classifier of other classes than the data; the message has what to do
        ``otherwise``."""
        of_data = self.data.num_classes
        if classes and of_data and classes != of_data:
            raise TinymimError(
                f"data: {self.what} has {of_data} classes, and the classifier of {name} {classes}; give the images "
                f"that it was fine-tuned on, or {otherwise}"
            )

    def read(self, run: Run) -> Reading:
        """The held-out images through a network: its features, and its 10-NN and top-1 where there are labels."""
        queries, logits, labels = self._outputs(run, self._held, self.queries)
        reading = Reading(queries)
        if labels is None:
            return reading
        if self._bank is not None:
            bank, _, of_bank = self._outputs(run, self._bank, self.bank)
            if of_bank is not None:
                reading.figures["10-NN"] = knn_top1(bank, of_bank, queries, labels)
        if logits is not None:
            reading.figures["top-1"] = float((logits.argmax(-1) == labels).float().mean())
        return reading

    def _outputs(self, run: Run, images: Any, count: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        outputs, labels = [], []
        for batch, batch_labels in self._batches(images, count):
            outputs.append(run(batch))
            labels += [] if batch_labels is None else [batch_labels]
        joined = {name: torch.cat([output[name].float() for output in outputs]) for name in outputs[0]}
        return joined["features"], joined.get("logits"), torch.cat(labels) if labels else None

    def _batches(self, images: Any, count: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        chosen = evenly(len(cast(Sized, images)), count)
        for start in range(0, len(chosen), BATCH):
            samples = [images[Draw(0, index)] for index in chosen[start : start + BATCH]]
            batch = finished({"image": torch.stack([sample["image"] for sample in samples])})["image"]
            labels = [sample["label"] for sample in samples if "label" in sample]
            yield batch, torch.tensor(labels) if labels else None


def find(source: str, size: int, trust: bool = False, run: Path | None = None) -> Judge:
    """The images of a folder, of ``digits`` or ``shapes``, or of a recipe; where ``run`` trained on the same ones, held
    out are those that it held out, as others would be images that it has seen. Of another folder without val/, held
    out are :data:`LEAST` or, if that is more, :data:`HELD_OUT`; half of fewer than twice as many.

    Args:
        source: as the command line names it.
        size: side they are read in, in pixels.
        trust: a recipe's data may be of any class, and so may the run's.
        run: folder of the run that the judged network is of.

    Raises:
        TinymimError: nothing of that name, or no image there, or a single one.
    """
    if source not in data_source.BUILT_IN and Path(source).is_dir():
        data: ImageData = ImageFolderData(source, image_size=size, num_workers=0, held_out=_share(source, size))
        if problems := data.problems():
            raise several(f"data: {source} cannot be used", problems)
    else:
        data, _ = named_data.find(source, size, trust)
    what = source
    if run and (divided := _as_divided(run, data, size, trust)):
        data, what = divided, f"{source}, divided as in run {run_name(run.absolute())}"
    data.setup("test")
    return Judge(what, data)


def _share(folder: str, size: int) -> float:
    """The share of a folder's images that is held out, where it holds none out itself.

    Raises:
        TinymimError: a single image, or few, none of which can be read.
    """
    names = sorted(islice(image_files(folder), round(LEAST / HELD_OUT)))
    listed = ListedImages(folder, names, size)
    if names and len(names) < 2 * LEAST and all(isinstance(listed[index][1], str) for index in range(len(names))):
        raise TinymimError(f"data: no image of {folder} can be read; {names[0]}: {listed[0][1]}")
    if len(names) == 1:
        raise TinymimError(f"data: {folder} has one image, and some are held out of the others; give two or more")
    return max(HELD_OUT, min(0.5, LEAST / max(len(names), 1)))


def _as_divided(run: Path, data: ImageData, size: int, trust: bool) -> ImageData | None:
    """The data module of a run with its seed and shares of the split, not set up; ``None`` where its images are others
    than those of ``data``, or it cannot be built here."""
    try:
        recipe = inspection.read(run / RECIPE, "data")
        its: ImageData = inspection.data(recipe, trust, "data", image_size=size, num_workers=0)
        same = type(its) is type(data) and _set(its) == _set(data)
        return its if same and not its.problems() else None
    except TinymimError:  # the run's data are nobody's concern but where they are these
        return None


def _set(data: ImageData) -> tuple[str, Any]:
    return os.path.realpath(data.source()), getattr(data, "dataset", None)
