"""Handwritten digits, 1797 real images of 8x8 pixels that lie beside this file, so that the demo needs no download.

``digits.npz`` is the set that scikit-learn brings, the test part of UCI's "Optical Recognition of Handwritten Digits"
(E. Alpaydin and C. Kaynak, 1998, doi 10.24432/C50P49, CC BY 4.0): ``images`` ``(1797, 8, 8)`` from 0 to 16, ``labels``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from tinymim.data.data_module import Sample
from tinymim.data.image_data import SubsetData
from tinymim.data.repeated import Repeats, content_hash
from tinymim.data.sampler import Draw
from tinymim.data.stratified import stratified
from tinymim.data.transforms import wrong_values
from tinymim.seeds import stream

FILE = Path(__file__).with_name("digits.npz")


@dataclass(eq=False, repr=False)
class Digits(Dataset[Sample]):
    """Digits upscaled once; augmentation is one affine map a sample, applied to a whole batch together.

    Args:
        images: ``(M, 3, S, S)`` in [0, 1].
        labels: ``(M,)`` from 0 to 9.
        seed: of the augmentation; ``None`` turns it off.
        strength: of the augmentation, 1 at most.
    """

    images: Tensor
    labels: Tensor
    seed: int | None = None
    strength: float = 1.0
    repeats: Repeats | None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: Draw) -> Sample:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: list[Draw]) -> list[Sample]:
        """A batch at once, as PyTorch's loader asks where it can."""
        index = torch.tensor([draw.index for draw in draws])
        images = self.images[index]
        if self.seed is not None:
            maps = np.stack([_affine(self._stream(draw), self.strength) for draw in draws])
            grid = F.affine_grid(torch.from_numpy(maps).float(), list(images.shape), align_corners=False)
            images = F.grid_sample(images, grid, align_corners=False)
        samples = [
            {"image": image, "label": label, "index": i}
            for image, label, i in zip(images, self.labels[index], index, strict=True)
        ]
        if self.repeats:
            for sample, draw in zip(samples, draws, strict=True):
                sample["view"] = self.repeats.tag(draw, draw.index)
        return samples

    def _stream(self, draw: Draw) -> np.random.Generator:
        return self.repeats.stream(draw, draw.index) if self.repeats else stream(self.seed or 0, *draw)

    def identity(self) -> dict[str, Any]:
        """All that determines the views, but for their seed: plain values."""
        contents = content_hash(self.images[:, 0].numpy())  # the three channels are one
        return {"set": "digits", "contents": contents, "augmentation": None if self.seed is None else self.strength}


def _affine(rng: np.random.Generator, strength: float) -> np.ndarray:
    """A 2x3 map: rotation to 15 degrees, shear to 0.15, scale 0.85 to 1.15, shift to a tenth of the image, each times
    ``strength``."""
    angle, shear, scale, dx, dy = strength * rng.uniform(-1, 1, size=5)
    turn = math.radians(15 * angle)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    linear = rotation @ np.array([[1, 0.15 * shear], [0, 1]]) * (1 + 0.15 * scale)
    return np.concatenate([linear, [[0.2 * dx], [0.2 * dy]]], axis=1)


class DigitsData(SubsetData):
    """UCI's handwritten digits, as scikit-learn has them, split by class into training and held-out images.

    Args:
        held_out: fraction kept from training.
        split_seed: of the split, which stays the same whatever ``seed`` is.
        augmentation: its strength, from 0 to 1.
        options: of :class:`SubsetData`; images are upscaled to ``image_size``.
    """

    num_classes = 10
    needs_workers = False

    def __init__(self, held_out: float = 0.2, split_seed: int = 0, augmentation: float = 1.0, **options: Any):
        super().__init__(**options)
        self.held_out_fraction, self.split_seed, self.augmentation = held_out, split_seed, augmentation

    @override
    def problems(self) -> list[str]:
        problems = super().problems() + wrong_values(
            held_out=(0.01 <= self.held_out_fraction <= 0.99, self.held_out_fraction, "a fraction from 0.01 to 0.99"),
            augmentation=(0 <= self.augmentation <= 1, self.augmentation, "a strength from 0 to 1"),
        )
        if self.image_size < 8:
            problems.append(f"data.image_size: {self.image_size} is less than the digits' own 8 pixels")
        return problems

    @override
    def prepare(self) -> None:
        with np.load(FILE, allow_pickle=False) as file:
            pixels, digits = file["images"], file["labels"].astype(np.int64)
        train, held_out = stratified(digits, self.held_out_fraction, self.split_seed)
        train, chosen = self.choose(train, digits, self.split_seed)
        held_out = held_out if chosen is None else chosen
        size = [self.image_size, self.image_size]
        # Upscaled once: the whole set is in memory, and three channels are views of one.
        small = torch.from_numpy(pixels).float().div(16).unsqueeze(1)
        images = F.interpolate(small, size=size, mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)
        labels = torch.from_numpy(digits)
        self.train = Digits(images[train], labels[train], self.seed, self.augmentation)
        self.bank = Digits(images[train], labels[train])
        self.held_out = Digits(images[held_out], labels[held_out])
