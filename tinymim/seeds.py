"""Seeded randomness: a function of a key, such as (seed, epoch, index), and of nothing that happened before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def stream(*key: int) -> np.random.Generator:
    """Random numbers that are a function of ``key``, such as (seed, epoch, index)."""
    return np.random.default_rng(_sequence(key))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Make the global generators (torch's on the CPU, NumPy's, Python's) a function of ``key``; restore them after."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    _seed(key)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.default_generator.set_state(cpu)


_share = (0, 1)  # part of a training step's images that this process holds, and the number of equal parts


def begin_step(seed: int, step: int, part: int, parts: int, device: torch.device) -> None:
    """Make everything random in a training step a function of (seed, step), however many processes share it.

    All of them start their global generators alike, and :func:`shared_rand` draws for the images of all.

    Args:
        seed: of the run.
        step: of the optimiser, from 0.
        part: the part of the step's images that comes now: (accumulated batch) x processes + rank.
        parts: of the step: accumulated batches x processes.
        device: whose generator is seeded beside the CPU's.
    """
    global _share
    _share = (part, parts)
    state = _seed((seed, 0, 0, step))  # of a length that orders and augmentations do not use
    if device.type == "cuda":
        torch.cuda.manual_seed(state)


def end_steps() -> None:
    """Reset after training: draws are no longer split between ranks."""
    global _share
    _share = (0, 1)


def shared_rand(rows: int, *shape: int, device: torch.device) -> Tensor:
    """``(rows, *shape)`` uniform numbers in [0, 1), one row an image: this part's rows of those of the whole step."""
    part, parts = _share
    return torch.rand(rows * parts, *shape, device=device)[part * rows : (part + 1) * rows]


def snapshot(device: torch.device) -> dict[str, Any]:
    """States of the global generators, Python's, NumPy's, torch's and that of ``device`` if it is a GPU, as tensors and
    plain values. Waits for no device."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (str(name), np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore(states: dict[str, Any], device: torch.device) -> None:
    """Undo whatever was drawn since :func:`snapshot`; the GPU's generator is left alone where ``device`` is none."""
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


def _seed(key: tuple[int, ...]) -> int:
    """Seed the global generators on the CPU, and return the seed."""
    state = int(_sequence(key).generate_state(1)[0])
    torch.default_generator.manual_seed(state)  # torch.manual_seed would reach the GPU's generator too
    random.seed(state)
    np.random.seed(state)
    return state


def _sequence(key: tuple[int, ...]) -> np.random.SeedSequence:
    """Keys of different lengths differ, though NumPy pads with zeros; negative seeds are as good as others."""
    return np.random.SeedSequence([len(key), *(number % 2**64 for number in key)])
