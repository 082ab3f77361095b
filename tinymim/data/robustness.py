"""ImageNet-1K and its variants -V2, -A, -R and -C, for `tinymim test` of a classifier of ImageNet's 1000 classes."""

from __future__ import annotations

import logging
import os
import pkgutil
from pathlib import Path
from statistics import mean
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from tinymim.data.corruption_error import ALEXNET, EXTRA, Errors, corruption_errors, mean_errors
from tinymim.data.corruptions import SEVERITIES
from tinymim.data.image_limits import image_files, open_image, unreadable
from tinymim.data.module import Sample
from tinymim.data.named import Figures, NamedSet, NamedSets, Report, percent
from tinymim.data.sampler import Draw
from tinymim.data.transforms import PlainView, crop_problems
from tinymim.errors import TinymimError, several

log = logging.getLogger(__name__)

TITLES = {
    "imagenet": "IN-1K",
    "imagenet_v2": "IN-V2",
    "imagenet_a": "IN-A",
    "imagenet_r": "IN-R",
    "imagenet_c": "IN-C",
}
CLASSES = 1000
"""Of a whole test set that is not of a subset."""

SUBSETS = {"imagenet_a": "imagenet_a", "imagenet_r": "imagenet_r"}
"""Those of 200 classes, and timm's table of them."""


def synsets(table: str = "imagenet") -> list[str]:
    """The classes of ``imagenet``, ``imagenet_a`` or ``imagenet_r`` in the order of labels, from timm's tables."""
    text = pkgutil.get_data("timm.data", f"_info/{table}_synsets.txt")
    assert text is not None
    return text.decode().split()


class SquareView(PlainView):
    """The shorter side to ``image_size`` and a square crop, for images that were cropped already: at their own size, as
    ImageNet-C's 224 at 224, it is the centre crop alone.

    Args:
        image_size: side of the view, in pixels.
    """

    def __init__(self, image_size: int):
        super().__init__(image_size, 1.0)


class Labelled(Dataset[Sample]):
    """Image files with labels. A broken one is named in the log and gets the label -1: it counts in no figure.

    Args:
        folder: that the names are relative to.
        names: of the files, ``(M,)``.
        labels: ``(M,)``.
        view: from an image to what is shown of it.
    """

    def __init__(self, folder: str, names: NDArray[np.bytes_], labels: NDArray[np.int64], view: PlainView):
        self.folder, self.names, self.labels, self.view = folder, names, labels, view

    def __len__(self) -> int:
        return len(self.names)

    @property
    def classes_there(self) -> int:
        """How many classes have images."""
        return len(np.unique(self.labels))

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
        num_workers: int = 2,
        crop_pct: float | None = None,
    ):
        super().__init__(image_size, batch_size, num_workers)
        self.crop_pct = crop_pct
        given = {
            "imagenet": imagenet,
            "imagenet_v2": imagenet_v2,
            "imagenet_a": imagenet_a,
            "imagenet_r": imagenet_r,
            "imagenet_c": imagenet_c,
        }
        self.folders = {name: Path(path).expanduser() for name, path in given.items() if path}

    def problems(self) -> list[str]:
        """No folder, one that is not there, or classes that are not the set's. Looks at folders, and reads no image."""
        found = super().problems() + crop_problems(self.crop_pct)
        if not self.folders:
            found.append(f"data: no test set is named; give a folder with one of {', '.join(map(_option, TITLES))}")
        for name in self.folders:
            try:
                for folder in self._parts(name).values():
                    _classes(name, folder)
            except TinymimError as error:
                found.append(str(error))
        return found

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
        known = {*ALEXNET, *EXTRA}
        places = [place for place in (*folder.glob("*"), *folder.glob("*/*")) if place.name in known]
        if not places:
            raise TinymimError(
                f"data.{name}: {folder} holds {_some(_names(folder))}, and ImageNet-C's folders are corruptions such "
                "as gaussian_noise/1"
            )
        found = {f"{place.name}/{s}": place / str(s) for place in places for s in SEVERITIES}
        order = {corruption: number for number, corruption in enumerate((*ALEXNET, *EXTRA))}
        there = sorted((one for one in found if found[one].is_dir()), key=lambda one: (order[one[:-2]], one))
        if not there:
            raise TinymimError(f"data.{name}: {places[0]} holds no severity, which are folders named 1 to 5")
        return {one: found[one] for one in there}

    def prepare(self) -> None:
        """List the files.

        Raises:
            TinymimError: there are :meth:`problems`.
        """
        if found := self.problems():
            raise several("the test sets cannot be used", found)
        everything = synsets()
        self.sets = []
        for name in self.folders:
            cropped = name == "imagenet_c"
            view = SquareView(self.image_size) if cropped else PlainView(self.image_size, self.crop_pct)
            subset = [everything.index(one) for one in synsets(SUBSETS[name])] if name in SUBSETS else None
            for part, folder in self._parts(name).items():
                labels = _classes(name, folder)
                files = sorted(file for file in image_files(str(folder)) if file.partition("/")[0] in labels)
                if not files:
                    raise TinymimError(f"data.{name}: no images in {folder}")
                names = np.array([os.fsencode(file) for file in files])
                numbers = np.array([labels[file.partition("/")[0]] for file in files], dtype=np.int64)
                self.sets.append(NamedSet(part, Labelled(str(folder), names, numbers, view), subset))

    def report(self, found: dict[str, Figures], baseline: dict[str, Figures] | None) -> Report:
        """The columns of the paper's table 4, V2, and the corruptions one by one."""
        report = Report(numbers={name: _numbers(found[name]) for name in TITLES if name in found})
        columns = {f"{TITLES[name]} ↑": (found[name].top1, found[name].images) for name in report.numbers}
        shots = {name: figures for name, figures in found.items() if "/" in name}
        if shots:
            self._corrupted(shots, columns, report)
        rows = [["per cent", *(percent(share) for share, _ in columns.values())]]
        rows.append(["images", *(f"{images:,}" for _, images in columns.values())])
        report.tables.insert(0, ("robustness", ["", *columns], rows))
        size, before = self.image_size, PlainView(self.image_size, self.crop_pct).shorter
        report.notes.append(f"top-1 accuracy; shorter side to {before}, centre crop of {size}")
        for name in filter(SUBSETS.get, report.numbers):
            report.notes.append(f"{TITLES[name]}: of the 1000 logits those of its 200 classes compete")
        for name in report.numbers:
            whole = 200 if name in SUBSETS else CLASSES
            if (there := min(one.classes_there for one in self._of(name))) < whole:
                report.notes.append(f"{TITLES[name]}: partial, {there} of its {whole} classes are in the folder")
        if left := sum(figures.unreadable for figures in found.values()):
            report.notes.append(f"{left} files could not be read and count in no figure; the log names them")
        return report

    def _of(self, name: str) -> list[Labelled]:
        """The images of a test set, which are several of ImageNet-C's."""
        own = [one.images for one in self.sets if one.name == name or (name == "imagenet_c" and "/" in one.name)]
        return cast(list[Labelled], own)

    def _corrupted(self, shots: dict[str, Figures], columns: dict[str, tuple[float, int]], report: Report) -> None:
        """Add what belongs to ImageNet-C."""
        errors = errors_of(shots)
        images = sum(figures.images for name, figures in shots.items() if name.partition("/")[0] in ALEXNET)
        means, relative = mean_errors(errors), corruption_errors(errors, ALEXNET)
        partial = [name for name in ALEXNET if len(errors.get(name, {})) < len(SEVERITIES)]
        if not partial and min(one.classes_there for one in self._of("imagenet_c")) < CLASSES:
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


