"""Test sets with names: their images, the figures of each, and the base of the data modules that hold them alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader, Dataset

from tinymim.data.data_module import ImageData, Sample
from tinymim.errors import TinymimError


@dataclass
class NamedSet:
    """Labelled images under a name.

    Args:
        name: such as ``imagenet_a`` or ``gaussian_noise/3``.
        images: the samples; a label of -1 marks a file that could not be read.
        classes: those of the classifier that may be answered, in the order that labels count; ``None`` is all.
    """

    name: str
    images: Dataset[Sample]
    classes: list[int] | None = None


@dataclass
class Figures:
    """Figures of one set: images seen, files left out as unreadable, and shares of right answers."""

    images: int
    unreadable: int
    top1: float
    top5: float

    @property
    def error(self) -> float:
        """Top-1 error."""
        return 1 - self.top1


@dataclass
class Report:
    """Summary of the figures of all sets: tables of words, exact definitions, and the numbers for other programs."""

    tables: list[tuple[str, list[str], list[list[str]]]] = field(default_factory=list)
    """Title, heads and rows of each."""
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)


class NamedSets(ImageData):
    """Base of the data modules that hold test sets alone; subclasses fill :attr:`sets` in :meth:`prepare`."""

    sets: list[NamedSet]
    baseline: str | None = None
    """A checkpoint that is tested beside the classifier."""

    def _check_shares(self, stage: str) -> None:
        # A process without an image of a set counts nothing of it.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def test_dataloader(self) -> list[DataLoader[Sample]]:
        """One for each set, its images shared among processes without padding. Their workers end with them."""
        return [self._in_turn(named.images, lasting=False) for named in self.sets]

    @abstractmethod
    def report(self, figures: dict[str, Figures], baseline: dict[str, Figures] | None) -> Report:
        """Sum up the figures of the classifier and of the baseline, by the names of the sets."""

    def _refuse(self) -> Any:
        raise TinymimError(f"data: {type(self).__name__} holds test sets alone; it is for `tinymim test`")

    train_dataloader = val_dataloader = predict_dataloader = _refuse


def percent(share: float | None) -> str:
    """A share as per cent, with a figure after the point; ``-`` for none."""
    return "-" if share is None else f"{100 * share:.1f}"
