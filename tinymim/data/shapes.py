"""Coloured shapes made on the fly: any number of labelled images at any resolution, and what is where in each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from tinymim.data.data_module import Sample
from tinymim.data.image_data import SubsetData
from tinymim.data.repeated import Repeats
from tinymim.data.sampler import Draw
from tinymim.data.scenes import COLORS, KINDS, MOST, RenderedScene, Scene, box, render, scene
from tinymim.data.transforms import wrong_values
from tinymim.seeds import stream

Label = Literal["shape", "color", "shape_color"]

CLASSES: dict[str, tuple[str, ...]] = {
    "shape": KINDS,
    "color": COLORS,
    "shape_color": tuple(f"{color} {kind}" for kind in KINDS for color in COLORS),
}
MASK_CLASSES = ("ground", *KINDS)


@dataclass(eq=False)
class Shapes(Dataset[Sample]):
    """Scenes of one set, drawn when asked for; augmentation looks at the scene through a smaller window, so that masks
    and targets stay exact.

    Args:
        scenes: indices of the scenes.
        targets: add ``targets``.
        seed: of the augmentation; ``None`` turns it off.
        scale: least and greatest share of the area in a window; the main shape's centre always is in it. The others are
            as :class:`ShapesData`'s.
    """

    scenes: range
    set_seed: int
    image_size: int
    label: Label = "shape"
    masks: bool = False
    targets: bool = False
    depth: bool = False
    seed: int | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    repeats: Repeats | None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.scenes)

    @torch.autocast("cpu", enabled=False)
    def __getitem__(self, draw: Draw) -> Sample:
        """``image``, ``index``, ``label``; perhaps ``mask`` and ``depth``, both ``(S, S)``, and ``targets`` (see
        :func:`targets_of`)."""
        shown = self.scene(draw)
        picture = render(shown, self.image_size)
        pixels = picture.image.transpose(2, 0, 1).astype(np.float32, order="C") / np.float32(255)
        sample: Sample = {"image": torch.from_numpy(pixels), "index": draw.index, "label": self._label(shown)}
        if self.masks:
            sample["mask"] = torch.from_numpy(picture.mask)
        if self.targets:
            sample["targets"] = targets_of(shown, picture)
        if self.depth:
            sample["depth"] = torch.from_numpy(picture.depth)
        if self.repeats is not None:
            sample["view"] = self.repeats.tag(draw, draw.index)
        return sample

    def identity(self) -> dict[str, Any]:
        """All that determines the views, but for their seed: plain values."""
        first, step = self.scenes.start, self.scenes.step  # how many there are changes none of them
        identity = {"set": "shapes", "set_seed": self.set_seed, "scenes": [first, step], "image_size": self.image_size}
        return identity if self.seed is None else {**identity, "scale": list(self.scale), "flip": self.flip}

    def scene(self, draw: Draw) -> Scene:
        """The scene that a sample shows in an epoch."""
        whole = scene(self.set_seed, self.scenes[draw.index])
        if self.seed is None:
            return whole
        rng = self.repeats.stream(draw, draw.index) if self.repeats else stream(self.seed, *draw)
        side = rng.uniform(*self.scale) ** 0.5
        main, mirrored = whole.shapes[0], self.flip and rng.random() < 0.5
        margin = min(main.size, side) / 2  # as much of the main shape as the window can hold
        x, y = (
            rng.uniform(max(0, centre - side + margin), min(1 - side, centre - margin)) for centre in (main.x, main.y)
        )
        return whole.seen_through(x, y, side, mirrored)

    def _label(self, shown: Scene) -> int:
        main = shown.shapes[0]
        labels = {"shape": main.kind, "color": main.color, "shape_color": main.kind * len(COLORS) + main.color}
        return labels[self.label]


def targets_of(scene: Scene, picture: RenderedScene) -> dict[str, Tensor]:
    """Rows of a scene's shapes that batch, the main one first: ``kind``, ``color`` (int64), ``x``, ``y``, ``size``,
    ``angle``, ``depth`` (float32; in shares of the side, and radians), each ``(6,)``, and ``box`` in pixels ``(6, 4)``.

    Shapes without a visible pixel are left out. Rows beyond the last have kind and colour -1, and zeros.
    """
    size = len(picture.image)
    seen = [shape for shape, pixels in zip(scene.shapes, picture.visible, strict=True) if pixels]
    targets = {name: torch.full((MOST,), -1) for name in ("kind", "color")}
    targets |= {name: torch.zeros(MOST) for name in ("x", "y", "size", "angle", "depth")}
    for name, column in targets.items():
        column[: len(seen)] = torch.tensor([getattr(shape, name) for shape in seen])
    boxes = torch.zeros(MOST, 4)
    boxes[: len(seen)] = torch.tensor([box(shape, size) for shape in seen]).view(-1, 4)
    return {**targets, "box": boxes}


class ShapesData(SubsetData):
    """Coloured shapes, one of them the largest, on textured grounds; no file is read, and scenes are the same at every
    size. ``fraction`` takes the first training images, and ``choice_split`` the last ones.

    Args:
        train_images: how many to train on; more of them leaves the first ones, and the held-out ones, as they were.
        held_out_images: how many to hold out.
        bank_size: training images that nearest neighbours are looked for in.
        set_seed: of the scenes, which stay the same whatever ``seed`` is.
        label: the class: the main shape's kind (``shape``, 8), its ``color`` (6) or both (``shape_color``, 48).
        scale: least and greatest share of the area that a training image shows.
        flip: mirror half of the training images.
        masks: each pixel's class beside the image, see :data:`MASK_CLASSES`.
        scene: each shape's kind, colour, place, size, angle, depth and box beside the image, see :func:`targets_of`.
        depth: the depth of the nearest shape at each pixel beside the image, from 0, near, to 1, which the ground has.
        options: of :class:`SubsetData`.
    """

    needs_workers = False

    def __init__(
        self,
        train_images: int = 10000,
        held_out_images: int = 1000,
        bank_size: int = 2000,
        set_seed: int = 0,
        label: Label = "shape",
        scale: tuple[float, float] = (0.4, 1.0),
        flip: bool = True,
        masks: bool = False,
        scene: bool = False,
        depth: bool = False,
        **options: Any,
    ):
        super().__init__(**options)
        self.train_images, self.held_out_images, self.bank_size = train_images, held_out_images, bank_size
        self.set_seed, self.label, self.scale, self.flip = set_seed, label, scale, flip
        self.masks, self.scene, self.depth = masks, scene, depth
        self.mask_classes = len(MASK_CLASSES) if masks else None
        self.box_classes = len(KINDS) if scene else None
        self.classes = CLASSES.get(label, ())
        self.num_classes = len(self.classes)

    @override
    def problems(self) -> list[str]:
        least, most = self.scale
        shares = "two shares of the area, 0 < least <= greatest <= 1"
        return super().problems() + wrong_values(
            image_size=(self.image_size >= 8, self.image_size, "8 pixels or more"),
            train_images=(self.train_images >= 1, self.train_images, "1 or more"),
            held_out_images=(self.held_out_images >= 1, self.held_out_images, "1 or more"),
            bank_size=(self.bank_size >= 1, self.bank_size, "1 or more"),
            label=(self.label in CLASSES, self.label, f"one of {', '.join(CLASSES)}"),
            scale=(0 < least <= most <= 1, list(self.scale), shares),
        )

    @override
    def prepare(self) -> None:
        # Training images have the numbers from 0 up, held-out ones those from -1 down.
        def shapes(scenes: range, seed: int | None = None) -> Shapes:
            options = (self.set_seed, self.image_size, self.label, self.masks, self.scene, self.depth)
            return Shapes(scenes, *options, seed, self.scale, self.flip)

        chosen = min(round(self.train_images * self.choice_split), self.train_images - 1)
        images = max(round((self.train_images - chosen) * self.fraction), 1)
        self.train = shapes(range(images), self.seed)
        self.bank = shapes(range(min(self.bank_size, images)))
        held_out = range(-1, -1 - self.held_out_images, -1)
        if chosen:
            held_out = range(self.train_images - chosen, self.train_images)
        self.held_out = shapes(held_out)
