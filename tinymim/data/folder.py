"""Any folder of images, labelled by its class folders or not."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from tinymim.data.datasets import ImageFiles
from tinymim.data.image_data import ViewedData
from tinymim.data.image_files import image_folder, root_problems
from tinymim.errors import TinymimError, several


class ImageFolderData(ViewedData):
    """Images in a folder: ``train/`` and perhaps ``val/`` below it, as ImageNet has, or else all that lies below it.

    ``training/``, ``validation/``, ``valid/`` and ``dev/`` stand for them, in any case of letters. The images have
    labels if each lies exactly one folder below ``train/`` (or the root) and there are two such folders or more: their
    sorted names are then :attr:`classes`. Otherwise there are neither labels nor a bank. Beside ``train/`` only
    ``val/`` is read; without ``train/``, ``val/`` is a folder like any other. What is there and is not read is named.

    Args:
        root: the folder, with .jpg, .jpeg, .png or .webp files.
        options: of :class:`ViewedData`; ``held_out`` counts where there is no ``val/``.
    """

    def __init__(self, root: str | None = None, **options: Any):
        super().__init__(**options)
        self.root = root

    @override
    def problems(self) -> list[str]:
        # Looks for one image and reads none.
        if not self.root:  # an empty variable of the environment is no working folder
            what = "a folder of images such as ImageNet's, with train/ and val/"
            problems = [f"data.root is not set: give --data.root FOLDER, {what}"]
        else:
            try:
                problems = [f"data.root: {problem}" for problem in root_problems(self.root)]
            except TinymimError as error:
                problems = [str(error)]
        return problems + super().problems()

    @override
    def source(self) -> str:
        return str(Path(self.root).expanduser().absolute()) if self.root else ""

    @override
    def prepare(self) -> None:
        # Lists the files and splits them; val/ must have classes of train/ alone.
        if problems := self.problems():
            raise several("the data cannot be used", problems)
        folder = image_folder(Path(self.root or "").expanduser())
        self.classes, self.notes = folder.classes, folder.faults + folder.remarks
        if problem := folder.val_problem():
            raise TinymimError(f"data.root: {problem}")
        held_out = self._images(folder.val, folder.val_files) if folder.val else None
        self.divide(self._images(folder.train, folder.files), held_out, "root", folder.why_unlabelled())

    @override
    def advice(self) -> str:
        return f". `tinymim data check {shlex.quote(str(self.root))}` looks at all of them"

    def _images(self, folder: str, files: list[str]) -> ImageFiles:
        number = {name: i for i, name in enumerate(self.classes or [])}
        labels = np.array([number[file.partition("/")[0]] for file in files], dtype=np.int64) if number else None
        return ImageFiles(folder, np.array([os.fsencode(file) for file in files]), labels, self.plain())
