"""A running average of a network's weights (EMA), beside the network that is trained.

It lies in the module's state under ``average.``, so it is saved and resumed with the rest. The record of a checkpoint
says that the weights are there, and so whoever starts from it or exports it takes the average.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn

from tinymim.errors import TinymimError
from tinymim.teachers.weights import RECORD

M = TypeVar("M", bound=nn.Module)
TRAINED, AVERAGED = "model.", "average."
"""Prefixes of the two networks in a module's state."""


def averaged_copy(model: M) -> M:
    """A copy to keep an average in: neither trained nor in training mode."""
    average = copy.deepcopy(model)
    average.requires_grad_(False)
    average.eval()
    return average


def ema_decay(step: int, most: float) -> float:
    """The decay of step ``step`` (from 1): it rises to ``most`` as (1 + step) / (10 + step), TensorFlow's rule, so that
    the random weights of the beginning are forgotten in short runs too."""
    return min(most, (1 + step) / (10 + step))


@torch.no_grad()
def update(average: nn.Module, model: nn.Module, decay: float) -> None:
    """``average = decay x average + (1 - decay) x model``; what is not trained, and buffers, are taken as they are."""
    pairs = zip(average.parameters(), model.parameters(), strict=True)
    trained = [pair for pair in pairs if pair[1].requires_grad]
    kept, now = [kept.data for kept, _ in trained], [now.data for _, now in trained]
    torch._foreach_lerp_(kept, now, 1 - decay)
    for kept_buffer, new in zip(average.buffers(), model.buffers(), strict=True):
        kept_buffer.copy_(new)


def adapt_checkpoint(checkpoint: dict[str, Any], ema: float | None, resuming: bool) -> float | None:
    """Fit a checkpoint to a module with or without an average, before its weights are loaded.

    Args:
        checkpoint: changed in place where it has an average, the module has none, and nothing will be trained: the
            average takes the place of the trained weights.
        ema: the module's decay, ``None`` without an average.
        resuming: training goes on.

    Returns:
        The decay of the average that is evaluated, ``None`` where the trained weights are.

    Raises:
        TinymimError: the average would begin or end in the middle of a run, or there is none to test.
    """
    record = checkpoint.get(RECORD) or {}
    stored = record.get("ema")
    if ema is not None and stored is None:
        raise TinymimError(f"model.ema: {ema}, but this checkpoint has no running average of its weights; leave it out")
    if stored is None or ema is not None:
        return ema
    if resuming:
        raise TinymimError(f"model.ema: none, but the run keeps a running average; go on with --model.ema {stored}")
    state = checkpoint["state_dict"]
    rest = {key: value for key, value in state.items() if not key.startswith((TRAINED, AVERAGED))}
    average = {key: value for key, value in state.items() if key.startswith(AVERAGED)}
    checkpoint["state_dict"] = rest | {key.replace(AVERAGED, TRAINED, 1): value for key, value in average.items()}
    checkpoint[RECORD] = {**record, "prefix": record["prefix"].replace(AVERAGED, TRAINED, 1)}
    return float(stored)
