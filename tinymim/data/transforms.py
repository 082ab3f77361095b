"""From an image file to the views a network sees: bytes ``(3, H, W)``, which a batch turns into floats in [0, 1]."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tinymim.data.decode import decoded, resized, resized_crop
from tinymim.data.device_augment import MEAN, colours, crop_box, erased_box, finished
from tinymim.data.open_image import rgb
from tinymim.seeds import seeded

STRIP = 4  # times as long as wide, from which on a plain view resizes no more than it shows


@dataclass
class TrainView:
    """A random crop, perhaps flipped: ``image``; and perhaps ``jittered``, that crop in other colours for the student.
    RandAugment and the erased box are the same in both.

    Colours are drawn after crop, flip and RandAugment, so that ``image`` is the same with jitter and without.

    Args:
        image_size: side of the views, in pixels; this and the others as :class:`tinymim.data.image_data.ViewedData`'s.
    """

    image_size: int
    scale: tuple[float, float] = (0.2, 1.0)
    flip: bool = True
    color_jitter: float = 0.0
    rand_augment: str | None = None
    random_erasing: float = 0.0
    device_augment: bool = False

    def __post_init__(self) -> None:
        self.augment = rand_augment_of(self.rand_augment, self.image_size) if self.rand_augment else None

    def identity(self) -> dict[str, Any]:
        """All that determines ``image``: plain values."""
        identity: dict[str, Any] = {"image_size": self.image_size, "scale": list(self.scale), "flip": self.flip}
        if self.random_erasing:  # whose noise differs by rounding where the device makes it
            identity |= {"random_erasing": self.random_erasing, "device_augment": self.device_augment}
        return {**identity, "rand_augment": self.rand_augment}

    def __call__(
        self, image: Image.Image, rng: np.random.Generator, own: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Views of an image, uint8, ``(3, image_size, image_size)`` each.

        Args:
            image: of any mode, best not decoded yet (:func:`tinymim.data.open_image.open_image`).
            rng: all that is random in ``image`` comes from it.
            own: the colours of ``jittered`` come from it; ``None`` takes them from ``rng`` too.

        Returns:
            ``image`` and, with jitter, ``jittered``; or ``image`` and what was drawn, ``draws``.
        """
        view = resized_crop(image, crop_box(rng, image.size, self.scale), self.image_size)
        if self.flip and rng.random() < 0.5:
            view = view.flip(-1)
        if self.augment:
            with seeded(int(rng.integers(2**63))):  # timm draws from the global generators
                view = _tensor(self.augment(Image.fromarray(view.permute(1, 2, 0).numpy())))
        draws: dict[str, Any] = {}
        if self.color_jitter:
            draws["colours"] = colours(own or rng, self.color_jitter)
        if self.random_erasing:
            draws["erased"] = erased_box(rng, self.image_size, self.random_erasing)
        if self.device_augment:
            return {"image": view, **({"draws": draws} if draws else {})}
        alone = {name: torch.from_numpy(drawn)[None] for name, drawn in draws.items() if drawn.any()}
        if not alone:
            return {"image": view}
        views = finished({"image": view[None], "draws": alone})
        return {name: (255 * floats[0]).round().to(torch.uint8) for name, floats in views.items()}


