"""Norms of this project's own, whose eps checkpoints record: it was 1e-5 before it became the published code's 1e-6."""

from __future__ import annotations

from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tinymim.vit.conventions import Conventions

EPS = Conventions.norm_eps  # of the last norm of MAE's decoder and of its probe's batch norm, in its published code


class LastNorm(nn.LayerNorm):
    """LayerNorm before a decoder or after its blocks."""

    follows_norm_eps = True

    def __init__(self, width: int):
        super().__init__(width, eps=EPS)


class SharedBatchNorm(nn.BatchNorm1d):
    """BatchNorm of frozen features without affine, over the images of all processes, on a CPU too, where SyncBatchNorm
    does not run. No gradient goes through it, so its input must need none. Processes have equal shares."""

    follows_norm_eps = True

    def __init__(self, width: int):
        super().__init__(width, eps=EPS, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, D)``, normalised."""
        if not (self.training and dist.is_initialized()):
            return super().forward(x)
        count = len(x) * dist.get_world_size()
        moments = torch.stack([x.double().sum(0), x.double().square().sum(0)])
        dist.all_reduce(moments)
        mean, variance = moments[0] / count, (moments[1] - moments[0].square() / count) / count
        kept = {self.running_mean: mean, self.running_var: variance * count / (count - 1)}
        for running, new in kept.items():
            assert running is not None
            running.lerp_(new.float(), cast(float, self.momentum))
        return ((x - mean) / (variance + self.eps).sqrt()).to(x.dtype)
