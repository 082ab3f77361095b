"""The order of samples: a function of (seed, epoch), whatever the workers and wherever a run was cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch.utils.data import Sampler

from tinymim.seeds import stream


class Draw(NamedTuple):
    """What the sampler asks a dataset for: the sample ``index`` as it looks in ``epoch``."""

    epoch: int
    index: int  # type: ignore[assignment]  # a tuple has a method of that name


class EpochSampler(Sampler[Draw]):
    """Every sample once an epoch, in an order that is a function of (seed, epoch).

    Args:
        length: samples in the dataset.
        seed: of the order.
        rank: this process.
        world: processes; they share the order in turn, and the last samples that do not go round are dropped.

    Lightning calls :meth:`set_epoch`. The epoch travels with each index, so that persistent workers need not be told.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, world: int = 1):
        self.length, self.seed, self.rank, self.world = length, seed, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentations of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.world

    def __iter__(self) -> Iterator[Draw]:
        order = stream(self.seed, self.epoch).permutation(self.length)
        shared = order[: len(self) * self.world]
        return (Draw(self.epoch, int(index)) for index in shared[self.rank :: self.world])


class InTurn(Sampler[Draw]):
    """Samples in their own order, shared among processes without padding, so that each is seen exactly once."""

    def __init__(self, length: int, rank: int = 0, world: int = 1):
        self.indices = range(rank, length, world)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Draw]:
        return (Draw(0, index) for index in self.indices)
