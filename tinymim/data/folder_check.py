"""Faults in a folder of images, before anything trains on it: broken files, duplicates, leaks, what is passed over."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import track

from tinymim.data import mask_pairs
from tinymim.data.image_files import ImageFolder, image_folder, root_problems, stray
from tinymim.data.integrity import whole
from tinymim.data.mask_pairs import IMAGES, MASKS
from tinymim.data.open_image import MASK_MODES, MAX_PIXELS, contents, open_image, unreadable
from tinymim.data.split_folders import hidden_splits, pairs
from tinymim.errors import TinymimError, counted
from tinymim.safety.console import PlainConsole
from tinymim.system.workers import processes

CHUNK = 64  # files that a process reads at a time


class ImageFile(NamedTuple):
    """One file: the hash of its bytes, and its form or why it cannot be decoded."""

    digest: bytes = b""
    form: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    error: str = ""
    labelled: bool = True
    """Of a mask, whether any pixel is neither 0 nor 255."""


@dataclass
class FolderFindings:
    """Contents and faults of a folder. Paths are relative to it.

    Args:
        root: the folder.
        images: how many.
        splits: of each split, the images of each class, or of ``(no labels)``.
        widths: least, median and greatest, in pixels.
        heights: likewise.
        small: images with a side below the crop.
        forms: images of each format.
        modes: images of each mode.
        broken: files that cannot be decoded, and why.
        duplicates: groups of files with the same bytes.
        leaks: those of them that are in more than one split.
        contradictions: those that are in more than one class.
        unlabelled: masks in which each pixel is 0 or 255, which mean no class.
        passed_over: what is there and is not used.
        mistakes: what is there, is not used, and was surely meant to be.
    """

    root: str
    images: int = 0
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    widths: list[float] = field(default_factory=list)
    heights: list[float] = field(default_factory=list)
    small: list[str] = field(default_factory=list)
    forms: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    duplicates: list[list[str]] = field(default_factory=list)
    leaks: list[list[str]] = field(default_factory=list)
    contradictions: list[list[str]] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    def faults(self) -> str:
        """Faults that a training should not begin with, in words; empty where there are none."""
        faults = list(self.mistakes)
        if self.broken:
            faults.append(f"{len(self.broken)} of {counted(self.images, 'image')} cannot be read")
        if self.leaks:
            faults.append(f"{counted(len(self.leaks), 'image')} both in train/ and in val/")
        return " and ".join(faults)


def check(folder: str, workers: int, crop: int, max_pixels: int = MAX_PIXELS) -> FolderFindings:
    """Read every image that a training on ``folder`` would.

    Args:
        folder: with ``train/`` and ``val/``, with class folders, with ``images/`` and their masks in ``annotations/``,
            or with images anyhow.
        workers: processes that read.
        crop: side in pixels below which an image is small.
        max_pixels: of an image that is read.

    Raises:
        TinymimError: there is no such folder, or no image in it.
    """
    if problems := root_problems(folder):
        raise TinymimError("; ".join(problems))
    root = Path(folder).expanduser()
    listed = image_folder(root)
    findings = FolderFindings(str(root), passed_over=listed.remarks, mistakes=listed.faults)
    masked = all((root / kind).is_dir() for kind in (IMAGES, MASKS))
    if masked:
        layout = {*hidden_splits(root, listed.files), *pairs(listed.files)}
        findings.mistakes = [fault for fault in listed.faults if fault not in layout]
    else:
        _add_labels(findings, listed)
    paths, labels = [], []
    for path, split, label in _labelled(root, listed):
        paths.append(path)
        labels.append((split, label))
        counts = findings.splits.setdefault(split, {})
        counts[label] = counts.get(label, 0) + 1
    findings.images = len(paths)

    forms, modes, same = Counter[str](), Counter[str](), defaultdict[bytes, list[int]](list)
    sizes = np.zeros((len(paths), 2), np.int64)
    read: dict[str, ImageFile] = {}
    for number, file in enumerate(_read_all(str(root), paths, workers, max_pixels)):
        path = paths[number]
        if masked:
            read[path] = file
        if file.error:
            findings.broken[path] = file.error
        elif masked and path.startswith(f"{MASKS}/"):
            if not file.labelled:
                findings.unlabelled.append(path)
        else:
            forms[file.form] += 1
            modes[file.mode] += 1
            sizes[number] = file.size
            same[file.digest].append(number)
            if min(file.size) < crop:
                findings.small.append(path)
    if (right := sizes[sizes.any(1)]).size:
        for axis, sides in enumerate((findings.widths, findings.heights)):
            sides += [float(right[:, axis].min()), float(np.median(right[:, axis])), float(right[:, axis].max())]
    findings.forms, findings.modes = dict(forms.most_common()), dict(modes.most_common())
    for numbers in (group for group in same.values() if len(group) > 1):
        group = [paths[number] for number in numbers]
        findings.duplicates.append(group)
        for part, groups in enumerate((findings.leaks, findings.contradictions)):
            if len({labels[number][part] for number in numbers}) > 1:
                groups.append(group)
    mistakes, remarks = mask_pairs.faults(read) if masked else ([], [])
    findings.mistakes += mistakes
    findings.passed_over += remarks
    return findings


def _add_labels(findings: FolderFindings, folder: ImageFolder) -> None:
    """Note what keeps a classifier from training: validation images that do not fit, and why there are no labels."""
    if problem := folder.val_problem():
        findings.mistakes.append(problem)
    if folder.classes is None:
        classed = [file for file in folder.files if file.count("/") == 1]
        lost = len(classed) < len(folder.files) < 2 * len(classed) and len({file.split("/")[0] for file in classed}) > 1
        (findings.mistakes if lost else findings.passed_over).append(f"no image has a label: {folder.why_unlabelled()}")


def _labelled(root: Path, folder: ImageFolder) -> Iterator[tuple[str, str, str]]:
    """Path below the root, split and class of each image."""
    labelled = folder.classes is not None and not stray(folder.val_files)
    for split, files in ((folder.train, folder.files), (folder.val, folder.val_files)):
        name = "" if split in (None, str(root)) else f"{Path(str(split)).name}/"
        for file in files:
            yield name + file, name or "all", file.partition("/")[0] if labelled else "(no labels)"


def _read_all(root: str, paths: list[str], workers: int, max_pixels: int) -> Iterator[ImageFile]:
    """Every file in order, read by several processes, with a bar."""
    tasks = [(root, paths[start : start + CHUNK], max_pixels) for start in range(0, len(paths), CHUNK)]

    def shown(chunks: Iterable[list[ImageFile]]) -> Iterator[ImageFile]:
        return chain.from_iterable(track(chunks, "reading", len(tasks), console=PlainConsole(stderr=True)))

    if workers == 1:
        yield from shown(map(_read_chunk, tasks))
        return
    with processes(__name__).Pool(min(workers, len(tasks))) as pool:
        yield from shown(pool.imap(_read_chunk, tasks))


def _read_chunk(task: tuple[str, list[str], int]) -> list[ImageFile]:
    root, paths, max_pixels = task
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on what it reads all the same
        return [_read(f"{root}/{path}", max_pixels, path.startswith(f"{MASKS}/")) for path in paths]


def _read(path: str, max_pixels: int, mask: bool) -> ImageFile:
    """Read a file, and decode it as far as shows whether it is whole."""
    try:
        data = contents(path)
        digest = hashlib.sha256(data).digest()
        if not mask and (header := whole(data, max_pixels)):
            return ImageFile(digest, *header)
        image = open_image(data, max_pixels)
        image.load()
        labelled = not mask or image.mode not in MASK_MODES or np.isin(np.asarray(image), (0, 255), invert=True).any()
        return ImageFile(digest, image.format or "", image.mode, image.size, "", bool(labelled))
    except Exception as error:  # decoders raise all sorts on broken files
        return ImageFile(error=unreadable(error))