class PlainView:
    """The centre of an image, as ImageNet is evaluated: the shorter side is resized, then a square is cropped.

    Args:
        image_size: side of the view, in pixels.
        crop_pct: share of the resized shorter side that the view has. ``None`` is MAE's and TinyMIM's: 0.875 (224 of
            256) up to 224 px, and all of it above. A side that is no whole number of pixels is rounded, where theirs is
            cut: 37 and 36 px at 32, 183 and 182 at 160.
    """

    def __init__(self, image_size: int, crop_pct: float | None = None):
        share = crop_pct or (0.875 if image_size <= 224 else 1.0)
        self.image_size, self.shorter = image_size, round(image_size / share)

    def identity(self) -> dict[str, Any]:
        """All that determines ``image``: plain values."""
        usual = PlainView(self.image_size).shorter
        return {"plain": self.image_size} | ({} if self.shorter == usual else {"shorter": self.shorter})

    def __call__(self, image: Image.Image, *_: np.random.Generator | None) -> dict[str, Any]:
        """``image`` ``(3, image_size, image_size)``, uint8, of an image of any mode, decoded whole."""
        width, height = image.size
        shorter, side, size = min(width, height), self.shorter, self.image_size
        whole = [length * side // shorter for length in (height, width)]
        top, left = (round((length - size) / 2) for length in whole)
        if max(width, height) > STRIP * shorter:
            # Resized whole, a strip of 8000 x 1 pixels takes gigabytes: the square alone, to a grey level the same.
            return {"image": _tensor(_square(rgb(image), whole, top, left, size))}
        pixels = resized(decoded(image)[0], *whole)
        return {"image": pixels[:, top : top + size, left : left + size]}


def _square(image: Image.Image, whole: list[int], top: int, left: int, size: int) -> Image.Image:
    """The square at (left, top) of an image resized to ``whole``, height and width, without resizing the rest of it:
    along rows and then along columns, as :func:`tinymim.data.decode.resized` does it."""
    x, y = image.width / whole[1], image.height / whole[0]
    margin = 2 * max(y, 1) + 1  # the reach of the bicubic filter
    first, last = max(math.floor(top * y - margin), 0), min(math.ceil((top + size) * y + margin), image.height)
    rows = image.resize((size, last - first), Image.Resampling.BICUBIC, (left * x, first, (left + size) * x, last))
    return rows.resize((size, size), Image.Resampling.BICUBIC, (0, top * y - first, size, (top + size) * y - first))


def rand_augment_of(description: str, image_size: int) -> Any:
    """timm's RandAugment on PIL images, with the settings timm's own training gives it.

    Raises:
        Exception: of several types, where timm cannot read the description.
    """
    from timm.data.auto_augment import rand_augment_transform  # most of a second, and only fine-tuning needs it

    augment = rand_augment_transform(
        description,
        {
            "translate_const": int(image_size * 0.45),
            "img_mean": tuple(round(255 * channel) for channel in MEAN),
            "interpolation": Image.Resampling.BICUBIC,
        },
    )
    for operation in augment.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = functools.partial(_posterized, operation.aug_fn)
    return augment


def _posterized(posterize: Callable[..., Image.Image], image: Image.Image, bits: int, **options: Any) -> Image.Image:
    """timm's posterising, which now and then asks for no bits at all, what Pillow refuses: the least is one."""
    return posterize(image, max(bits, 1), **options)


def wrong_values(**checks: tuple[bool, Any, str]) -> list[str]:
    """Options out of range, as ``data.NAME: VALUE is not RIGHT``, of ``NAME=(good, VALUE, RIGHT)``."""
    return [f"data.{name}: {value} is not {right}" for name, (good, value, right) in checks.items() if not good]


def crop_problems(crop_pct: float | None) -> list[str]:
    """Why a :class:`PlainView` cannot have this ``crop_pct``, as ``data.crop_pct: value is not ...``."""
    right = "a share of the shorter side, 0 < share <= 1, such as 0.875"
    return wrong_values(crop_pct=(crop_pct is None or 0 < crop_pct <= 1, crop_pct, right))


def view_problems(
    image_size: int,
    scale: tuple[float, float],
    color_jitter: float,
    rand_augment: str | None,
    random_erasing: float,
) -> list[str]:
    """Which of :class:`TrainView`'s arguments are out of range, as ``data.FIELD: value is not ...``."""
    least, most = scale
    readable = True
    if rand_augment:
        try:
            rand_augment_of(rand_augment, image_size)
        except Exception:  # timm asserts, or fails wherever the parts lead it
            readable = False
    description = "a description that timm reads, such as rand-m9-mstd0.5-inc1"
    return wrong_values(
        image_size=(image_size >= 1, image_size, "a positive number of pixels"),
        scale=(0 < least <= most <= 1, [least, most], "two shares of the area, 0 < least <= greatest <= 1"),
        color_jitter=(color_jitter >= 0, color_jitter, "a strength of 0 (off) or more"),
        random_erasing=(0 <= random_erasing <= 1, random_erasing, "a probability from 0 to 1"),
        rand_augment=(readable, repr(rand_augment), description),
    )


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
