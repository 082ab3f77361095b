"""Images of one size in memory as bytes: small ones are cropped a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from typing_extensions import override

from tinymim.data.batch_crop import few_weights, resized_crops
from tinymim.data.data_module import Sample
from tinymim.data.datasets import ImageDataset
from tinymim.data.device_augment import colours, crop_box, erased_box, finished
from tinymim.data.repeated import content_hash
from tinymim.data.sampled_pixels import pixels_hash
from tinymim.data.sampler import Draw
from tinymim.data.transforms import PlainView, TrainView
from tinymim.seeds import stream


@dataclass(eq=False, repr=False, kw_only=True)
class ArrayImages(ImageDataset):
    """Images in an array; ``rows`` are places in it.

    Args:
        pixels: ``(N, H, W)``, grey, or ``(N, H, W, 3)``, uint8: one block of memory that forked workers share.
    """

    pixels: NDArray[np.uint8]
    _pixel_hash: list[str] = field(default_factory=list, init=False)

    @override
    def name(self, index: int) -> str:
        return f"{self.source}: image {self.rows[index]}"

    @override
    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[self.rows[index]])

    @override
    def contents(self) -> list[Any]:
        if not self._pixel_hash:  # shared by all that was chosen from these images
            self._pixel_hash.append(content_hash(self.pixels))
        return [self._pixel_hash[0], self.rows]

    def sampled(self) -> str:
        """Hash of some images' pixels."""
        return pixels_hash(self)

    @torch.autocast("cpu", enabled=False)
    def __getitems__(self, draws: list[Draw]) -> list[Sample]:
        """A batch at once, as PyTorch's loader asks where it can: the samples that :meth:`__getitem__` gives."""
        height, width = self.pixels.shape[1:3]
        view = self.view
        if not (few_weights(height, view.image_size) and few_weights(width, view.image_size)):  # type: ignore[attr-defined]
            return [self[draw] for draw in draws]
        indices = [draw.index for draw in draws]
        images = self.pixels[self.rows[indices]]
        if isinstance(view, TrainView) and view.augment is None:
            views = self._training_views(images, draws, view)
        elif isinstance(view, PlainView) and view.shorter >= view.image_size and height == width:
            views = {"image": _plain(images, view)}
        else:
            return [self[draw] for draw in draws]
        columns: dict[str, Any] = {"index": indices}
        if self.labels is not None:
            columns["label"] = self.labels[indices].tolist()
        if self.repeats:
            columns["view"] = [self.repeats.tag(draw, draw.index) for draw in draws]
        drawn = views.pop("draws", {})
        columns |= {name: batch.unbind(0) for name, batch in views.items()}
        samples = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        for name, batch in drawn.items():
            for sample, row in zip(samples, batch, strict=True):
                sample.setdefault("draws", {})[name] = row
        return samples

    def _training_views(self, images: NDArray[np.uint8], draws: list[Draw], view: TrainView) -> dict[str, Any]:
        """The views of :class:`TrainView`, each from its own sample's random numbers, drawn in the same order."""
        size = (images.shape[2], images.shape[1])
        boxes, flips, changes, erased = [], [], [], []
        for draw in draws:
            sample_rng = stream(self.seed, *draw)
            rng = self.repeats.stream(draw, draw.index) if self.repeats else sample_rng
            boxes.append(crop_box(rng, size, view.scale))
            flips.append(view.flip and rng.random() < 0.5)
            if view.color_jitter:
                changes.append(colours(sample_rng, view.color_jitter))
            if view.random_erasing:
                erased.append(erased_box(rng, view.image_size, view.random_erasing))
        crops = resized_crops(images, np.array(boxes), view.image_size)
        flipped = torch.tensor(flips)
        crops[flipped] = crops[flipped].flip(-1)
        crops = crops.expand(-1, 3, -1, -1)
        drawn = {name: np.stack(rows) for name, rows in (("colours", changes), ("erased", erased)) if rows}
        if view.device_augment or not drawn:
            return {"image": crops, "draws": drawn}
        batch = finished({"image": crops, "draws": {name: torch.from_numpy(rows) for name, rows in drawn.items()}})
        return {name: (255 * floats).round().to(torch.uint8) for name, floats in batch.items()}


def _plain(images: NDArray[np.uint8], view: PlainView) -> Tensor:
    """The views of :class:`PlainView` of square images."""
    whole = np.tile([0, 0, images.shape[2], images.shape[1]], (len(images), 1))
    first = round((view.shorter - view.image_size) / 2)
    inside = slice(first, first + view.image_size)
    return resized_crops(images, whole, view.shorter)[..., inside, inside].expand(-1, 3, -1, -1)
