"""Any folder of images, labelled by its class folders or not."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinymim.data.image_data import ViewedData
from tinymim.data.image_files import ImageFiles
from tinymim.data.image_limits import classes, image_files, root_problems, splits, stray
from tinymim.errors import TinymimError, several


class ImageFolderData(ViewedData):
    """Images in a folder: ``train/`` and perhaps ``val/`` below it, as ImageNet has, or else all that lies below it.

    The images have labels if each lies exactly one folder below ``train/`` (or the root) and there are two such folders
    or more: their sorted names are then :attr:`classes`. Otherwise there are neither labels nor a bank. Beside
    ``train/`` only ``val/`` is read; without ``train/``, ``val/`` is a folder like any other.

    Args:
        root: the folder, with .jpg, .jpeg, .png or .webp files.
        options: of :class:`ViewedData`; ``held_out`` counts where there is no ``val/``.
    """

    def __init__(self, root: str | None = None, **options: Any):
        super().__init__(**options)
        self.root = root

    def problems(self) -> list[str]:
        """A folder that is not there or has no images, and values out of range. Looks for one image and reads none."""
        return self._root_problems() + super().problems()

    def source(self) -> str:
        """The folder, from the root of the file system."""
        return str(Path(self.root).expanduser().absolute()) if self.root else ""

    def _root_problems(self) -> list[str]:
        if self.root is None:
            what = "a folder of images such as ImageNet's, with train/ and val/"
            return [f"data.root is not set: give --data.root FOLDER, {what}"]
        try:
            return [f"data.root: {problem}" for problem in root_problems(self.root)]
        except TinymimError as error:
            return [str(error)]

    def prepare(self) -> None:
        """List the files and split them.

        Raises:
            TinymimError: there are :meth:`problems`; or ``val/`` has classes that ``train/`` lacks, or images outside
                class folders though ``train/`` has labels; or there is only one image.
        """
        if found := self.problems():
            raise several("the data cannot be used", found)
        folder, val = splits(Path(self.root or "").expanduser())
        files = sorted(image_files(folder))
        self.classes = classes(files)
        images = ImageFiles(folder, *self._arrays(files), self.plain())
        held_out = ImageFiles(val, *self._arrays(self._val_files(val)), self.plain()) if val else None
        why = f"{odd} is not in a class folder" if (odd := stray(files)) else "fewer than two class folders"
        self.divide(images, held_out, "root", why)

    def advice(self) -> str:
        """There is a command for it."""
        return f". `tinymim data check {shlex.quote(str(self.root))}` looks at all of them"

    def _arrays(self, files: list[str]) -> tuple[NDArray[np.bytes_], NDArray[np.int64] | None]:
        names = np.array([os.fsencode(file) for file in files])
        if not self.classes:
            return names, None
        label = {name: i for i, name in enumerate(self.classes)}
        return names, np.array([label[file.partition("/")[0]] for file in files], dtype=np.int64)

    def _val_files(self, val: str) -> list[str]:
        files = sorted(image_files(val))
        if not self.classes:
            return files
        if odd := stray(files):
            raise TinymimError(
                f"data.root: {val} has images outside class folders, such as {odd}, though train/ has "
                f"{len(self.classes)} classes: sort them into folders named as train/'s, or take val/ away"
            )
        if strange := sorted({file.partition("/")[0] for file in files} - set(self.classes)):
            raise TinymimError(
                f"data.root: {val} has {len(strange)} classes that train/ lacks, such as {strange[0]}: "
                "its folders must be named as train/'s"
            )
        return files
