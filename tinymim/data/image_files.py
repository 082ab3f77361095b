"""Image files of a folder: its splits, its classes, and what in it is passed over. Needs no PyTorch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tinymim.errors import TinymimError, first_few
from tinymim.safety.signatures import HEAD, form

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
OTHER_IMAGES = frozenset(
    [
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".jfif",
        ".jpe",
        ".jp2",
        ".j2k",
        ".jxl",
        ".avif",
        ".heic",
        ".heif",
        ".ppm",
        ".pgm",
        ".pnm",
        ".tga",
        ".psd",
        ".exr",
        ".hdr",
        ".dcm",
        ".nii",
        ".svs",
        ".ndpi",
        ".mrxs",
        ".cr2",
        ".nef",
        ".arw",
        ".dng",
        ".raw",
        ".ico",
        ".svg",
    ]
)
"""Endings of images that are not read: what has them was surely meant."""

TRAIN = ("train", "training")
VAL = ("val", "validation", "valid", "dev")
TEST = ("test", "testing")
SPLITS = frozenset(TRAIN + VAL + TEST)


@dataclass
class PassedOver:
    """Files and folders that a listing does not take.

    Args:
        endings: files of each other ending.
        special: pipes, devices and sockets under the names of images.
        folders: folders directly below, of which :func:`listed` leaves those without an image.
    """

    endings: Counter[str] = field(default_factory=Counter)
    special: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)

    def notes(self, where: str) -> list[str]:
        """Files that are not read, for people; see :meth:`faults`."""
        if not (others := Counter({ending: n for ending, n in self.endings.items() if ending not in OTHER_IMAGES})):
            return self.faults(where)
        return [*self.faults(where), f"{others.total()} other files in {where} are not read ({_counted(others)})"]

    def faults(self, where: str) -> list[str]:
        """Entries that were surely meant to be read: images of other kinds, pipes under the names of images."""
        faults = []
        if images := Counter({ending: n for ending, n in self.endings.items() if ending in OTHER_IMAGES}):
            faults.append(f"{images.total()} images of other kinds in {where} are not read ({_counted(images)})")
        if self.special:
            faults.append(f"{len(self.special)} pipes or devices in {where} are no images, such as {self.special[0]}")
        return faults


def image_files(folder: str, passed: PassedOver | None = None) -> Iterator[str]:
    """Paths of the images below ``folder``, relative to it, with ``/`` between; in no order, and lazily.

    Hidden files and folders are passed over, and what is no regular file; links are followed. A link to nowhere counts
    as an image, one that cannot be read.

    Args:
        folder: to list.
        passed: takes what is not listed.

    Raises:
        TinymimError: a folder cannot be listed.
    """
    passed, below = passed or PassedOver(), [""]
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
                            if not here:
                                passed.folders.add(entry.name)
                    elif not entry.name.lower().endswith(EXTENSIONS):
                        passed.endings[os.path.splitext(entry.name)[1].lower()] += 1  # noqa: PTH122
                    elif entry.is_file() or not os.path.exists(entry.path):  # noqa: PTH110
                        yield here + entry.name
                    else:
                        passed.special.append(here + entry.name)
    except OSError as error:
        raise TinymimError(f"data.root: {error.filename} cannot be listed: {error.strerror}") from error


def _encloses(link: str, folder: str) -> bool:
    """Whether following ``link``, found in ``folder``, would go in circles."""
    target, here = Path(link).resolve(), Path(folder)
    return any(above.resolve().is_relative_to(target) for above in (here, *here.parents))


def listed(folder: str) -> tuple[list[str], PassedOver]:
    """All images below ``folder``, sorted, and what was passed over."""
    passed = PassedOver()
    files = sorted(image_files(folder, passed))
    passed.folders -= {file.partition("/")[0] for file in files}
    return files, passed


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
    """Names of the folders directly in ``folder``, sorted; hidden ones left out.

    Raises:
        TinymimError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise TinymimError(f"data.root: {error.filename} cannot be listed: {error.strerror}") from error


def root_problems(root: str) -> list[str]:
    """Why ``root`` is no folder of images, or why its ``train/`` or ``val/`` is none. Looks for one image in each."""
    path = Path(root).expanduser()
    if not path.is_dir():
        return [f"{root} {_not_a_folder(path)}: give a folder of images"]
    problems = []
    for folder in filter(None, splits(path)):
        passed = PassedOver()
        if next(image_files(folder, passed), None) is None:
            there = f"; it holds {_counted(passed.endings)}" if passed.endings else ""
            remedy = next((f". {words}" for ending, words in _ELSEWHERE.items() if passed.endings[ending]), "")
            problems.append(
                f"no images in {folder}: looked for {', '.join(EXTENSIONS)}, also in its folders{there}{remedy}"
            )
    return problems


