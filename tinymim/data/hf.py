"""Hugging Face datasets, on disk or from the hub, each image decoded when it is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from typing_extensions import override

from tinymim import extras
from tinymim.data import opened
from tinymim.data.datasets import ImageDataset
from tinymim.data.image_data import ViewedData, class_names, numbered
from tinymim.data.open_image import open_image
from tinymim.data.sampled_pixels import pixels_hash
from tinymim.data.split_folders import VAL
from tinymim.errors import TinymimError, first_few, several
from tinymim.safety.signatures import HEAD, form

VALIDATION = ("validation", *VAL)  # what a dataset may call the split to hold out
SECONDS = 5  # until a hub that does not answer is given up


@dataclass(eq=False, repr=False, kw_only=True)
class TableImages(ImageDataset):
    """Images in a column of a Hugging Face dataset; ``rows`` are numbers of its rows.

    Args:
        column: the images alone, undecoded: rows of bytes, or of a path where there are none.
    """

    column: Any

    @override
    def name(self, index: int) -> str:
        return f"{self.source}: row {self.rows[index]}"

    @override
    def image(self, index: int) -> Image.Image:
        (cell,) = self.column[int(self.rows[index])].values()
        return open_image((cell["bytes"] or cell["path"]) if isinstance(cell, dict) else cell, self.max_pixels)

    @override
    def contents(self) -> list[Any]:
        return [self.column._fingerprint, *self.places()]  # any change of the column changes the first

    @override
    def places(self) -> list[Any]:
        return [len(self.column), self.rows]

    def sampled(self) -> str:
        """Hash of some images' pixels."""
        return pixels_hash(self)


