"""The CLS token (TinyMIM section 3.1.2, Eq. 6)."""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from tinymim.argument_types import checked
from tinymim.errors import TinymimError
from tinymim.targets.base import Blocks, Target, token_loss, whiten
from tinymim.vit.backbone import Backbone


@checked
class CLS(Target):
    """The teacher's CLS token, through a projection of the student's.

    The paper writes KL(c_t ‖ c_s) without saying how tokens of different widths become comparable distributions. Here
    the teacher's token is whitened, the student's projected to the teacher's width, and both pass a softmax over the
    channels.

    Args:
        loss: ``cross_entropy`` (soft, with temperature), ``cosine`` or ``smooth_l1``.
        temperature: of both softmaxes; for ``cross_entropy`` alone.
        centring: subtract a running mean of the teacher's tokens before its softmax, so that no channel wins in every
            image (DINO, arXiv 2104.14294, section 3.1); for ``cross_entropy`` alone.
        centre_momentum: share of the running mean that a step keeps.
        projection: ``linear``, or ``mlp``: two linear layers with GELU between, as wide as the teacher.
        weight: factor of this target's loss in the sum, above 0.
        teacher_block: see :class:`Target`.
        student_block: see :class:`Target`.
    """

    first_only = True

    def __init__(
        self,
        loss: Literal["cross_entropy", "cosine", "smooth_l1"] = "cross_entropy",
        temperature: float = 1.0,
        centring: bool = False,
        centre_momentum: float = 0.9,
        projection: Literal["linear", "mlp"] = "linear",
        weight: float = 1.0,
        teacher_block: Blocks | None = None,
        student_block: Blocks | None = None,
    ):
        super().__init__(weight, teacher_block, student_block)
        self.loss, self.temperature = loss, temperature
        self.centring, self.centre_momentum = centring, centre_momentum
        self.kind = projection

    def setup_pair(self, teacher: Backbone, student: Backbone) -> None:
        """Build a projection for each pair of blocks; both networks need a CLS token."""
        for network in (teacher, student):
            if not network.has_cls:
                raise TinymimError(
                    f"cls: {network.architecture.arch} has no CLS token; use a feature or relation target"
                )
        if not 0 < self.temperature < math.inf:
            raise TinymimError(f"cls.temperature: {self.temperature} is not a number above 0; DINO's students use 0.1")
        if self.loss != "cross_entropy" and (self.centring or self.temperature != 1):
            raise TinymimError(
                f"cls: temperature and centring would do nothing, as loss is {self.loss}; leave them out"
            )
        if not 0 <= self.centre_momentum < 1:
            raise TinymimError(f"cls.centre_momentum: {self.centre_momentum} is not in [0, 1); DINO's is 0.9")
        self._widths = (student.width, teacher.width)
        self.projections = nn.ModuleList(_projection(*self._widths, self.kind) for _ in self.blocks)
        self.register_buffer("centre", torch.zeros(len(self.blocks), teacher.width))

    def pair_loss(self, teacher: dict[str, Tensor], student: dict[str, Tensor], pair: int) -> Tensor:
        """The loss between the first tokens of a pair of blocks."""
        t = whiten(teacher["ffn_post"][:, 0])
        s = self.projections[pair](student["ffn_post"][:, 0]).float()
        if self.loss != "cross_entropy":
            return token_loss(self.loss, s, t)
        if self.centring:
            t = self._centred(t, pair)
        return F.cross_entropy(s / self.temperature, (t / self.temperature).softmax(-1))

    def _centred(self, t: Tensor, pair: int) -> Tensor:
        """``(B, D)`` less the running mean of the steps before; training moves the mean, the same in all processes."""
        centre = cast(Tensor, self.centre)[pair]
        centred = t - centre
        if self.training:
            mean = t.detach().mean(0)
            if dist.is_initialized():
                dist.all_reduce(mean)
                mean /= dist.get_world_size()
            with torch.no_grad():
                centre.lerp_(mean, 1 - self.centre_momentum)
        return centred

    def describe(self) -> str:
        """Loss, blocks and the projection."""
        how = ", centred" if self.centring and self.loss == "cross_entropy" else ""
        into = f"{self._widths[0]} -> {self._widths[1]}"
        return f"{self.loss}{how}: {self.describe_blocks()}, student projected {into} ({self.kind})"


def _projection(width: int, wide: int, kind: Literal["linear", "mlp"]) -> nn.Module:
    if kind == "linear":
        return nn.Linear(width, wide)
    return nn.Sequential(nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, wide))
