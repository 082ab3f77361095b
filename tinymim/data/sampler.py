"""The order of samples: a function of (seed, epoch), whatever the workers and wherever a run was cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import SequentialSampler

from tinymim.seeds import stream


class Draw(NamedTuple):
    """Request of the sampler to a dataset: the sample ``index`` as it looks in ``epoch``."""

    epoch: int
    index: int  # type: ignore[assignment]  # a tuple has a method of that name


Order = Callable[[np.random.Generator], NDArray[np.int64]]
"""All indices of a dataset, once each, as an epoch's random numbers have them."""


def shares(length: int, world: int, batch_size: int, accumulated: int) -> tuple[int, int]:
    """Images of a process's batch, and its batches in an epoch, as many as ``length`` images give.

    A set that fills no batch is one of its own, and the last batches that fill no step are dropped.
    """
    batch_size = min(batch_size, max(length // world, 1))
    batches = length // (batch_size * world)
    return batch_size, batches - batches % accumulated if batches > accumulated else batches


def step_images(
    batch_size: int, world: int, accumulated: int, length: int | None = None, limit: float | None = None
) -> tuple[int, int]:
    """Images that one optimiser step holds over processes and accumulated batches, and a process's batches in an epoch.

    Args:
        batch_size: of one process, as the recipe has it.
        world: processes.
        accumulated: batches in a step.
        length: images there are; a step holds no more. ``None`` where they are not counted: then a step is as large as
            the recipe has it, and batches are 0.
        limit: ``trainer.limit_train_batches``, a number of batches or, as a float, a share of them; ``None`` is all.

    Returns:
        Both; batches are 0 where there are fewer images than processes.
    """
    if length is None:
        return batch_size * world * accumulated, 0
    per_process, batches = shares(length, world, batch_size, accumulated)
    if limit is not None:
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    return per_process * world * max(min(accumulated, batches), 1), batches


class EpochSampler(SequentialSampler):
    """Every sample once an epoch, in an order that is a function of (seed, epoch).

    The samples of one optimiser step lie beside each other in that order, whichever way processes and accumulated
    batches share them; the last ones that fill no whole step are dropped.

    Args:
        length: samples in the dataset.
        seed: of the order.
        rank: this process.
        world: processes.
        batch_size: of one process.
        accumulated: batches in a step.
        order: of an epoch; ``None`` shuffles all samples alike.
        fixed: have the order of the first epoch in all, as ``trainer.overfit_batches`` means; for its sake this is a
            ``SequentialSampler``, which Lightning leaves in place.

    Lightning calls :meth:`set_epoch`. The epoch travels with each index, so that persistent workers need not be told.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        batch_size: int = 1,
        accumulated: int = 1,
        order: Order | None = None,
        fixed: bool = False,
    ):
        self.length, self.seed, self.rank, self.world, self.order = length, seed, rank, world, order
        self.batch_size, self.batches = shares(length, world, batch_size, accumulated)
        self.epoch, self.fixed = 0, fixed
        self._begun = (0, 0)

    def begin(self, epoch: int, batches: int) -> None:
        """Go on in ``epoch`` after ``batches`` of this process's batches."""
        self.epoch, self._begun = epoch, (epoch, batches)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentations of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[Draw]:  # type: ignore[override]  # a draw where an index was
        epoch = self.epoch
        rng = stream(self.seed, 0 if self.fixed else epoch)
        order = self.order(rng) if self.order else rng.permutation(self.length)
        shared = order[: len(self) * self.world].reshape(self.batches, self.world, self.batch_size)
        done = self._begun[1] if epoch == self._begun[0] else 0
        return (Draw(epoch, int(index)) for index in shared[done:, self.rank].flat)


class InTurn(SequentialSampler):
    """Samples in their own order, shared among processes without padding, so that each is seen exactly once."""

    def __init__(self, length: int, rank: int = 0, world: int = 1):
        self.indices = range(rank, length, world)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Draw]:  # type: ignore[override]
        return (Draw(0, index) for index in self.indices)


def in_windows(groups: NDArray[np.int64], window: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices shuffled within ``window`` groups at a time, the groups themselves shuffled before: reading in this order
    stays within a few files, and no two epochs mix the same ones.

    Args:
        groups: of each sample, ascending, ``(M,)``.
        window: groups whose samples are mixed.
        rng: of the epoch.
    """
    members = np.split(np.arange(len(groups)), np.flatnonzero(np.diff(groups)) + 1)
    order = [members[group] for group in rng.permutation(len(members))]
    starts = range(0, len(order), window)
    return np.concatenate([rng.permutation(np.concatenate(order[start : start + window])) for start in starts])
