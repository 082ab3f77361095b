"""Images that a network is given: ``(B, 3, H, W)`` floats in [0, 1], of any size, or a message that says so."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tinymim.errors import TinymimError, counted

LEEWAY = 0.01
"""How far values may be outside of [0, 1]: bicubic resizing overshoots."""


def check_images(images: object, mean: Tensor) -> None:
    """Raise unless ``images`` are what a network takes, with what would make them that.

    Shape and type alone are looked at, as on every step; values by :func:`check_values`. Fewer digits than the
    network's are taken, as they are widened.

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
        what = f"{counted(shape[1], 'channel')}" if images.ndim == 4 else f"{counted(images.ndim, 'dimension')}"
        raise TinymimError(f"images: {shape} has {what}; give {_form(channels)}{shape_remedy(shape, channels)}")
    if not images.is_floating_point():
        remedy = "; bytes are that by images / 255" if images.dtype == torch.uint8 else ""
        raise TinymimError(f"images: {_name(images)} are no floats; give {_form(channels)}{remedy}")
    if images.dtype == torch.float64 != mean.dtype:
        raise TinymimError(f"images: float64, and the network has {_name(mean)}; give images.to({mean.dtype})")


def shape_remedy(shape: tuple[int, ...], channels: int = 3) -> str:
    """Remedy that makes a batch of images of a tensor of another ``shape``, after a semicolon; empty where none is."""
    if len(shape) == 3 and shape[0] == channels:
        return "; one image is a batch as images[None]"
    if len(shape) == 4 and shape[-1] == channels:
        return "; channels that come last come second by images.movedim(-1, 1)"
    if len(shape) == 4 and shape[1] == 1:
        return f"; grey images have {channels} channels by images.expand(-1, {channels}, -1, -1)"
    return ""


def check_values(images: Tensor, field: str = "images") -> None:
    """Raise unless the values of ``images``, floats of any shape, are in [0, 1].

    Only on a CPU, where a look is nothing beside a network; a GPU would be waited for. What is traced, or seen by
    ``torch.func``, has no values.

    Args:
        images: to look at.
        field: what they are called in the message.

    Raises:
        TinymimError: values outside, by more than a hundredth, which resizing brings about, or such as are no number.
    """
    if type(images) is not Tensor or images.device.type != "cpu" or not images.numel():
        return
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._functorch.peek_interpreter_stack():
        return
    least, most = (float(value) for value in images.detach().aminmax())
    if -LEEWAY <= least <= most <= 1 + LEEWAY:
        return
    if not (math.isfinite(least) and math.isfinite(most)):
        wrong = int((~images.isfinite()).sum())
        raise TinymimError(
            f"{field}: {wrong:,} of {counted(images.numel(), 'value')} are NaN or infinite; give floats in [0, 1]"
        )
    if least >= -LEEWAY and 20 < most <= 255 + LEEWAY:
        remedy = "divide by 255"
    else:
        remedy = "leave Normalize out of the transforms, as each network normalises by itself"
    raise TinymimError(f"{field}: values from {least:.3g} to {most:.3g}, and they are to be in [0, 1]; {remedy}")


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """``(B, 3, H, W)`` images in [0, 1] in another size, bicubic and antialiased; as they are where they fit."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(0, 1)


def _form(channels: int) -> str:
    return f"(B, {channels}, H, W) of floats in [0, 1]"


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
