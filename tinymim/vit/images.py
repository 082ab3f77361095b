"""Images that a network is given: ``(B, 3, H, W)`` floats in [0, 1], of any size, or a message that says so."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tinymim.errors import TinymimError, counted


def check_images(images: object, mean: Tensor) -> None:
    """Raise unless ``images`` are what a network takes, with what would make them that.

    Shape and type alone are looked at, as on every step: neither values outside of [0, 1] nor such as are no number.

    Args:
        images: ``(B, C, H, W)`` of floats, if all is well.
        mean: of the network's input, ``(1, C, 1, 1)``.

    Raises:
        TinymimError: no tensor, no batch, other channels, whole numbers, or more digits than the network has.
    """
    channels = mean.shape[1]
    if not isinstance(images, Tensor):
        kind = type(images)
        remedy = "torch.from_numpy(images)" if kind.__module__ == "numpy" else "a torch.Tensor"
        raise TinymimError(
            f"images: {kind.__module__}.{kind.__qualname__} is no tensor; give {remedy}, {_form(channels)}"
        )
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[1] != channels:
        if images.ndim == 3 and shape[0] == channels:
            remedy = "; one image is a batch as images[None]"
        elif images.ndim == 4 and shape[-1] == channels:
            remedy = "; channels that come last come second by images.movedim(-1, 1)"
        elif images.ndim == 4 and shape[1] == 1:
            remedy = f"; grey images have {channels} channels by images.expand(-1, {channels}, -1, -1)"
        else:
            remedy = ""
        what = f"{counted(shape[1], 'channel')}" if images.ndim == 4 else f"{counted(images.ndim, 'dimension')}"
        raise TinymimError(f"images: {shape} has {what}; give {_form(channels)}{remedy}")
    if not images.is_floating_point():
        remedy = "; bytes are that by images / 255" if images.dtype == torch.uint8 else ""
        raise TinymimError(f"images: {_name(images)} are no floats; give {_form(channels)}{remedy}")
    if images.dtype == torch.float64 != mean.dtype:
        raise TinymimError(f"images: float64, and the network has {_name(mean)}; give images.to({mean.dtype})")


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """``(B, 3, H, W)`` images in [0, 1] in another size, bicubic and antialiased; as they are where they fit."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(0, 1)


def _form(channels: int) -> str:
    return f"(B, {channels}, H, W) of floats in [0, 1]"


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
