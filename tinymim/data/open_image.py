"""Image files opened and decoded, whatever lies under their names. Needs no PyTorch."""

from __future__ import annotations

import io
import os
import re
import stat
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from tinymim.safety.signatures import form

MAX_PIXELS = 178_956_970
"""Pixels of the largest image that is decoded where nothing else is said: half a gigabyte of RGB, Pillow's limit."""

MAX_BYTES = 1 << 32
"""Bytes of the largest file that is read."""

MASK_MODES = ("L", "P", "I", "I;16", "1")
"""Pillow's modes of one number a pixel, which of a mask is its class."""

KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


class UnreadableError(OSError):
    """A file that is not an image, or a larger one than is decoded; its words need no type before them."""


def open_image(source: str | bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An image of which only the header is decoded yet.

    Args:
        source: path of a file, which is read whole and closed, or what is in one.
        max_pixels: limit on width times height.

    Raises:
        Exception: on a broken file, of many types, as of :func:`rgb`.
    """
    data = source if isinstance(source, bytes) else contents(source)
    if not data:
        raise UnreadableError("the file is empty")
    pillows, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the limit here has an option, and other words
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        if words := form(data):
            raise UnreadableError(f"cannot identify an image: it is {words}") from None
        raise
    finally:
        Image.MAX_IMAGE_PIXELS = pillows
    if image.width * image.height > max_pixels:
        raise UnreadableError(
            f"{image.width} x {image.height} pixels are more than max_pixels, {max_pixels}: raise it where memory "
            f"allows {3 * image.width * image.height / 2**30:.1f} GiB for each worker, or cut the image into tiles"
        )
    return image


def contents(path: str) -> bytes:
    """The bytes of a regular file: a pipe or a device called ``x.jpg`` is waited for, or read, for ever."""
    state = os.stat(path)  # noqa: PTH116  # for each image of each epoch
    if not stat.S_ISREG(state.st_mode):
        raise UnreadableError(f"it is {KINDS.get(stat.S_IFMT(state.st_mode), 'a folder')}, not a file")
    if state.st_size > MAX_BYTES:
        raise UnreadableError(f"its {state.st_size} bytes are more than an image has")
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123
        return stream.read()


def read_rgb(source: str | IO[bytes], max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image of any mode to 8-bit RGB.

    Raises:
        Exception: on a broken file, of many types: ``OSError``, ``SyntaxError``, ``ValueError`` and others.
    """
    return rgb(open_image(source if isinstance(source, str) else source.read(), max_pixels))


def unreadable(error: Exception) -> str:
    """The reason why an image cannot be read, in words."""
    if isinstance(error, UnreadableError):
        return str(error)
    return f"{type(error).__name__}: {re.sub(' <.*?>', '', str(error))}"  # Pillow names an object in memory


def rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as 8-bit RGB.

    Alpha is dropped and EXIF orientation is not applied, as torchvision and timm have it.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow would clip 16-bit grey at 255, which turns nearly every such image white.
        grey = np.clip(np.asarray(image, dtype=np.float32) / 257, 0, 255).round().astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "P":
        return image.convert("RGBA").convert("RGB")  # straight to RGB warns about transparent palettes
    return image.convert("RGB")
