"""Faults in pairs of images and masks, as ``SegmentationFolderData`` reads them. Needs no PyTorch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Protocol

from tinymim.data.open_image import MASK_MODES
from tinymim.errors import counted, first_few

IMAGES, MASKS = "images", "annotations"
PARTS = ("training", "validation")


class Read(Protocol):
    """What is known of a file that was read."""

    @property
    def mode(self) -> str:
        """Pillow's mode."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""

    @property
    def error(self) -> str:
        """Why it cannot be read; empty where it can."""

    @property
    def labelled(self) -> bool:
        """Of a mask, whether any pixel is neither 0 nor 255."""


def faults(files: Mapping[str, Read]) -> tuple[list[str], list[str]]:
    """Mistakes, with which no training begins or which it would not see, and remarks on what is not read.

    Args:
        files: by path, ``images/training/a.jpg``.
    """
    mistakes: list[str] = []
    remarks: list[str] = []
    read: set[str] = set()
    for part in PARTS:
        images, masks = (_by_stem(files, f"{kind}/{part}/") for kind in (IMAGES, MASKS))
        read.update(path for group in (images, masks) for paths in group.values() for path in paths)
        if not images:
            mistakes.append(f"no images in {IMAGES}/{part}/, and {' and '.join(PARTS)} are what is read")
        masks = {stem: [path] for stem, paths in masks.items() for path in paths[:1] if path.lower().endswith(".png")}
        for paths in images.values():
            if len(paths) > 1:
                mistakes.append(f"{' and '.join(paths)} have one mask, and the last alone is read")
        for noun, where, alone, other in (
            ("image", f"in {IMAGES}/{part}/ without a PNG", images.keys() - masks.keys(), MASKS),
            ("mask", f"in {MASKS}/{part}/ without an image", masks.keys() - images.keys(), IMAGES),
        ):
            words = f"{where} of the same name in {other}/{part}/"
            if alone:
                mistakes.append(f"{counted(len(alone), noun)} {words}, such as {first_few(sorted(alone))}")
        whole = {stem: masks[stem][0] for stem in sorted(masks) if not files[masks[stem][0]].error}
        pairs = [(images[stem][0], path) for stem, path in whole.items() if stem in images]
        pairs = [(image, mask) for image, mask in pairs if not files[image].error]
        if odd := [mask for image, mask in pairs if files[image].size != files[mask].size]:
            mistakes.append(f"{counted(len(odd), 'mask')} of another size than the image, such as {odd[0]}")
        if odd := [path for path in whole.values() if files[path].mode not in MASK_MODES]:
            mode = files[odd[0]].mode
            mistakes.append(
                f"{counted(len(odd), 'mask')} without a single number a pixel, its class, such as {odd[0]} ({mode})"
            )
        if blank := [path for path in whole.values() if not files[path].labelled]:
            words = f"{len(blank)} of {counted(len(whole), 'mask')} in {MASKS}/{part}/ without a pixel but 0 and 255"
            (mistakes if len(blank) == len(whole) else remarks).append(f"{words}, which mean no class")
    if others := sorted(files.keys() - read):
        remarks.append(f"{counted(len(others), 'file')} in none of the folders that are read, such as {others[0]}")
    return mistakes, remarks


def _by_stem(files: Mapping[str, Read], folder: str) -> dict[str, list[str]]:
    groups = defaultdict[str, list[str]](list)
    for path in files:
        if path.startswith(folder):
            groups[path.removeprefix(folder).rpartition(".")[0]].append(path)
    return dict(groups)
