"""Randomness that is a function of a key, such as (seed, epoch, index), and of nothing that happened before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def stream(*key: int) -> np.random.Generator:
    """Random numbers that are a function of ``key``, such as (seed, epoch, index)."""
    return np.random.default_rng(np.random.SeedSequence(key))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Make the global generators (torch's CPU, NumPy's, Python's) a function of ``key``, and restore them
    afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    state = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(state)
        random.seed(state)
        np.random.seed(state % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
