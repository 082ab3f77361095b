"""``tinymim data check DIR``: what is in a folder of images and what is wrong with it, before anything trains on it."""

from __future__ import annotations

import argparse
import hashlib
import io
import multiprocessing
import os
import statistics
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from rich.progress import track
from rich.table import Table

from tinymim.data.image_files import classes, image_files, rgb, root_problems, splits, stray, unreadable
from tinymim.errors import TinymimError
from tinymim.files import write_json
from tinymim.safety.console import PlainConsole

SHOWN = 20  # broken files, groups of duplicates and classes on the screen; the JSON file has all


@dataclass
class ImageReport:
    """One image file: the hash of its bytes, and its form or why it cannot be decoded."""

    path: str
    sha256: str = ""
    form: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    error: str = ""


@dataclass
class Findings:
    """Contents of a folder of images. Paths are relative to it.

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

    def wrong(self) -> str:
        """Faults that no training should begin with, in words; empty where there are none."""
        broken = f"{len(self.broken)} of {self.images} images cannot be read" if self.broken else ""
        leaks = f"{len(self.leaks)} images are in train/ and in val/" if self.leaks else ""
        return " and ".join(filter(None, (broken, leaks)))


def main(arguments: list[str]) -> int:
    """Run ``tinymim data check DIR [--workers N] [--crop 224] [--json FILE]``."""
    parser = argparse.ArgumentParser(prog="tinymim data", description=__doc__, allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True)
    checking = actions.add_parser(
        "check", help="counts, sizes, broken files, duplicates; exit code 1 if it found faults"
    )
    checking.add_argument("folder", help="with train/ and val/, with class folders, or with images anyhow")
    checking.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (one a core)")
    checking.add_argument("--crop", type=int, default=224, help="count images with a side below this (224)")
    checking.add_argument("--json", type=Path, help="write all findings to this file")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        raise TinymimError(f"--workers: {options.workers} is not 1 or more")
    if options.json and (options.json.is_dir() or not options.json.parent.is_dir()):
        raise TinymimError(f"--json: {options.json} is a folder, or lies in none; give a file to be written")
    findings = check(options.folder, options.workers, options.crop)
    show(findings, options.crop)
    if options.json:
        write_json(options.json, vars(findings))
    if wrong := findings.wrong():
        print(f"{findings.root}: {wrong}")
        return 1
    print(f"{findings.root}: in order")
    return 0


def check(folder: str, workers: int, crop: int) -> Findings:
    """Read every image that a training on ``folder`` would.

    Raises:
        TinymimError: there is no such folder, or no image in it.
    """
    if problems := root_problems(folder):
        raise TinymimError("; ".join(problems))
    root = Path(folder).expanduser()
    findings = Findings(str(root))
    place: dict[str, tuple[str, str]] = {}  # split and class of each image
    labelled = True
    for split in filter(None, splits(root)):
        name = "" if split == str(root) else f"{Path(split).name}/"
        files = sorted(image_files(split))
        labelled = labelled and (classes(files) is not None if name != "val/" else not stray(files))
        for file in files:
            place[name + file] = (name or "all", file.partition("/")[0] if labelled else "(no labels)")
    for split, label in place.values():
        each = findings.splits.setdefault(split, {})
        each[label] = each.get(label, 0) + 1
    findings.images = len(place)
    _sum_up(findings, list(_read_all(root, list(place), workers)), place, crop)
    return findings


def _read_all(root: Path, paths: list[str], workers: int) -> Iterator[ImageReport]:
    """In order, by several processes, with a bar."""
    tasks = ((str(root), path) for path in paths)
    console = PlainConsole(stderr=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on what it reads all the same
        if workers == 1:
            yield from track(map(_read_image, tasks), "reading", len(paths), console=console)
            return
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        with context.Pool(workers) as pool:
            yield from track(pool.imap(_read_image, tasks, chunksize=16), "reading", len(paths), console=console)


def _read_image(task: tuple[str, str]) -> ImageReport:
    """Read a file and decode it whole."""
    root, path = task
    report = ImageReport(path)
    try:
        data = Path(root, path).read_bytes()
        if not data:
            raise OSError("the file is empty")
        report.sha256 = hashlib.sha256(data).hexdigest()
        with Image.open(io.BytesIO(data)) as image:
            report.form, report.mode, report.size = image.format or "", image.mode, image.size
            rgb(image)
    except Exception as error:  # decoders raise all sorts on broken files
        report.error = unreadable(error)
    return report


def _sum_up(findings: Findings, reports: list[ImageReport], place: dict[str, tuple[str, str]], crop: int) -> None:
    right = [report for report in reports if not report.error]
    findings.broken = {report.path: report.error for report in reports if report.error}
    for axis, sizes in enumerate((findings.widths, findings.heights)):
        if values := [report.size[axis] for report in right]:
            sizes += [min(values), statistics.median(values), max(values)]
    findings.small = [report.path for report in right if min(report.size) < crop]
    findings.forms = dict(Counter(report.form for report in right).most_common())
    findings.modes = dict(Counter(report.mode for report in right).most_common())
    groups = defaultdict(list)
    for report in right:
        groups[report.sha256].append(report.path)
    findings.duplicates = [group for group in groups.values() if len(group) > 1]
    findings.leaks = [group for group in findings.duplicates if len({place[path][0] for path in group}) > 1]
    findings.contradictions = [group for group in findings.duplicates if len({place[path][1] for path in group}) > 1]


def show(findings: Findings, crop: int) -> None:
    """Print the tables."""
    console = PlainConsole()
    table = Table(title=findings.root, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for split, each in findings.splits.items():
        counts = sorted(each.values())
        spread = (
            f" in {len(each)} classes, {counts[0]} to {counts[-1]} in each" if len(each) > 1 else f" {next(iter(each))}"
        )
        table.add_row(split, f"{sum(counts)} images{spread}")
        if 1 < len(each) <= SHOWN:
            table.add_row("", ", ".join(f"{label} {count}" for label, count in each.items()))
    for name, sizes in (("width", findings.widths), ("height", findings.heights)):
        table.add_row(name, f"{sizes[0]:g} to {sizes[2]:g} pixels, median {sizes[1]:g}" if sizes else "-")
    table.add_row("smaller", f"{len(findings.small)} have a side below {crop} pixels and are enlarged in every crop")
    for name, counted in (("formats", findings.forms), ("modes", findings.modes)):
        table.add_row(name, ", ".join(f"{what} {count}" for what, count in counted.items()) or "-")
    console.print(table)
    groups = [
        ("cannot be read", [f"{path}: {error}" for path, error in findings.broken.items()]),
        ("the same image in train/ and val/", [" = ".join(group) for group in findings.leaks]),
        ("the same image in several classes", [" = ".join(group) for group in findings.contradictions]),
        ("the same bytes", [" = ".join(group) for group in findings.duplicates if group not in findings.leaks]),
    ]
    for title, lines in groups:
        if lines:
            more = f"; the first {SHOWN}, and all with --json FILE" if len(lines) > SHOWN else ""
            console.print(f"{title} ({len(lines)}{more}):")
            for line in lines[:SHOWN]:
                console.print(f"  {line}", soft_wrap=True)
