"""A backbone with a head for each task on scenes: what :class:`tinymim.tasks.SceneTasks` trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from tinymim.tasks.network import Layered
from tinymim.tasks.scene_targets import TASKS, Scale, Task, Truth, costs
from tinymim.vit.backbone import Backbone
from tinymim.vit.blocks import Tap
from tinymim.vit.norms import SharedBatchNorm


class Answer(nn.Module):
    """One linear layer on normalised tokens, and what the task makes of it.

    Args:
        task: to answer.
        width: channels of the tokens, D.
        grid: patches along height and width.
        frozen: the tokens are those of a frozen backbone: BatchNorm without affine, as in a linear probe (MAE's), in
            place of LayerNorm.
        scale: of a geometric task's targets. The answers start at their mean, and the layer gives what is beside it in
            units of their spread.
    """

    centres: Tensor
    mean: Tensor
    cost: Tensor

    def __init__(self, task: Task, width: int, grid: tuple[int, int], frozen: bool, scale: Scale | None):
        super().__init__()
        self.task = task
        self.norm: nn.Module = SharedBatchNorm(width) if frozen else nn.LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width, 1 if task.reads == "place" else task.outputs)
        nn.init.trunc_normal_(self.linear.weight, std=0.01 if frozen else 2e-5)
        nn.init.zeros_(self.linear.bias)
        if scale is not None:
            self.register_buffer("mean", scale.mean)
            self.register_buffer("cost", scale.cost)
        if task.reads == "place":
            self.register_buffer("centres", centres(grid), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Of patch tokens ``(B, N, D)``, in float32: logits ``(B, classes)``, or numbers ``(B, C)`` or ``(B x N, C)``
        in the targets' own units."""
        if self.task.reads == "pooled":
            tokens = tokens.mean(1, keepdim=True)
        said = self.linear(self.norm(tokens.flatten(0, 1))).float()
        if self.task.reads == "place":
            return soft_argmax(said.view(len(tokens), -1), self.centres)
        if self.task.kind == "semantic":
            return said
        return self.mean + said * (self.cost / self.task.outputs).sqrt()


class Readout(Layered, nn.Module):
    """A backbone and its heads.

    Args:
        backbone: read at its output block.
        tasks: names of what to answer.
        frozen: the backbone is not trained.
        scales: of the geometric ones among them.
    """

    def __init__(self, backbone: Backbone, tasks: list[str], frozen: bool, scales: Mapping[str, Scale]):
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict(
            {name: Answer(TASKS[name], backbone.width, backbone.grid, frozen, scales.get(name)) for name in tasks}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Each task's answers, of ``(B, 3, H, W)`` images in [0, 1]; see :meth:`Answer.forward`."""
        tap = Tap(self.backbone.output_block, "ffn_post")
        tokens = self.backbone.read(images, [tap])[tap][:, self.backbone.prefix :]
        return {name: head(tokens) for name, head in self.heads.items()}

    def loss(self, name: str, answers: Tensor, right: Truth) -> Tensor:
        """The mean cost of a task's answers: in nats, or in what it costs to answer the mean always."""
        cost = costs(answers, right).mean()
        return cost / cast(Tensor, self.heads[name].cost) if TASKS[name].kind == "geometric" else cost


def centres(grid: tuple[int, int]) -> Tensor:
    """Where patches lie, ``(N, 2)``: x and y in shares of the side, row by row."""
    rows, columns = ((torch.arange(count) + 0.5) / count for count in grid)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def soft_argmax(scores: Tensor, centres: Tensor) -> Tensor:
    """The mean place under the softmax of scores: ``(B, N)`` and ``(N, 2)`` to ``(B, 2)``.

    In float32 whatever the run computes in: products that autocast rounds would tell no places within a patch apart.
    """
    return (scores.softmax(1).unsqueeze(2) * centres).sum(1)
