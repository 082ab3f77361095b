"""From an image file to the pixels of a view, decoding no more of a JPEG than the view shows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
import torchvision  # noqa: F401  # registers the operator below
from PIL import Image, JpegImagePlugin
from torch import Tensor

from tinymim.data.open_image import rgb

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""

SLACK = 1.5
"""Pixels that a scaled decoding must leave for one of the view: at 1 it doubles the loss, and is hardly faster."""

RGB = 3  # torchvision's number of that mode

# Pillow's JPEG decoder takes half as long again. torchvision deprecates the Python around this operator since 0.29, in
# favour of TorchCodec, whose wheels need FFmpeg; Pillow takes over where the operator is gone.
decode_jpeg: Callable[[Tensor, int], Tensor] | None = getattr(torch.ops.image, "decode_jpeg", None)


def resized_crop(image: Image.Image, box: Box, size: int) -> Tensor:
    """The pixels in ``box``, ``(3, size, size)``, uint8: torchvision's crop and its antialiased bicubic resize.

    A JPEG is decoded at 1/2, 1/4 or 1/8 by libjpeg's scaled DCT where that leaves the box 1.5 times the
    ``size`` on both sides; the box's edges are then rounded to the pixels that are left. What it changes in a
    photograph is about half a grey level of 255 on average, and one where it is grainy.

    Args:
        image: best one that is not decoded yet (:func:`tinymim.data.open_image.open_image`); of any mode.
        box: inside the image.
        size: side of the view, in pixels.

    Raises:
        Exception: on a broken file, of many types.
    """
    left, top, right, bottom = box
    least = min(right - left, bottom - top) / (SLACK * size)
    shown, scale = decoded(image, next((s for s in (8, 4, 2) if s <= least), 1))
    left, top, right, bottom = (round(edge / scale) for edge in (left, top, right, bottom))
    return resized(shown[:, top:bottom, left:right], size, size)


def decoded(image: Image.Image, scale: int = 1) -> tuple[Tensor, int]:
    """All pixels, ``(3, H, W)``, uint8, channels last in memory; and what their number was divided by on each side.

    Args:
        image: of any mode; a grey or RGB JPEG that is not decoded yet takes the fastest way.
        scale: 1, 2, 4 or 8; JPEG alone can be decoded smaller, and others stay at 1.
    """
    whole = image.width
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.mode in ("RGB", "L") and image.tile:
        if scale > 1:
            image.draft("RGB", (image.width // scale, image.height // scale))
        elif decode_jpeg is not None:
            assert image.fp is not None  # what is not decoded is open
            image.fp.seek(0)
            try:
                return decode_jpeg(torch.frombuffer(bytearray(image.fp.read()), dtype=torch.uint8), RGB), 1
            except RuntimeError:
                pass  # whether a file is broken is Pillow's to say
    pixels = torch.from_numpy(np.array(rgb(image))).permute(2, 0, 1)
    return pixels, round(whole / image.width)


def resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """``(3, height, width)``, uint8, by antialiased bicubic interpolation, as Pillow's but for a rounding.

    Several times as fast as Pillow's where the channels come last in memory.
    """
    batch = pixels[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(batch, size=(height, width), mode="bicubic", antialias=True)[0]
