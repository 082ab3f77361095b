"""Images of a list of files, as the project evaluates them: for commands that take any folder."""

from __future__ import annotations

from torch import Tensor
from torch.utils.data import Dataset

from tinymim.data.open_image import open_image, unreadable
from tinymim.data.transforms import PlainView

Item = tuple[int, Tensor | str]
"""Index of an image, and its pixels, ``(3, S, S)`` uint8, or why there are none."""


class ListedImages(Dataset[Item]):
    """Every image of a list; a broken one as the reason.

    Args:
        folder: that the names are relative to.
        names: of the files.
        size: side of the views, in pixels.
        crop_pct: see :class:`tinymim.data.transforms.PlainView`.
    """

    def __init__(self, folder: str, names: list[str], size: int, crop_pct: float | None = None):
        self.folder, self.names, self.view = folder, names, PlainView(size, crop_pct)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Item:
        try:
            return index, self.view(open_image(f"{self.folder}/{self.names[index]}"))["image"]
        except Exception as error:  # decoders raise all sorts on broken files, and none may end a long run
            return index, unreadable(error)