class HFData(ViewedData):
    """A Hugging Face dataset: a folder that ``save_to_disk`` wrote, a folder or file that ``load_dataset`` reads
    (parquet, arrow, images), or one on the hub by its name.

    There are labels if all training rows have one and two or more differ.

    Args:
        dataset: path or name, or one from :func:`tinymim.data.opened.name_of`.
        revision: of one on the hub.
        subset: of one on the hub that has several.
        train_split: to train on.
        val_split: to hold out; ``None`` takes ``validation``, ``val``, ``valid`` or ``dev``, or holds a fraction of the
            other out.
        image_key: column of the images.
        label_key: column of the labels, if there is one.
        options: of :class:`ViewedData`.
    """

    def __init__(
        self,
        dataset: str | None = None,
        revision: str | None = None,
        subset: str | None = None,
        train_split: str = "train",
        val_split: str | None = None,
        image_key: str = "image",
        label_key: str = "label",
        **options: Any,
    ):
        super().__init__(**options)
        self.dataset, self.revision, self.subset = dataset, revision, subset
        self.train_split, self.val_split = train_split, val_split
        self.image_key, self.label_key = image_key, label_key
        self._splits: dict[str, Any] = {}

    @override
    def problems(self) -> list[str]:
        # Asks no server.
        problems = super().problems()
        problems = [*extras.missing("data: HFData needs", "datasets"), *problems]
        if self.dataset is None:
            what = "a folder that save_to_disk wrote, or a name on the hub"
            problems.insert(0, f"data.dataset is not set: give --data.dataset PATH, {what}")
        elif self.dataset.startswith(opened.PREFIX):
            problems += [error] if (error := opened.error("dataset", self.dataset)) else []
        elif not self._path().exists() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", self.dataset):
            problems.insert(0, f"data.dataset: {self.dataset} does not exist, and is no name on the hub (OWNER/NAME)")
        return problems

    @override
    def source(self) -> str:
        return opened.called(self.dataset or "")

    @override
    def prepare_data(self) -> None:
        # In one process a machine: what is fetched and converted here, the others find.
        self._load()

    @override
    def prepare(self) -> None:
        # Classes are those that the dataset names, where all rows have one, or else those that the labels speak of.
        self._load()
        train, held_out = self._split(self.train_split), None
        labels, names = self._labels(train)
        self.classes = names if names and "" not in labels else class_names(labels)
        used = [self.train_split]
        if val := self.val_split or next((name for name in VALIDATION if name in self._splits), None):
            held_out = self._images(val, self._labels(self._split(val))[0])
            used.append(val)
        if unused := [f"{name} ({len(rows)} rows)" for name, rows in self._splits.items() if name not in used]:
            self.notes.append(f"{first_few(unused)} not read")
        unlabelled = labels.count("")
        why = f"{unlabelled} of {len(labels)} rows have none in {self.label_key!r}" if unlabelled else "all the same"
        self.divide(self._images(self.train_split, labels), held_out, "dataset", why)

    def _path(self) -> Path:
        return Path(self.dataset or "").expanduser()

    def _load(self) -> None:
        """Open all splits, once."""
        if self._splits:
            return
        if problems := self.problems():
            raise several("the data cannot be used", problems)
        try:
            opened = self._opened()
        except TinymimError:
            raise
        except Exception as error:  # the library's are of many types
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            remedy = "" if self._path().exists() else "; is there a network? A folder on this machine needs none"
            raise TinymimError(f"data.dataset: {self.dataset} cannot be read: {reason}{remedy}") from error
        self._splits = dict(opened) if isinstance(opened, dict) else {self.train_split: opened}

    def _opened(self) -> Any:
        import datasets

        if (dataset := opened.find(self.dataset)) is not None:
            return dataset
        path = self._path()
        if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
            return datasets.load_from_disk(str(path))
        if path.is_file():
            with path.open("rb") as stream:
                words = form(stream.read(HEAD))
            if words.startswith(("a Git", "a git", "a web page", "zeros")):
                raise TinymimError(f"data.dataset: {path} is {words}")
            return datasets.load_dataset(path.suffix.lstrip("."), data_files=str(path))
        if path.is_dir():
            return datasets.load_dataset(str(path))
        with _offline_unless_reached(str(self.dataset), self.revision):
            return datasets.load_dataset(str(self.dataset), self.subset, revision=self.revision)

    def _split(self, name: str) -> Any:
        if name not in self._splits:
            raise TinymimError(f"data: {self.source()} has no split {name!r}; it has {', '.join(self._splits)}")
        return self._splits[name]

    def _labels(self, table: Any) -> tuple[list[str], list[str] | None]:
        """A label a row, empty where there is none; and the names of all classes, where the dataset knows them."""
        if self.label_key not in table.column_names:
            return [""] * len(table), None
        feature = table.features[self.label_key]
        kind, names = str(getattr(feature, "dtype", feature)), getattr(feature, "names", None)
        if not kind.lstrip("u").startswith(("int", "bool", "string", "large_string")):
            raise TinymimError(f"data.label_key: {self.label_key} holds {kind}, and a label is a number or a name")
        values = table.with_format(None)[self.label_key][:]
        if names:
            return ["" if value is None or value < 0 else names[value] for value in values], names
        return ["" if value is None else str(value) for value in values], None

    def _images(self, name: str, labels: list[str]) -> TableImages:
        from datasets import Image as ImageFeature

        table, source = self._split(name), f"{self.source()} ({name})"
        if self.image_key not in table.column_names:
            raise TinymimError(
                f"data.image_key: {source} has no column {self.image_key!r}; it has {', '.join(table.column_names)}"
            )
        column = table.select_columns([self.image_key]).with_format(None)
        if isinstance(column.features[self.image_key], ImageFeature):
            column = column.cast_column(self.image_key, ImageFeature(decode=False))
        numbers = numbered(labels, self.classes, source) if self.classes else None
        return TableImages(source, np.arange(len(table)), numbers, self.plain(), column=column)


@contextmanager
def _offline_unless_reached(name: str, revision: str | None) -> Iterator[None]:
    """Ask the hub once; where it does not answer, send the library to its cache, or it would try for half a minute."""
    import datasets
    import huggingface_hub

    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    try:
        huggingface_hub.HfApi().dataset_info(name, revision=revision, timeout=SECONDS)
    except huggingface_hub.errors.HfHubHTTPError:
        pass  # it answers: the library knows what that means
    except Exception:  # of whichever library it asks with
        datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before
