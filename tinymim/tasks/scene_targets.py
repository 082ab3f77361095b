"""Semantic and geometric tasks on scenes: what is asked of a picture, and how an answer is scored.

"Revealing the Dark Secrets of Masked Image Modeling" (arXiv 2205.13543) compares pre-trainings on tasks of both kinds.
All are about the main shape but ``depth``, which is about the nearest shape at each patch. Rows are images, and of
``depth`` the patches of all images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tinymim.data.scenes import COLORS, KINDS, TURN


@dataclass(frozen=True)
class SceneTask:
    """One task.

    Args:
        kind: ``semantic`` is a class, ``geometric`` numbers.
        reads: what it is told from: the mean patch token (``pooled``), each patch's own token (``patches``), or where
            in the picture the patches are that score highest (``place``).
        outputs: classes, or numbers a row.
    """

    kind: Literal["semantic", "geometric"]
    reads: Literal["pooled", "patches", "place"]
    outputs: int


TASKS = {
    "shape": SceneTask("semantic", "pooled", len(KINDS)),
    "color": SceneTask("semantic", "pooled", len(COLORS)),
    "position": SceneTask("geometric", "place", 2),
    "size": SceneTask("geometric", "pooled", 1),
    "angle": SceneTask("geometric", "pooled", 2),
    "depth": SceneTask("geometric", "patches", 1),
}


class Labels(NamedTuple):
    """Labels of a task, row by row.

    Args:
        values: classes ``(M,)``, int64; or ``(M, C)``: ``position`` (x, y), ``size`` and ``depth`` in shares of the
            side and of the farthest; ``angle`` the cosine and sine of its share of the turn after which the kind looks
            the same.
        counted: ``(M,)``: not the angle of a circle or a ring, and nothing of a picture that shows no shape.
        turn: ``(M,)`` in degrees, of an ``angle``; zeros otherwise.
    """

    values: Tensor
    counted: Tensor
    turn: Tensor


def labels_of(name: str, batch: dict[str, Any], grid: tuple[int, int]) -> Labels:
    """Labels of a batch of ``ShapesData`` with ``scene``, and for ``depth`` with that too.

    Args:
        name: of the task.
        batch: ``targets``, and ``depth`` ``(B, S, S)``.
        grid: patches along height and width, over whose pixels a patch's depth is the mean.
    """
    main = {key: column[:, 0] for key, column in batch["targets"].items()}
    kind = main["kind"]
    counted, turn = kind >= 0, torch.zeros_like(main["angle"])
    if name == "depth":
        values = F.adaptive_avg_pool2d(batch["depth"].unsqueeze(1), grid).view(-1, 1)
        patches = len(values) // len(kind)
        return Labels(values, counted.repeat_interleave(patches), turn.repeat_interleave(patches))
    if name == "angle":
        turn = turn.new_tensor(TURN)[kind.clamp(min=0)]
        phase = 2 * math.pi * main["angle"] / turn.clamp(min=1e-6)
        return Labels(torch.stack([phase.cos(), phase.sin()], 1), counted & (turn > 0), turn.rad2deg())
    values = {
        "shape": kind,
        "color": main["color"],
        "position": torch.stack([main["x"], main["y"]], 1),
        "size": main["size"].unsqueeze(1),
    }[name]
    return Labels(values, counted, turn)


def row_losses(answers: Tensor, labels: Labels) -> Tensor:
    """Loss of each row, ``(M,)``, zero where it is not counted: cross-entropy in nats of logits
    ``(M, classes)``, or the squared distance of ``(M, C)`` numbers."""
    if not labels.values.is_floating_point():
        return F.cross_entropy(answers, labels.values, ignore_index=-1, reduction="none")
    return torch.where(labels.counted, (answers - labels.values).square().sum(1), 0.0)


def row_errors(name: str, answers: Tensor, labels: Labels) -> Tensor:
    """Absolute error of each row that is counted, in natural units: shares of the side (the mean of x and y), of the
    farthest depth, and degrees, where an angle can be wrong by half its kind's turn at most."""
    answers, values, turn = (x[labels.counted] for x in (answers, labels.values, labels.turn))
    if name != "angle":
        return (answers - values).abs().mean(1)
    (cosine, sine), (x, y) = values.unbind(1), answers.unbind(1)
    off = torch.atan2(y * cosine - x * sine, x * cosine + y * sine)  # between the phases
    return off.abs() / (2 * math.pi) * turn


class TargetStatistics(NamedTuple):
    """Mean target ``(C,)`` of a geometric task, and the loss a row of always predicting it, the loss normaliser."""

    mean: Tensor
    cost: Tensor


def target_statistics(name: str, batches: Iterable[dict[str, Any]], grid: tuple[int, int]) -> TargetStatistics:
    """Statistics of a task's targets over ``batches``."""
    every = [labels_of(name, batch, grid) for batch in batches]
    values, counted, turn = (torch.cat(parts) for parts in zip(*every, strict=True))
    mean = values[counted].double().sum(0) / counted.sum().clamp(min=1)
    cost = row_losses(mean.expand_as(values), Labels(values, counted, turn)).mean()
    return TargetStatistics(mean.float(), cost.float().clamp(min=1e-6))  # above 0 where all targets are the same
