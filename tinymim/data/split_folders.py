"""Folders that part images into those to train on and others, by their names. Needs no PyTorch."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tinymim.errors import TinymimError, first_few

TRAIN = ("train", "training")
VAL = ("val", "validation", "valid", "dev")
TEST = ("test", "testing")
SPLITS = frozenset(TRAIN + VAL + TEST)
ROLES = {
    **dict.fromkeys([*TRAIN, "trn"], "train"),
    **dict.fromkeys([*VAL, "vld", "eval", "evaluation", "holdout", *TEST, "tst"], "other"),
}
"""What a folder with such a word in its name, as ``val2017`` has, is for."""

LEAVINGS = frozenset(("__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information", "#recycle"))
"""Folders that systems leave beside a user's own."""

PICTURES, MASKS = ("images", "image", "imgs", "img", "jpegimages"), ("masks", "mask", "annotations", "labels", "gt")
"""Names of folders whose files belong together in pairs."""


def splits(root: Path) -> tuple[str, str | None]:
    """The folders to train on and to validate on: ``train/`` and perhaps ``val/`` below ``root``, under any of their
    usual names and in any case; or ``root`` alone."""
    if (train := _split(root, TRAIN)) is None:
        return str(root), None
    val = _split(root, VAL)
    return str(train), str(val) if val else None


def _split(root: Path, names: tuple[str, ...]) -> Path | None:
    if (root / names[0]).is_dir():
        return root / names[0]
    folders = [name for name in folders_in(root) if name.lower() in names]
    return root / min(folders, key=lambda name: names.index(name.lower())) if folders else None


def folders_in(folder: Path) -> list[str]:
    """Names of the folders directly in ``folder``, sorted; hidden ones and :data:`LEAVINGS` left out.

    Raises:
        TinymimError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise TinymimError(f"data.root: {error.filename} cannot be listed: {error.strerror}") from error
    return sorted(name for name in names if name.lower() not in LEAVINGS)


def hidden_splits(root: Path, files: list[str]) -> list[str]:
    """Note folders that part the images to train on from others, and are all trained on, below a ``root`` without
    ``train/``."""
    named = {file.partition("/")[0] for file in files if "/" in file}
    if _are_splits(named):
        return [f"{first_few([f'{name}/' for name in sorted(named)])} are all trained on: name them train/ and val/"]
    inner: dict[str, set[str]] = {}
    for file in files:
        if file.count("/") > 1:
            above, below, _ = file.split("/", 2)
            inner.setdefault(above, set()).add(below)
    if not (parted := sorted(above for above, below in inner.items() if _are_splits(below))):
        return []
    within = first_few([f"{parted[0]}/{name}/" for name in sorted(inner[parted[0]])])
    remedy = (
        f"give the folder {root / parted[0]}" if len(named) == 1 else "train/ and val/ come first, then the classes"
    )
    return [f"{within} are all trained on: {remedy}"]


def _are_splits(names: set[str]) -> bool:
    return {_role(name) for name in names} == {"train", "other"}


def _role(name: str) -> str:
    """What a folder is for by its name's words, such as those of ``val_set`` or ``train2017``; empty where they do not
    tell."""
    words = re.findall("[a-z]+", name.lower())
    return next((ROLES[word] for word in words if word in ROLES), "")


def pairs(files: list[str]) -> list[str]:
    """Note masks that are taken for images."""
    named = {file.partition("/")[0] for file in files if "/" in file}
    pictures, masks = ([name for name in sorted(named) if name.lower() in names] for names in (PICTURES, MASKS))
    if not pictures or not masks or len(named) > 2:
        return []
    return [
        f"{masks[0]}/ beside {pictures[0]}/ is read as images: pairs of images and masks are read by "
        "tinymim.data.SegmentationFolderData, from images/ and annotations/"
    ]
