"""Data sets that a Python program has opened itself: PyTorch's map-style ones, torchvision's, Hugging Face's."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset, TensorDataset
from typing_extensions import override

from tinymim.data import opened
from tinymim.data.array_images import ArrayImages
from tinymim.data.datasets import ImageDataset
from tinymim.data.image_data import ViewedData
from tinymim.data.open_image import open_image
from tinymim.data.repeated import content_hash
from tinymim.data.sampled_pixels import pixels_hash_if_fixed
from tinymim.data.torchvision_images import labels_of, pixels_of
from tinymim.errors import TinymimError, several

SAMPLED = 64
"""Images by which a run that goes on knows those of a tensor."""


@dataclass(eq=False, repr=False, kw_only=True)
class ObjectImages(ImageDataset):
    """Images that a data set of the program gives; ``rows`` are its numbers.

    Args:
        opened: what has them, at ``opened[number]``: an image, or a tuple or a dictionary with one.
    """

    opened: Any

    @override
    def name(self, index: int) -> str:
        return f"{self.source}: image {self.rows[index]}"

    @override
    def image(self, index: int) -> Image.Image:
        return picture(self.opened[int(self.rows[index])])

    @override
    def places(self) -> list[Any]:
        return [len(self.opened), self.rows]

    def sampled(self) -> str | None:
        """Hash of some images, evenly spread: up to :data:`SAMPLED` that the set holds as one tensor or array, fewer
        that it has to open; ``None`` where it gives others each time."""
        held = self.opened.tensors[0] if type(self.opened) is TensorDataset else self.opened
        if not isinstance(held, Tensor | np.ndarray):
            return pixels_hash_if_fixed(self)
        some = self.rows[np.linspace(0, len(self.rows) - 1, min(SAMPLED, len(self.rows))).astype(int)]
        pixels = torch.stack([torch.as_tensor(held[int(row)]).cpu() for row in some])
        return content_hash([str(held.dtype), *held.shape[1:]], pixels.contiguous().view(torch.uint8).numpy())


class ObjectData(ViewedData):
    """A data set that the running program has opened: ``len`` and numbers, as of ``torch.utils.data.Dataset``.

    An item is an image, or a tuple or list that begins with one, or a dictionary with an ``image``: Pillow's, or an
    array ``(H, W)`` or ``(H, W, 3)`` of bytes, or a tensor ``(3, H, W)`` of bytes or of values in [0, 1]. Crops and
    flips are this project's, so torchvision's ``transform`` of the set is left out. Labels are its ``targets`` or
    ``labels``, names of classes its ``classes``.

    Args:
        dataset: name of the data set, from :func:`tinymim.data.opened.name_of`.
        val_dataset: name of the one that is held out; ``None`` holds a fraction of the other out.
        options: of :class:`ViewedData`.
    """

    def __init__(self, dataset: str = "", val_dataset: str | None = None, **options: Any):
        super().__init__(**options)
        self.dataset, self.val_dataset = dataset, val_dataset

    @property
    def repeatable(self) -> bool:  # type: ignore[override]  # of a data set, not of a class
        """Whether it holds its images, as bytes; of others nothing says that they are the same again."""
        dataset = opened.find(self.dataset)
        return dataset is not None and pixels_of(getattr(dataset, "data", None), len(dataset)) is not None

    @override
    def problems(self) -> list[str]:
        errors = [
            error
            for field, name in (("dataset", self.dataset), ("val_dataset", self.val_dataset))
            if name is not None and (error := opened.error(field, name))
        ]
        return [*errors, *super().problems()]

    @override
    def prepare(self) -> None:
        if problems := self.problems():
            raise several("the data cannot be used", problems)
        train, labels = self._images(self.dataset)
        held_out, held_labels = self._images(self.val_dataset) if self.val_dataset else (None, None)
        if labels is not None and len(np.unique(labels)) > 1:
            self.classes = _classes(opened.find(self.dataset), labels)
            train.labels = labels
            if held_out is not None:
                if held_labels is None or held_labels.max() >= len(self.classes):
                    raise TinymimError("data.val_dataset: it has no labels, or other classes than the training images")
                held_out.labels = held_labels
        self.divide(train, held_out, "dataset", "it has neither targets nor labels, or all are the same")

    def _images(self, name: str) -> tuple[ImageDataset, NDArray[np.int64] | None]:
        dataset = opened.find(name)
        source, rows = type(dataset).__name__, np.arange(len(dataset))
        pixels = pixels_of(getattr(dataset, "data", None), len(rows))
        if pixels is not None:
            images: ImageDataset = ArrayImages(source, rows, None, self.plain(), pixels=pixels)
        else:
            images = ObjectImages(source, rows, None, self.plain(), opened=plain(dataset))
        return images, numbers_of(dataset)


def numbers_of(dataset: Any) -> NDArray[np.int64] | None:
    """Number of each image's class, ``(M,)``; ``None`` where the data set does not say, or some have none."""
    if isinstance(dataset, Subset):
        numbers = numbers_of(dataset.dataset)
        return None if numbers is None else numbers[np.asarray(dataset.indices)]
    return labels_of(dataset)


def plain(dataset: Any) -> Any:
    """The data set without torchvision's ``transform``, which would augment before this project does."""
    if isinstance(dataset, Subset):
        return Subset(plain(dataset.dataset), dataset.indices)
    if not any(getattr(dataset, name, None) for name in ("transform", "transforms")):
        return dataset
    dataset = copy.copy(dataset)
    dataset.transform = dataset.transforms = None
    return dataset


def picture(item: Any) -> Image.Image:
    """The image of an item of a data set.

    Raises:
        TinymimError: it is none.
    """
    value = (
        item.get("image")
        if isinstance(item, dict)
        else next(iter(item), None)
        if isinstance(item, tuple | list)
        else item
    )
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, str | bytes):
        return open_image(value)
    given = value
    if isinstance(value, Tensor) and value.ndim in (2, 3):
        value = value.permute(1, 2, 0).squeeze(-1).numpy() if value.ndim == 3 else value.numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size and _is_form(value):
        if np.isnan(value).any():
            raise TinymimError("data: an image has values that are no numbers (nan); give floats in [0, 1]")
        if value.min() < 0 or value.max() > 1:
            raise TinymimError(
                f"data: an image with values from {value.min():.3g} to {value.max():.3g}, and floats are to be in "
                "[0, 1]; leave Normalize out, as each network normalises by itself"
            )
        value = np.rint(value * 255).astype(np.uint8)
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.size and _is_form(value):
        return Image.fromarray(value.reshape(value.shape[:2]) if value.shape[2:] == (1,) else value)
    if given is None:
        what = "has no 'image'" if isinstance(item, dict) else "holds None"
        raise TinymimError(f"data: an item {what}; give images alone, first in a tuple, or under 'image'")
    kind = str(getattr(given, "dtype", "")).removeprefix("torch.")
    shape = f" of {kind} {tuple(given.shape)}" if hasattr(given, "shape") else ""
    raise TinymimError(
        f"data: an item holds {type(given).__name__}{shape} where an image belongs: Pillow's, bytes (H, W, 3), or a "
        "tensor (3, H, W)"
    )


def _is_form(value: NDArray[Any]) -> bool:
    """Whether an array has the shape of an image, channels last."""
    return value.ndim in (2, 3) and value.shape[2:] in ((), (1,), (3,))


def _classes(dataset: Any, labels: NDArray[np.int64]) -> list[str]:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    names = [str(name) for name in getattr(dataset, "classes", None) or []]
    count = int(labels.max()) + 1
    return names if len(names) >= count else [str(number) for number in range(count)]
