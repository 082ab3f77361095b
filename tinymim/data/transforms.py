"""From an image file to the views a network sees: float tensors ``(3, H, W)`` in [0, 1], not normalised."""

from __future__ import annotations

from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

# ImageNet's, for augmentations that need a typical colour; nothing is normalised with them here.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def read_rgb(source: str | IO[bytes]) -> Image.Image:
    """Decode an image of any mode to 8-bit RGB.

    Alpha is dropped and EXIF orientation is not applied, as torchvision and timm have it.

    Raises:
        Exception: on a broken file, of many types: ``OSError``, ``SyntaxError``, ``DecompressionBombError`` and others.
    """
    with Image.open(source) as image:
        if image.mode == "I" or image.mode.startswith("I;16"):
            # Pillow would clip 16-bit grey at 255, which turns nearly every such image white.
            grey = np.clip(np.asarray(image, dtype=np.float32) / 257, 0, 255).round().astype(np.uint8)
            return Image.fromarray(grey).convert("RGB")
        if image.mode == "P":
            return image.convert("RGBA").convert("RGB")  # straight to RGB warns about transparent palettes
        return image.convert("RGB")


class TrainView:
    """A random crop, perhaps flipped: ``image``; and perhaps ``jittered``, that crop in other colours for the student.

    Everything random comes from the global generators (torch's, NumPy's and Python's), for the caller to seed. Colours
    are drawn after crop, flip and RandAugment, so that ``image`` is the same with jitter and without.

    Args:
        image_size: side of the views, in pixels.
        scale: least and greatest share of the image's area in the crop.
        flip: mirror half of the crops.
        color_jitter: strength of brightness, contrast and saturation in ``jittered`` (TinyMIM: 0.4); 0 leaves it out.
        rand_augment: timm's description, such as ``rand-m9-mstd0.5-inc1`` (fine-tuning); both views have it.
        random_erasing: probability of filling a box with noise (fine-tuning: 0.25); both views have the same box.
    """

    def __init__(
        self,
        image_size: int,
        scale: tuple[float, float] = (0.2, 1.0),
        flip: bool = True,
        color_jitter: float = 0.0,
        rand_augment: str | None = None,
        random_erasing: float = 0.0,
    ):
        self.crop = v2.RandomResizedCrop(
            image_size, scale=tuple(scale), interpolation=v2.InterpolationMode.BICUBIC, antialias=True
        )
        self.flip = v2.RandomHorizontalFlip(0.5) if flip else None
        self.augment = rand_augment_of(rand_augment, image_size) if rand_augment else None
        self.jitter = v2.ColorJitter(color_jitter, color_jitter, color_jitter) if color_jitter else None
        self.erase = v2.RandomErasing(random_erasing, value="random") if random_erasing else None

    def __call__(self, image: Image.Image) -> dict[str, Tensor]:
        """Views of an RGB image: ``image`` and, with jitter, ``jittered``, each ``(3, image_size, image_size)``."""
        view = self.crop(image)
        if self.flip:
            view = self.flip(view)
        if self.augment:
            view = self.augment(view)
        names, views = ["image"], [_tensor(view)]
        if self.jitter:
            names.append("jittered")
            views.append(_tensor(self.jitter(view)))
        if self.erase:
            # As timm's "pixel" mode, whose noise is standard normal once normalised; stacked, the views share the box.
            mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
            erased = self.erase((torch.stack(views) - mean) / std)
            views = list((erased * std + mean).clamp(0, 1))
        return dict(zip(names, views, strict=True))


class PlainView:
    """The centre of an image, as ImageNet is evaluated: shorter side to ``image_size * 256 / 224``, then a square crop.

    Args:
        image_size: side of the view, in pixels.
    """

    def __init__(self, image_size: int):
        self.resize = v2.Resize(
            [round(image_size * 256 / 224)], interpolation=v2.InterpolationMode.BICUBIC, antialias=True
        )
        self.crop = v2.CenterCrop([image_size, image_size])

    def __call__(self, image: Image.Image) -> dict[str, Tensor]:
        """``image`` ``(3, image_size, image_size)`` of an RGB image."""
        return {"image": _tensor(self.crop(self.resize(image)))}


def rand_augment_of(description: str, image_size: int) -> Any:
    """timm's RandAugment on PIL images, with the settings timm's own training gives it.

    Raises:
        Exception: of several types, where timm cannot read the description.
    """
    from timm.data.auto_augment import rand_augment_transform  # most of a second, and only fine-tuning needs it

    return rand_augment_transform(
        description,
        {
            "translate_const": int(image_size * 0.45),
            "img_mean": tuple(round(255 * channel) for channel in MEAN),
            "interpolation": Image.Resampling.BICUBIC,
        },
    )


def view_problems(
    image_size: int,
    scale: tuple[float, float],
    color_jitter: float,
    rand_augment: str | None,
    random_erasing: float,
) -> list[str]:
    """Which of :class:`TrainView`'s arguments are out of range, as ``data.FIELD: value is not ...``."""
    least, most = scale
    checks = [
        (image_size >= 1, "image_size", image_size, "a positive number of pixels"),
        (0 < least <= most <= 1, "scale", [least, most], "two shares of the area, 0 < least <= greatest <= 1"),
        (color_jitter >= 0, "color_jitter", color_jitter, "a strength of 0 (off) or more"),
        (0 <= random_erasing <= 1, "random_erasing", random_erasing, "a probability from 0 to 1"),
    ]
    found = [f"data.{field}: {value} is not {right}" for good, field, value, right in checks if not good]
    if rand_augment:
        try:
            rand_augment_of(rand_augment, image_size)
        except Exception:  # timm asserts, or fails wherever the parts lead it
            right = "a description that timm reads, such as rand-m9-mstd0.5-inc1"
            found.append(f"data.rand_augment: {rand_augment!r} is not {right}")
    return found


def _tensor(image: Image.Image) -> Tensor:
    # NumPy, as torch wakes its threads for every image, which on a busy machine takes longer than all the rest.
    planes = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")
    return torch.from_numpy(planes / np.float32(255))