def errors_of(found: dict[str, Figures]) -> Errors:
    """Top-1 errors by corruption and severity, from figures of sets that are named ``corruption/severity``."""
    errors: Errors = {}
    for name, figures in found.items():
        corruption, _, severity = name.partition("/")
        errors.setdefault(corruption, {})[int(severity)] = figures.error
    return errors


def corruption_table(errors: Errors, beside: dict[str, dict[str, float]]) -> tuple[str, list[str], list[list[str]]]:
    """Per cent of error by corruption and severity, their mean, and what is ``beside`` it under its head."""
    severities = sorted({severity for by_severity in errors.values() for severity in by_severity})
    means = mean_errors(errors)
    rows = [
        [name, *(percent(by.get(s)) for s in severities), percent(means[name])]
        + [percent(column.get(name)) for column in beside.values()]
        for name, by in errors.items()
    ]
    return "error by corruption and severity", ["corruption", *map(str, severities), "mean", *beside], rows


def _classes(name: str, folder: Path) -> dict[str, int]:
    """The label of each class folder.

    Raises:
        TinymimError: folders of other names than the set's.
    """
    there = _names(folder)
    if name == "imagenet_v2" and there and all(one.isdecimal() and int(one) < 1000 for one in there):
        return {one: int(one) for one in there}  # sorted as words, 10 would come before 2
    labels = {one: number for number, one in enumerate(synsets(SUBSETS.get(name, "imagenet")))}
    if strange := [one for one in there if one not in labels] or ([] if there else ["no folder"]):
        also = " or 0 to 999" * (name == "imagenet_v2")
        raise TinymimError(
            f"data.{name}: {folder} has classes named {_some(strange)}, and the {len(labels)} of {TITLES[name]} are "
            f"synsets such as {next(iter(labels))}{also}"
        )
    return {one: labels[one] for one in there}


def _names(folder: Path) -> list[str]:
    """Of the folders in it."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "no folder"


def _option(name: str) -> str:
    return f"--data.{name}"


def _numbers(figures: Figures) -> dict[str, float]:
    return {"top1": figures.top1, "top5": figures.top5, "images": figures.images, "unreadable": figures.unreadable}
