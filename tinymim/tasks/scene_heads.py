"""A backbone with a head for each task on scenes: what :class:`tinymim.tasks.SceneTasks` trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from tinymim.tasks.network import BackboneWithDecoder
from tinymim.tasks.scene_targets import TASKS, Labels, SceneTask, TargetStatistics, row_losses
from tinymim.vit.backbone import Backbone
from tinymim.vit.norms import SharedBatchNorm
from tinymim.vit.taps import Tap


class TaskHead(nn.Module):
    """Head of a task: one linear layer on normalised tokens.

    Args:
        task: to answer.
        width: channels of the tokens, D.
        grid: patches along height and width.
        frozen: the tokens are those of a frozen backbone: BatchNorm without affine, as in a linear probe (MAE's), in
            place of LayerNorm.
        statistics: of a geometric task's targets. The answers start at their mean, and the layer gives the distance to
            it in units of their spread.
    """

    centres: Tensor
    mean: Tensor
    cost: Tensor

    def __init__(
        self, task: SceneTask, width: int, grid: tuple[int, int], frozen: bool, statistics: TargetStatistics | None
    ):
        super().__init__()
        self.task = task
        self.norm: nn.Module = SharedBatchNorm(width) if frozen else nn.LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width, 1 if task.reads == "place" else task.outputs)
        nn.init.trunc_normal_(self.linear.weight, std=0.01 if frozen else 2e-5)
        nn.init.zeros_(self.linear.bias)
        if statistics is not None:
            self.register_buffer("mean", statistics.mean)
            self.register_buffer("cost", statistics.cost)
        if task.reads == "place":
            self.register_buffer("centres", centres(grid), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Answers to patch tokens ``(B, N, D)``, in float32: logits ``(B, classes)``, or numbers ``(B, C)`` or
        ``(B x N, C)`` in the targets' own units."""
        if self.task.reads == "pooled":
            tokens = tokens.mean(1, keepdim=True)
        outputs = self.linear(self.norm(tokens.flatten(0, 1))).float()
        if self.task.reads == "place":
            return soft_argmax(outputs.view(len(tokens), -1), self.centres)
        if self.task.kind == "semantic":
            return outputs
        return self.mean + outputs * (self.cost / self.task.outputs).sqrt()


@dataclass(frozen=True)
class SceneForm:
    """Form of the heads on scenes, all but the weights; checkpoints record it.

    Args:
        tasks: names of what to answer.
        frozen: the backbone is not trained.
    """

    tasks: list[str]
    frozen: bool

    def describe(self) -> str:
        """One line for people."""
        return f"{', '.join(self.tasks)}; {'heads on frozen features' if self.frozen else 'fine-tuning'}"


class Readout(BackboneWithDecoder):
    """A backbone and its heads.

    Args:
        backbone: read at its output block.
        form: of the heads.
        statistics: of the geometric tasks among them.
    """

    def __init__(self, backbone: Backbone, form: SceneForm, statistics: Mapping[str, TargetStatistics]):
        super().__init__(backbone, form)
        sizes = (backbone.width, backbone.grid, form.frozen)
        self.heads = nn.ModuleDict({name: TaskHead(TASKS[name], *sizes, statistics.get(name)) for name in form.tasks})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Each task's answers, of ``(B, 3, H, W)`` images in [0, 1]; see :meth:`TaskHead.forward`."""
        tap = Tap(self.backbone.output_block, "ffn_post")
        tokens = self.backbone.read(images, [tap])[tap][:, self.backbone.prefix :]
        return {name: head(tokens) for name, head in self.heads.items()}

    def loss(self, name: str, answers: Tensor, labels: Labels) -> Tensor:
        """Mean loss of a task's answers: in nats, or relative to always answering the mean."""
        loss = row_losses(answers, labels).mean()
        return loss / cast(Tensor, self.heads[name].cost) if TASKS[name].kind == "geometric" else loss


def centres(grid: tuple[int, int]) -> Tensor:
    """Centres of the patches, ``(N, 2)``: x and y in shares of the side, row by row."""
    rows, columns = ((torch.arange(count) + 0.5) / count for count in grid)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def soft_argmax(scores: Tensor, centres: Tensor) -> Tensor:
    """The mean place under the softmax of scores: ``(B, N)`` and ``(N, 2)`` to ``(B, 2)``.

    In float32 whatever the run computes in: products that autocast rounds would tell no places within a patch apart.
    """
    return (scores.softmax(1).unsqueeze(2) * centres).sum(1)
