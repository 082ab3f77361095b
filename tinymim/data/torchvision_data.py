"""torchvision's image sets by name, fetched or found, each in the house's own order and augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from tinymim.data import torchvision_images as opening
from tinymim.data import torchvision_sets as sets
from tinymim.data.array_images import ArrayImages
from tinymim.data.image_data import ViewedData
from tinymim.errors import TinymimError, several

HELD_OUT = ("val", "valid", "test", "2021_valid")  # what a set may call the split to hold out


class TorchvisionData(ViewedData):
    """An image classification set of torchvision by the name of its class, such as ``CIFAR10``.

    Sets that torchvision holds in an array stay in memory, as bytes; of others a file is read when it is asked for.
    MNIST, FashionMNIST and KMNIST are read from their IDX files, compressed or not, in torchvision's place below
    ``root`` or in ``root`` itself; FashionMNIST at last from ``share/datasets/fashion-mnist``, where Debian's package
    ``dataset-fashion-mnist`` puts it. Pickles (CIFAR's) are opened only if they are the published ones, by their md5.

    There are labels if all training images have one.

    Args:
        dataset: name of the class in ``torchvision.datasets``.
        root: folder that torchvision's class takes, or one of IDX files.
        download: fetch into ``root`` what is missing.
        train_split: to train on, with ``+`` between several, such as ``train+val``; ``None`` is the set's first.
        val_split: to hold out; ``None`` takes its ``val``, ``valid`` or ``test``, or holds a fraction of the other out.
        arguments: more of the class's own, such as ``{folds: 0}`` of STL10 or ``{split: balanced}`` of EMNIST.
        options: of :class:`ViewedData`.
    """

    def __init__(
        self,
        dataset: str | None = None,
        root: str = "data",
        download: bool = False,
        train_split: str | None = None,
        val_split: str | None = None,
        arguments: dict[str, Any] | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.dataset, self.root, self.download = dataset, root, download
        self.train_split, self.val_split, self.arguments = train_split, val_split, arguments or {}

    @override
    def problems(self) -> list[str]:
        # Reads no file, and asks no server.
        problems = super().problems()
        if not self.dataset:
            return [
                "data.dataset is not set: give --data.dataset NAME, a class of torchvision such as CIFAR10",
                *problems,
            ]
        try:
            of = sets.find(self.dataset)
        except TinymimError as error:
            return [str(error), *problems]
        first = [
            f"data.{field}: {self.dataset} has no split {part!r}; it has {', '.join(of.splits)}"
            for field in ("train_split", "val_split")
            for part in _parts(of, getattr(self, field))
            if part not in of.splits
        ]
        train, val = self._splits(of)
        if not first and (shared := sorted(_within(of, train) & _within(of, val))):
            first.append(f"data.val_split: {val} holds {shared[0]} out, which {train} trains on; name another, or none")
        if strange := [name for name in self.arguments if name not in of.options]:
            takes = f"it takes {', '.join(of.options)}" if of.options else "there are none to give"
            first.append(f"data.arguments: {self.dataset} has no argument {strange[0]!r}; {takes}")
        if not self.arguments and of.needed:
            first.append(f"data.arguments: {of.needed}")
        if self.download and not of.fetched:
            first.append(f"data.download: torchvision fetches no {self.dataset}; put its files into {self._root()}")
        if self._root().is_file():
            first.append(f"data.root: {self._root()} is a file; name the folder that {self.dataset} lies in")
        elif not self.download and (missing := self._missing(of)):
            first.append(f"data.root: {missing}")
        return [*first, *problems]

    @property
    def unlabelled(self) -> str | None:  # type: ignore[override]  # of options, not of a class
        """Why it has no labels, where the set tells."""
        if self.train_split not in sets.UNLABELLED.get(self.dataset or "", ()):
            return None
        return f"data.train_split: {self.dataset} has no labels in {self.train_split}; a classifier needs them"

    @override
    def source(self) -> str:
        return str(self._root().absolute())

    @override
    def prepare_data(self) -> None:
        # In one process a machine: what is fetched here, the others find.
        if not self.download or self.problems():
            return
        of = sets.find(self.dataset or "")
        if of.name in sets.IDX and opening.idx_folder(self._idx_folders(of)):
            return
        for split in self._splits(of):
            for part in _parts(of, split):
                opening.construct(of, self._root(), part, self.arguments, download=True)

    @override
    def prepare(self) -> None:
        """Open the splits and divide them.

        Raises:
            TinymimError: there are :meth:`problems`; a file is missing or damaged; or the held-out split has no labels,
                though the other has, or other classes.
        """
        if problems := self.problems():
            raise several("the data cannot be used", problems)
        of = sets.find(self.dataset or "")
        train, *val = (self._opened(of, split) for split in self._splits(of) if split)
        self.needs_workers = not isinstance(train.images, ArrayImages)
        if train.labels is not None and len(np.unique(train.labels)) > 1:
            last = max(int(train.labels.max()) + 1, len(train.classes or []))
            self.classes = train.classes if train.classes and len(train.classes) == last else _counted(last)
            train.images.labels = train.labels
            for split in val:
                if split.labels is None:
                    raise TinymimError(f"data.val_split: {split.images.source} has no labels; the training images have")
                if split.classes != train.classes or split.labels.max() >= last:
                    raise TinymimError(
                        f"data.val_split: {split.images.source} has other classes than the training images"
                    )
                split.images.labels = split.labels
        self.divide(
            train.images, val[0].images if val else None, "dataset", f"of {self.dataset} not all images have one"
        )

    def _root(self) -> Path:
        return Path(self.root).expanduser()

    def _splits(self, of: sets.TorchvisionSet) -> tuple[str, str | None]:
        """Names of the splits to train on and to hold out."""
        train = self.train_split or next(iter(of.splits))
        unseen = (name for name in HELD_OUT if name in of.splits and name not in _within(of, train))
        return train, self.val_split or next(unseen, None)

    def _opened(self, of: sets.TorchvisionSet, split: str) -> opening.Split:
        folder = opening.idx_folder(self._idx_folders(of)) if of.name in sets.IDX else None
        return opening.joined(
            [
                opening.open_idx(of, folder, part, self.plain())
                if folder
                else opening.open_split(of, self._root(), part, self.arguments, self.plain())
                for part in _parts(of, split)
            ]
        )

    def _missing(self, of: sets.TorchvisionSet) -> str | None:
        """Words on a data set that is not where it is looked for, and on what can be done."""
        missing = of.missing(self._root())
        if of.name in sets.IDX:
            folders = self._idx_folders(of)
            files = ", ".join(name for split in of.splits for name in opening.idx_names(split))
            missing = f"no {of.name} in {' or '.join(map(str, folders))}: looked for {files}, .gz or not"
            if opening.idx_folder(folders):
                missing = None
        if missing is None:
            return None
        fetch = "; --data.download true fetches it" if of.fetched else "; put it there, or name its folder"
        package = ", and so does apt-get install dataset-fashion-mnist" if of.name in sets.SYSTEM_PLACES else ""
        return missing + fetch + package

    def _idx_folders(self, of: sets.TorchvisionSet) -> list[Path]:
        return [self._root() / of.name / "raw", self._root(), *sets.SYSTEM_PLACES.get(of.name, ())]


def _parts(of: sets.TorchvisionSet, split: str | None) -> list[str]:
    """The splits that one with ``+`` names; STL10 has one of its own with that."""
    return [] if split is None else [split] if split in of.splits else split.split("+")


def _within(of: sets.TorchvisionSet, split: str | None) -> set[str]:
    """Splits whose images are all in one."""
    holds = sets.HOLDS.get(of.name, {})
    return {name for part in _parts(of, split) for name in (part, *holds.get(part, ()))}


def _counted(count: int) -> list[str]:
    return [str(number) for number in range(count)]
