"""Image files of a folder: its splits, its classes, and what in it is passed over. Needs no PyTorch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tinymim.data.passed_over import PassedOver, by_ending
from tinymim.data.split_folders import LEAVINGS, SPLITS, TEST, TRAIN, VAL, folders_in, hidden_splits, pairs, splits
from tinymim.errors import TinymimError, counted, first_few
from tinymim.safety.signatures import HEAD, form

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")


def image_files(folder: str, passed: PassedOver | None = None) -> Iterator[str]:
    """Paths of the images below ``folder``, relative to it, with ``/`` between; in no order, and lazily.

    Hidden files and folders are passed over, :data:`LEAVINGS`, and what is no regular file; links are followed. A link
    to nowhere counts as an image, one that cannot be read.

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
                        if entry.name.lower() in LEAVINGS:
                            continue
                        if not (entry.is_symlink() and _encloses(entry.path, f"{folder}/{here}")):
                            below.append(f"{here}{entry.name}/")
                            if not here:
                                passed.folders.add(entry.name)
                    elif not entry.name.lower().endswith(EXTENSIONS):
                        passed.add(here + entry.name)
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


def root_problems(root: str) -> list[str]:
    """Why ``root`` is no folder of images, or why its ``train/`` or ``val/`` is none. Looks for one image in each."""
    if not root.strip():
        return ["no folder is named, or a variable that holds its name is empty: give a folder of images"]
    path = Path(root).expanduser()
    if not path.is_dir():
        return [f"{root} {_not_a_folder(path)}: give a folder of images"]
    problems = []
    for folder in filter(None, splits(path)):
        passed = PassedOver()
        if next(image_files(folder, passed), None) is None:
            there = f"; it holds {by_ending(passed.endings)}" if passed.endings else ""
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
            return f"{odd} is {'deeper than' if odd.count('/') > 1 else 'not in'} a class folder"
        return f"{', '.join(folders)} are splits, not classes" if len(folders) > 1 else "fewer than two class folders"

    def val_problem(self) -> str | None:
        """Why the images of ``val`` cannot have the labels of those to train on, if these have any."""
        if not self.classes:
            return None
        if odd := stray(self.val_files):
            return (
                f"{self.val} has images outside class folders, such as {odd}, though train/ has {len(self.classes)} "
                "classes: sort them into folders named as train/'s, or take val/ away"
            )
        if strange := sorted({file.partition("/")[0] for file in self.val_files} - set(self.classes)):
            return (
                f"{self.val} has {counted(len(strange), 'class')} that train/ lacks, such as {strange[0]}: "
                "its folders must be named as train/'s"
            )
        return None


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
        folder.faults += pairs(folder.files) or hidden_splits(root, folder.files)
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
