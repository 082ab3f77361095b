"""ImageNet-1K and its variants -V2, -A, -R and -C, for `tinymim test` of a classifier of ImageNet's 1000 classes."""

from __future__ import annotations

import logging
import os
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from typing_extensions import override

from tinymim.data.corruption_error import (
    ALEXNET,
    EXTRA,
    corruption_errors,
    corruption_table,
    errors_of,
    mean_errors,
)
from tinymim.data.corruptions import SEVERITIES
from tinymim.data.data_module import Sample, Workers
from tinymim.data.image_files import image_files
from tinymim.data.named_sets import Figures, NamedSet, NamedSets, Report, percent
from tinymim.data.open_image import open_image, unreadable
from tinymim.data.sampler import Draw
from tinymim.data.split_folders import folders_in
from tinymim.data.transforms import PlainView, crop_problems
from tinymim.errors import TinymimError, first_few, several

log = logging.getLogger(__name__)

TITLES = {
    "imagenet": "IN-1K",
    "imagenet_v2": "IN-V2",
    "imagenet_a": "IN-A",
    "imagenet_r": "IN-R",
    "imagenet_c": "IN-C",
}
CLASSES = 1000
"""Classes of a whole test set, but for those of :data:`SUBSETS`."""

SUBSETS = {"imagenet_a": "imagenet_a", "imagenet_r": "imagenet_r"}
"""Test sets of 200 classes, and timm's table of them."""


def synsets(table: str = "imagenet") -> list[str]:
    """The classes of ``imagenet``, ``imagenet_a`` or ``imagenet_r`` in the order of labels, from timm's tables."""
    text = pkgutil.get_data("timm.data", f"_info/{table}_synsets.txt")
    assert text is not None
    return text.decode().split()


@dataclass(eq=False, repr=False)
class Labelled(Dataset[Sample]):
    """Image files with labels. A broken one is named in the log and gets the label -1: it counts in no figure.

    Args:
        folder: that the names are relative to.
        names: of the files, ``(M,)``.
        labels: ``(M,)``.
        view: from an image to what is shown of it.
    """

    folder: str
    names: NDArray[np.bytes_]
    labels: NDArray[np.int64]
    view: PlainView

    def __len__(self) -> int:
        return len(self.names)

    @torch.autocast("cpu", enabled=False)
    def __getitem__(self, draw: Draw) -> Sample:
        path, label = f"{self.folder}/{os.fsdecode(self.names[draw.index])}", int(self.labels[draw.index])
        try:
            image = self.view(open_image(path))["image"]
        except Exception as error:  # decoders raise all sorts on broken files
            log.warning("leaving out %s: %s", path, unreadable(error))
            size = self.view.image_size
            image, label = torch.zeros(3, size, size, dtype=torch.uint8), -1
        return {"image": image, "index": draw.index, "label": label}


