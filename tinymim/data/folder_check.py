"""Faults in a folder of images, before anything trains on it: broken files, duplicates, leaks between splits."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import statistics
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from rich.progress import track

from tinymim.data.image_files import classes, image_files, rgb, root_problems, splits, stray, unreadable, whole
from tinymim.errors import TinymimError
from tinymim.safety.console import PlainConsole


@dataclass
class ImageFile:
    """One file: the hash of its bytes, and its form or why it cannot be decoded."""

    path: str
    sha256: str = ""
    form: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    error: str = ""


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

    def faults(self) -> str:
        """Faults that a training should not begin with, in words; empty where there are none."""
        faults = []
        if self.broken:
            faults.append(f"{len(self.broken)} of {self.images} images cannot be read")
        if self.leaks:
            faults.append(f"{len(self.leaks)} images are in train/ and in val/")
        return " and ".join(faults)


def check(folder: str, workers: int, crop: int) -> FolderFindings:
    """Read every image that a training on ``folder`` would.

    Args:
        folder: with ``train/`` and ``val/``, with class folders, or with images anyhow.
        workers: processes that read.
        crop: side in pixels below which an image is small.

    Raises:
        TinymimError: there is no such folder, or no image in it.
    """
    if problems := root_problems(folder):
        raise TinymimError("; ".join(problems))
    root = Path(folder).expanduser()
    labels = _labels(root)
    findings = FolderFindings(str(root), len(labels))
    for split, label in labels.values():
        counts = findings.splits.setdefault(split, {})
        counts[label] = counts.get(label, 0) + 1

    files = list(_read_all(root, list(labels), workers))
    right = [file for file in files if not file.error]
    findings.broken = {file.path: file.error for file in files if file.error}
    for axis, sides in enumerate((findings.widths, findings.heights)):
        if values := [file.size[axis] for file in right]:
            sides += [min(values), statistics.median(values), max(values)]
    findings.small = [file.path for file in right if min(file.size) < crop]
    findings.forms = dict(Counter(file.form for file in right).most_common())
    findings.modes = dict(Counter(file.mode for file in right).most_common())

    same = defaultdict(list)
    for file in right:
        same[file.sha256].append(file.path)
    findings.duplicates = [group for group in same.values() if len(group) > 1]
    findings.leaks = [group for group in findings.duplicates if len({labels[path][0] for path in group}) > 1]
    findings.contradictions = [group for group in findings.duplicates if len({labels[path][1] for path in group}) > 1]
    return findings


def _labels(root: Path) -> dict[str, tuple[str, str]]:
    """Split and class of each image, by its path."""
    labels: dict[str, tuple[str, str]] = {}
    labelled = True
    for split in filter(None, splits(root)):
        name = "" if split == str(root) else f"{Path(split).name}/"
        files = sorted(image_files(split))
        labelled = labelled and (classes(files) is not None if name != "val/" else not stray(files))
        for file in files:
            labels[name + file] = (name or "all", file.partition("/")[0] if labelled else "(no labels)")
    return labels


def _read_all(root: Path, paths: list[str], workers: int) -> Iterator[ImageFile]:
    """Every file in order, read by several processes, with a bar."""
    tasks = ((str(root), path) for path in paths)
    console = PlainConsole(stderr=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on what it reads all the same
        if workers == 1:
            yield from track(map(_read, tasks), "reading", len(paths), console=console)
            return
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        with context.Pool(workers) as pool:
            yield from track(pool.imap(_read, tasks, chunksize=16), "reading", len(paths), console=console)


def _read(task: tuple[str, str]) -> ImageFile:
    """Read a file and decode it whole."""
    root, path = task
    file = ImageFile(path)
    try:
        data = whole(Path(root, path))
        if not data:
            raise OSError("the file is empty")
        file.sha256 = hashlib.sha256(data).hexdigest()
        with Image.open(io.BytesIO(data)) as image:
            file.form, file.mode, file.size = image.format or "", image.mode, image.size
            rgb(image)
    except Exception as error:  # decoders raise all sorts on broken files
        file.error = unreadable(error)
    return file
