"""The cache of one run: fetch what is stored for a batch, store what was missing, and say what a user should know."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.filesize import decimal as size
from torch import Tensor

from tinymim.errors import TinymimError
from tinymim.files import unwritten
from tinymim.log import say
from tinymim.teacher_cache.forms import Form
from tinymim.teacher_cache.records import Records
from tinymim.teacher_cache.storage import Folder, filled, name_of

VARIABLE = "TINYMIM_TEACHER_CACHE"  # names the cache's place where no option does
DEFAULT = Path("runs") / "teacher_cache"

View = NDArray[np.int64]  # tags of a batch's samples, ``(B, 3)``: part, view, record (see ``tinymim/data/repeated.py``)


def place(option: str | None = None) -> Path:
    """Folder of the cache: as ``option`` says, else as :data:`VARIABLE` says, else :data:`DEFAULT`."""
    return Path(option or os.environ.get(VARIABLE) or DEFAULT).expanduser()


@dataclass
class StoredSet:
    """A data set whose views are stored: its key, names of teacher and data for people, its images, and views of
    each."""

    key: dict[str, Any]
    about: dict[str, str]
    images: int
    views: int


class Cache:
    """Stored readings of a teacher, in the ``forms`` of each view, for the data sets in ``parts``, by their number;
    ``None`` is one that is not stored. A ``trial``, for speed and sizes alone, writes nothing: it reads what is there
    where nothing is lacking, and else uses another, empty place, which is removed in the end.

    Raises:
        TinymimError: the disk has less room than is needed, or a folder does not hold what its name says.
    """

    def __init__(self, root: Path, forms: list[Form], parts: list[StoredSet | None], trial: bool = False):
        self.root, self.forms, self.parts = root, forms, parts
        records = sum(form.size + 4 for form in forms)
        self.whole = sum(part.images * part.views * records for part in parts if part)
        counts = [self._counts(self.root / name_of(part.key, part.images), part) if part else [] for part in parts]
        self._room(counts)
        whole = not any(
            _lacking(each, part.views, part.images) for each, part in zip(counts, parts, strict=True) if part
        )
        self.storing = not (trial and whole)
        self._trial = tempfile.TemporaryDirectory(prefix="tinymim_cache_") if trial and not whole else None
        there = Path(self._trial.name) if self._trial else root
        self._folders = [self._folder(there, part) for part in parts]
        self.lacking = [
            _lacking(filled_views if folder else [], part.views, part.images) if part else 0
            for filled_views, folder, part in zip(counts, self._folders, parts, strict=True)
        ]
        """Of each part, the views of images that lacked some record when it was opened."""

    def _counts(self, path: Path, part: StoredSet) -> list[dict[int, int]]:
        """Number of records of each form in a folder, which need not exist, for each view."""
        return [filled(path, form, part.images) for form in self.forms]

    def _room(self, counts: list[list[dict[int, int]]]) -> None:
        missing = sum(
            form.size * _lacking([filled_views], part.views, part.images)
            for part, each in zip(self.parts, counts, strict=True)
            if part
            for form, filled_views in zip(self.forms, each, strict=True)
        )
        place = self.root
        while not place.exists():
            place = place.absolute().parent
        if not place.is_dir():
            raise TinymimError(f"teacher_cache_dir: {place} is no folder; name one for what the teacher gives")
        free = shutil.disk_usage(place).free
        if missing > free:
            raise TinymimError(
                f"teacher_cache: {size(missing)} would be written to {self.root}, and the disk has {size(free)} free; "
                "take fewer views, another disk (teacher_cache_dir), or teacher_cache: null"
            )

    def _folder(self, root: Path, part: StoredSet | None) -> Folder | None:
        try:
            return Folder(root, part.key, part.about, part.images, say) if part else None
        except OSError as error:
            self._refused(error)
        return None

    def _records(self, form: Form, part: int, view: int) -> Records | None:
        folder = self._folders[part]
        try:
            return folder.records(form, view) if folder else None
        except OSError as error:
            self._refused(error)
        return None

    def _refused(self, error: OSError) -> None:
        if self.storing:
            self.storing = False
            say(
                f"teacher_cache: {self.root} cannot be written: {unwritten(error) or error}; going on without storing: "
                "what is not there yet is computed in every epoch"
            )

    def fetch(self, view: View, pinned: bool = False) -> tuple[dict[str, Tensor], list[int]]:
        """Records of a batch on the host, int8 ``(B, size)`` by the name of their form, and the samples for which some
        are missing; ``pinned`` in memory from which a GPU can copy on its own."""
        there = np.ones(len(view), bool)
        records_of = {}
        for form in self.forms:
            records = torch.empty(len(view), form.size, dtype=torch.int8, pin_memory=pinned)
            there &= self._read(form, view, records.numpy().view(np.uint8))
            records_of[form.name] = records
        return records_of, np.flatnonzero(~there).tolist()

    def _read(self, form: Form, view: View, into: NDArray[np.uint8]) -> NDArray[np.bool_]:
        there = np.zeros(len(view), bool)
        for part, number, rows in _groups(view):
            if (records := self._records(form, part, number)) is None:
                continue
            if rows.all():
                there = records.read(view[:, 2], into)
            else:
                part_rows = np.empty((int(rows.sum()), form.size), np.uint8)
                there[rows] = records.read(view[rows, 2], part_rows)
                into[rows] = part_rows
        return there

    def store(self, view: View, computed: dict[str, Tensor]) -> None:
        """Write the records of some samples, ``(M, size)`` by the name of their form; not those that hold infinities,
        and nothing once a write has failed."""
        for form in self.forms:
            if not self.storing:
                return
            records = computed[form.name].cpu()
            right = form.decode(records).isfinite().flatten(1).all(1).numpy()
            for part, number, rows in _groups(view):
                rows &= right
                try:
                    if opened := self._records(form, part, number):
                        opened.write(view[rows, 2], records.numpy().view(np.uint8)[rows])
                except OSError as error:
                    self._refused(error)

    def missing(self, part: int, views: int | None = None) -> int:
        """Views of images of a part that lack some record now, of the first ``views``; all where they cannot be
        opened. For a trial those that it has computed count as there."""
        data, folder = self.parts[part], self._folders[part]
        if data is None:
            return 0
        count = data.views if views is None else min(data.views, views)
        places = [folder.path, *([self.root / folder.path.name] if self._trial else [])] if folder else []
        there = sum(count * data.images - _lacking(self._counts(path, data), count, data.images) for path in places)
        return max(count * data.images - there, 0)

    def describe(self) -> str:
        """Place, size, and how much was there when it was opened, for people."""
        records = sum(part.images * part.views for part in self.parts if part)
        each = sum(form.size for form in self.forms)
        return (
            f"{self.root}: {size(self.whole)} in all, {size(each)} a view of an image, "
            f"{1 - sum(self.lacking) / max(records, 1):.0%} of it there"
        )

    def close(self) -> None:
        """Let go of the files."""
        for folder in self._folders:
            if folder:
                folder.close()
        self._folders = []
        if self._trial:
            self._trial.cleanup()


def _lacking(counts: list[dict[int, int]], views: int, images: int) -> int:
    """Views of images, of the first ``views``, that lack a record of some form, given those of each form by view."""
    there = sum(min(each.get(view, 0) for each in counts) for view in counts[0] if view < views) if counts else 0
    return views * images - there


def _groups(view: View) -> list[tuple[int, int, NDArray[np.bool_]]]:
    """Parts and views among the samples that have a record, and which samples are of each."""
    kept = view[view[:, 2] >= 0]
    distinct = np.unique(kept[:, :2], axis=0).tolist()
    return [
        (part, number, (view[:, 0] == part) & (view[:, 1] == number) & (view[:, 2] >= 0)) for part, number in distinct
    ]