_ELSEWHERE = {
    ".tar": "WebDataset's shards are read by tinymim.data.ShardsData; other archives are to be unpacked",
    ".zip": "Archives are to be unpacked",
    ".gz": "Archives are to be unpacked",
    ".tgz": "Archives are to be unpacked",
    ".parquet": "Parquet and Arrow are read by tinymim.data.HFData",
    ".arrow": "Parquet and Arrow are read by tinymim.data.HFData",
}


def _not_a_folder(path: Path) -> str:
    if not path.exists():
        return "does not exist"
    if not path.is_file():
        return "is neither folder nor file"
    with path.open("rb") as stream:
        name, _, remedy = form(stream.read(HEAD)).partition("; ")
    return f"is {name or 'a file'}{f' ({remedy})' if remedy else ''}, not a folder"


def _counted(endings: Counter[str]) -> str:
    return first_few([f"{count} {ending or 'without ending'}" for ending, count in endings.most_common()], 4)


def stray(files: list[str]) -> str | None:
    """An image that does not lie exactly one folder down, if there is any."""
    return next((file for file in files if file.count("/") != 1), None)


def classes(files: list[str]) -> list[str] | None:
    """The class folders, sorted: there are labels if each image lies exactly one folder down, in two folders or more
    that are not named as splits are."""
    folders = {file.partition("/")[0] for file in files}
    if stray(files) or len(folders) < 2 or {folder.lower() for folder in folders} <= SPLITS:
        return None
    return sorted(folders)


def evenly(length: int, count: int) -> list[int]:
    """``count`` of ``length`` positions, the first and the last among them; all where there are no more."""
    return [int(index) for index in np.linspace(0, length - 1, min(count, length))]


@dataclass
class ImageFolder:
    """A folder of images as a training takes it.

    Args:
        train: the folder to train on.
        files: images in it, sorted.
        val: the folder to validate on, if there is one.
        val_files: images in that.
        classes: names of the class folders, ``None`` without labels.
        remarks: what is there and is not used, for people.
        faults: those of them that are surely a mistake.
    """

    train: str
    files: list[str]
    val: str | None
    val_files: list[str]
    classes: list[str] | None
    remarks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def why_unlabelled(self) -> str:
        """The reason why there are no classes."""
        folders = sorted({file.partition("/")[0] for file in self.files})
        if odd := stray(self.files):
            return f"{odd} is not in a class folder"
        return f"{', '.join(folders)} are splits, not classes" if len(folders) > 1 else "fewer than two class folders"


def image_folder(root: Path) -> ImageFolder:
    """List a folder: images by split, and all that is passed over.

    Raises:
        TinymimError: a folder in it cannot be listed.
    """
    train, val = splits(root)
    files, passed = listed(train)
    val_files, passed_in_val = listed(val) if val else ([], PassedOver())
    folder = ImageFolder(train, files, val, val_files, classes(files))
    for where, part in ((train, passed), (val, passed_in_val)):
        # below a root without splits, folders without images are no classes that were forgotten unless others are
        name = "" if where == str(root) else f"{Path(where or '').name}/"
        faults = part.faults(str(where))
        folder.faults += faults
        folder.remarks += [note for note in part.notes(str(where)) if note not in faults]
        if part.folders and (folder.classes or any("/" in file for file in files)):
            folder.faults.append(f"no images in {first_few([f'{name}{each}/' for each in sorted(part.folders)])}")
    _note_other_splits(root, folder)
    return folder


def _note_other_splits(root: Path, folder: ImageFolder) -> None:
    """Note folders that are named as splits are and are not taken for ones, and those beside ``train/``."""
    if folder.train == str(root):
        named = {file.partition("/")[0] for file in folder.files if "/" in file}
        if odd := sorted(name for name in named if name.lower() in SPLITS):
            role = "a class" if folder.classes else "no split"
            folder.faults.append(f"{first_few(odd)}/ is taken for {role}, for there is no train/ beside it")
        return
    used = {Path(each).name for each in (folder.train, folder.val) if each}
    beside = [name for name in folders_in(root) if name not in used]
    unused = [name for name in beside if next(image_files(f"{root}/{name}"), None) is not None]
    tests = [name for name in unused if name.lower() in TEST]
    if rest := [name for name in unused if name not in tests]:
        words = f"{first_few(rest)}/ beside {Path(folder.train).name}/ is not read"
        surely = folder.val is None or any(name.lower() in SPLITS for name in rest)
        (folder.faults if surely else folder.remarks).append(words)
    if tests:
        folder.remarks.append(f"{first_few(tests)}/ is not read: a training reads {TRAIN[0]}/ and {VAL[0]}/ alone")