class RobustnessData(NamedSets):
    """ImageNet's test sets, any of them, as their authors publish them.

    Class folders are named by WordNet synsets, those of ImageNet-V2 by their number from 0 to 999. Labels follow the
    sorted 1000 synsets, as a classifier that was fine-tuned on a folder of ImageNet has them.

    Args:
        imagenet: the validation images in class folders, or the folder above with ``val/``.
        imagenet_v2: such as ``imagenetv2-matched-frequency-format-val``.
        imagenet_a: ImageNet-A, with its 200 classes.
        imagenet_r: ImageNet-R, with its 200 others.
        imagenet_c: ImageNet-C: corruption/severity/synset; its four archives (``blur/``, ...) may be kept apart.
        image_size: side of the views, in pixels.
        batch_size: of one process.
        num_workers: loading processes.
        crop_pct: share of the shorter side that is seen, of all but ImageNet-C, whose images are cropped already; see
            :class:`tinymim.data.transforms.PlainView`.
    """

    num_classes = 1000

    def __init__(
        self,
        imagenet: str | None = None,
        imagenet_v2: str | None = None,
        imagenet_a: str | None = None,
        imagenet_r: str | None = None,
        imagenet_c: str | None = None,
        image_size: int = 224,
        batch_size: int = 128,
        num_workers: Workers = "auto",
        crop_pct: float | None = None,
    ):
        super().__init__(image_size, batch_size, num_workers)
        self.crop_pct = crop_pct
        roots = (imagenet, imagenet_v2, imagenet_a, imagenet_r, imagenet_c)
        self.folders = {name: Path(root).expanduser() for name, root in zip(TITLES, roots, strict=True) if root}

    @override
    def problems(self) -> list[str]:
        # Looks at folders, and reads no image.
        problems = super().problems() + crop_problems(self.crop_pct)
        if not self.folders:
            options = ", ".join(f"--data.{name}" for name in TITLES)
            problems.append(f"data: no test set is named; give a folder with one of {options}")
        for name in self.folders:
            try:
                for folder in self._parts(name).values():
                    _classes(name, folder)
            except TinymimError as error:
                problems.append(str(error))
        return problems

    def _parts(self, name: str) -> dict[str, Path]:
        """The folders of classes of a test set, by what their :class:`NamedSet` is called.

        Raises:
            TinymimError: no such folder, or none of corruptions.
        """
        folder = self.folders[name]
        if not folder.is_dir():
            raise TinymimError(f"data.{name}: {folder} is no folder")
        if name != "imagenet_c":
            return {name: folder / "val" if name == "imagenet" and (folder / "val").is_dir() else folder}
        corruptions = {*ALEXNET, *EXTRA}
        # Its four archives unpack to blur/, noise/, ..., with the corruptions below them.
        places = [place for place in (*folder.glob("*"), *folder.glob("*/*")) if place.name in corruptions]
        if not places:
            raise TinymimError(
                f"data.{name}: {folder} holds {_some(folders_in(folder))}, and ImageNet-C's folders are corruptions "
                "such as gaussian_noise/1"
            )
        severities = {f"{place.name}/{s}": place / str(s) for place in places for s in SEVERITIES}
        order = {corruption: number for number, corruption in enumerate((*ALEXNET, *EXTRA))}
        existing = [name for name, severity in severities.items() if severity.is_dir()]
        if not existing:
            raise TinymimError(f"data.{name}: {places[0]} holds no severity, which are folders named 1 to 5")
        return {name: severities[name] for name in sorted(existing, key=lambda name: (order[name[:-2]], name))}

    @override
    def prepare(self) -> None:
        if problems := self.problems():
            raise several("the test sets cannot be used", problems)
        all_classes = synsets()
        self.sets = []
        for name in self.folders:
            cropped = name == "imagenet_c"  # its 224 pixels, at 224, are the centre crop alone
            view = PlainView(self.image_size, 1.0 if cropped else self.crop_pct)
            subset = [all_classes.index(synset) for synset in synsets(SUBSETS[name])] if name in SUBSETS else None
            for part, folder in self._parts(name).items():
                labels = _classes(name, folder)
                files = sorted(file for file in image_files(str(folder)) if file.partition("/")[0] in labels)
                if not files:
                    raise TinymimError(f"data.{name}: no images in {folder}")
                names = np.array([os.fsencode(file) for file in files])
                numbers = np.array([labels[file.partition("/")[0]] for file in files], dtype=np.int64)
                self.sets.append(NamedSet(part, Labelled(str(folder), names, numbers, view), subset))

    @override
    def report(self, figures: dict[str, Figures], baseline: dict[str, Figures] | None) -> Report:
        # The columns of the paper's table 4, V2, and the corruptions one by one.
        kept = ("top1", "top5", "images", "unreadable")
        report = Report(
            numbers={name: {key: getattr(figures[name], key) for key in kept} for name in TITLES if name in figures}
        )
        columns = {f"{TITLES[name]} ↑": (figures[name].top1, figures[name].images) for name in report.numbers}
        corrupted = {name: by_set for name, by_set in figures.items() if "/" in name}
        if corrupted:
            self._corrupted(corrupted, columns, report)
        rows = [["per cent", *(percent(share) for share, _ in columns.values())]]
        rows.append(["images", *(f"{images:,}" for _, images in columns.values())])
        report.tables.insert(0, ("robustness", ["", *columns], rows))
        size, before = self.image_size, PlainView(self.image_size, self.crop_pct).shorter
        report.notes.append(f"top-1 accuracy; shorter side to {before}, centre crop of {size}")
        for name in filter(SUBSETS.get, report.numbers):
            report.notes.append(f"{TITLES[name]}: of the 1000 logits those of its 200 classes compete")
        for name in report.numbers:
            whole = 200 if name in SUBSETS else CLASSES
            if (classes := self._fewest_classes(name)) < whole:
                report.notes.append(f"{TITLES[name]}: partial, {classes} of its {whole} classes are in the folder")
        if unreadable := sum(by_set.unreadable for by_set in figures.values()):
            report.notes.append(f"{unreadable} files could not be read and count in no figure; the log names them")
        return report

    def _fewest_classes(self, name: str) -> int:
        """Number of classes that have images in a test set; in that part of ImageNet-C that has fewest."""
        sets = [part for part in self.sets if part.name == name or (name == "imagenet_c" and "/" in part.name)]
        return min(len(np.unique(cast(Labelled, part.images).labels)) for part in sets)

    def _corrupted(self, figures: dict[str, Figures], columns: dict[str, tuple[float, int]], report: Report) -> None:
        """Add ImageNet-C's columns, numbers and table."""
        errors = errors_of(figures)
        images = sum(by_set.images for name, by_set in figures.items() if name.partition("/")[0] in ALEXNET)
        means, relative = mean_errors(errors), corruption_errors(errors, ALEXNET)
        partial = [name for name in ALEXNET if len(errors.get(name, {})) < len(SEVERITIES)]
        # AlexNet's errors are of all images: no mCE from a part of them.
        if not partial and self._fewest_classes("imagenet_c") < CLASSES:
            partial = [f"its {CLASSES} classes"]
        numbers: dict[str, Any] = {"errors": errors, "images": images}
        report.numbers["imagenet_c"] = numbers
        if not partial:
            numbers |= {"ce": relative, "mce": mean(relative.values())}
            columns["IN-C mCE ↓"] = (numbers["mce"], images)
            report.notes.append(
                "mCE: error of each corruption summed over 5 severities, divided by AlexNet's, mean over 15 corruptions"
            )
        else:
            report.notes.append(f"IN-C: partial, so no mCE; not whole: {', '.join(partial)}")
        if counted := [means[name] for name in ALEXNET if name in means]:
            numbers["mean_error"] = mean(counted)
            columns["IN-C error ↓"] = (numbers["mean_error"], images)
        report.notes.append(f"IN-C: no resizing at 224, centre crop of {self.image_size}; its error is the plain mean")
        report.tables.append(corruption_table(errors, {} if partial else {"CE": relative}))


def _classes(name: str, folder: Path) -> dict[str, int]:
    """The label of each class folder.

    Raises:
        TinymimError: folders of other names than the set's.
    """
    names = folders_in(folder)
    if name == "imagenet_v2" and names and all(number.isdecimal() and int(number) < 1000 for number in names):
        return {number: int(number) for number in names}  # sorted as words, 10 would come before 2
    labels = {synset: number for number, synset in enumerate(synsets(SUBSETS.get(name, "imagenet")))}
    strange = [synset for synset in names if synset not in labels]
    if strange or not names:
        also = " or 0 to 999" if name == "imagenet_v2" else ""
        raise TinymimError(
            f"data.{name}: {folder} has classes named {_some(strange)}, and the {len(labels)} of {TITLES[name]} are "
            f"synsets such as {next(iter(labels))}{also}"
        )
    return {synset: labels[synset] for synset in names}


def _some(names: list[str]) -> str:
    return first_few(names) or "no folder"
