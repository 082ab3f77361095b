"""Image files: which ones a folder has, what its folders mean, and how they are read. Needs no PyTorch."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from tinymim.errors import TinymimError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")


def image_files(folder: str) -> Iterator[str]:
    """Paths of the images below ``folder``, relative to it, with ``/`` between; in no order, and lazily.

    Hidden files and folders are passed over; links to folders are followed.

    Raises:
        TinymimError: a folder cannot be listed.
    """
    below = [""]
    try:
        while below:
            here = below.pop()
            with os.scandir(f"{folder}/{here}") as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        if not (entry.is_symlink() and _encloses(entry.path, f"{folder}/{here}")):
                            below.append(f"{here}{entry.name}/")
                    elif entry.name.lower().endswith(EXTENSIONS):
                        yield here + entry.name
    except OSError as error:
        raise TinymimError(f"data.root: {error.filename} cannot be listed: {error.strerror}") from error


def _encloses(link: str, folder: str) -> bool:
    """Whether following ``link``, found in ``folder``, would go in circles."""
    target, here = Path(link).resolve(), Path(folder)
    return any(above.resolve().is_relative_to(target) for above in (here, *here.parents))


def splits(root: Path) -> tuple[str, str | None]:
    """The folders to train on and to validate on: ``train/`` and perhaps ``val/`` below ``root``, or ``root`` alone."""
    train, val = root / "train", root / "val"
    if not train.is_dir():
        return str(root), None
    return str(train), str(val) if val.is_dir() else None


def root_problems(root: str) -> list[str]:
    """Why ``root`` is no folder of images, or why its ``train/`` or ``val/`` is none. Looks for one image in each."""
    path = Path(root).expanduser()
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        return [f"{root} {what}: give a folder of images"]
    empty = [folder for folder in splits(path) if folder and next(image_files(folder), None) is None]
    return [f"no images in {folder}: looked for {', '.join(EXTENSIONS)}, also in its folders" for folder in empty]


def stray(files: list[str]) -> str | None:
    """An image that does not lie exactly one folder down, if there is any."""
    return next((file for file in files if file.count("/") != 1), None)


def classes(files: list[str]) -> list[str] | None:
    """The class folders, sorted: there are labels if each image lies exactly one folder down, in two folders or
    more."""
    folders = {file.partition("/")[0] for file in files}
    return sorted(folders) if not stray(files) and len(folders) > 1 else None


def evenly(length: int, count: int) -> list[int]:
    """``count`` of ``length`` positions, the first and the last among them; all where there are no more."""
    return [int(index) for index in np.linspace(0, length - 1, min(count, length))]


def open_image(source: str | bytes) -> Image.Image:
    """An image of which only the header is decoded yet.

    Args:
        source: path of a file, which is read whole and closed, or what is in one.

    Raises:
        Exception: on a broken file, of many types, as of :func:`rgb`.
    """
    return Image.open(io.BytesIO(source if isinstance(source, bytes) else whole(Path(source))))


def whole(path: Path) -> bytes:
    """The bytes of a file; ``OSError`` where it is none: a pipe would wait for ever, and a device have no end."""
    if path.exists() and not path.is_file():
        raise OSError("no regular file")
    return path.read_bytes()


def read_rgb(source: str | IO[bytes]) -> Image.Image:
    """Decode an image of any mode to 8-bit RGB.

    Raises:
        Exception: on a broken file, of many types: ``OSError``, ``SyntaxError``, ``DecompressionBombError`` and others.
    """
    with Image.open(source) as image:
        return rgb(image)


def unreadable(error: Exception) -> str:
    """The reason why an image cannot be read, in words."""
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
