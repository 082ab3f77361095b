"""Relation agreement: how far a student's token relations are from its teacher's, at every pair of blocks.

What :class:`tinymim.targets.Relation` minimises at the pair of blocks it is given, for all pairs at once: the KL
divergence KL(R_teacher ‖ R_student), summed over keys and averaged over images, heads and queries. Each relation is
computed once, not once a pair. With P = N·R, the relation relative to the uniform one, a row's KL is

    mean over keys of P_teacher · (ln P_teacher - ln P_student),

so its first term is one number a block of the teacher, and its second one matrix product for all pairs. Where relations
are close to uniform both are small, and so is what float32 rounds off them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tinymim.analysis.statistics import Moments
from tinymim.errors import TinymimError
from tinymim.ops.blocked import map_blocks
from tinymim.ops.relation_kl import relation_logits
from tinymim.targets.relation import check_pairs, check_temperature
from tinymim.targets.tokens import Tokens
from tinymim.vit.architecture import check_divides
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import QKV, Tap

READINGS = 2**24  # elements of q, k and v that are held at a time, of all blocks of both networks
MAPS = 2**21  # and of relations; measured: half or twice as many cost the same, four times as many 6 % more


@dataclass(frozen=True)
class RelationOptions:
    """Relations that are compared, and how.

    Args:
        relations: two of the letters q, k, v each: ``qk`` is the attention map (without a BEiT's position bias).
        cls: keep or drop the row and column of the CLS token where both networks have it; other prefix tokens are
            always dropped, before the softmax.
        heads: ``auto`` is the teacher's number in its block; a number regroups both networks' channels into it.
        temperature: divides the products of both networks before the softmax.
    """

    relations: Sequence[str] = ("qk", "vv")
    cls: Literal["keep", "drop"] = "keep"
    heads: Literal["auto"] | int = "auto"
    temperature: float = 1.0


class Agreement:
    """The relations of two networks over the same images, accumulated image by image.

    Where their grids differ, the teacher's tokens are resampled to the student's, as in distillation. Memory does not
    grow with the images, nor with a batch.

    Args:
        teacher: whose heads, and whose relations as P in KL(P ‖ Q).
        student: whose channels are regrouped into the teacher's heads. It may be the teacher itself.
        options: relations, tokens, heads and temperature.

    Raises:
        TinymimError: an option that cannot be, heads that do not divide a width, or grids of different shape.
    """

    def __init__(self, teacher: Backbone, student: Backbone, options: RelationOptions | None = None):
        self.options = options or RelationOptions()
        check_pairs(self.options.relations, "agreement.relations")
        check_temperature(self.options.temperature, "agreement.temperature")
        chosen = self.options.heads
        self._heads = teacher.heads if chosen == "auto" else [chosen] * teacher.depth
        for heads in dict.fromkeys(self._heads):
            check_divides(heads, teacher.width, f"the teacher, {teacher.architecture.arch}")
            check_divides(heads, student.width, f"the student, {student.architecture.arch}")
        self._tokens = Tokens.match(teacher, student, self.options.cls == "keep", "agreement")
        self.teacher, self.student = teacher.eval(), student.eval()
        self._names = [name for name in QKV if any(name in relation for relation in self.options.relations)]
        self._kl = {relation: Moments() for relation in self.options.relations}
        self._uniform = {relation: Moments() for relation in self.options.relations}

    def add(self, images: Tensor) -> None:
        """Take in a batch, ``(B, 3, H, W)`` in [0, 1]; each network resizes it to its own size."""
        networks = self.teacher, self.student
        held = sum(each.depth * each.width * (each.prefix + math.prod(each.grid)) for each in networks)
        with torch.inference_mode():
            for chunk in images.split(max(1, READINGS // (held * len(self._names)))):
                teacher = self._read(self.teacher, chunk, self._tokens.of_teacher)
                student = self._read(self.student, chunk, self._tokens.of_student)
                for relation in self.options.relations:
                    a, b = list(relation)
                    uniform, kl = self._compare(teacher[a], teacher[b], student[a], student[b])
                    self._kl[relation].add(kl)
                    self._uniform[relation].add(uniform)

    def _read(self, network: Backbone, images: Tensor, match: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Tokens by name, ``(B, blocks, N, D)`` over the tokens and the grid that both networks share."""
        blocks = range(1, network.depth + 1)
        readings = network.read(images, [Tap(block, name) for block in blocks for name in self._names])
        return {
            name: torch.stack([match(readings.pop(Tap(block, name))) for block in blocks], dim=1)
            for name in self._names
        }

    def _compare(self, ta: Tensor, tb: Tensor, sa: Tensor, sb: Tensor) -> tuple[Tensor, Tensor]:
        """For each image, one relation's KL of the teacher's blocks from the uniform relation, ``(B, L_t)``, and from
        the student's blocks, ``(B, L_t, L_s)``; in float64 on the CPU."""
        B, L, N, _ = ta.shape
        uniform = torch.zeros(B, L, dtype=torch.float64)
        cross = torch.zeros(B, L, sa.shape[1], dtype=torch.float64)
        for heads in dict.fromkeys(self._heads):
            blocks = [block for block, count in enumerate(self._heads) if count == heads]
            sides = [x.unflatten(-1, (heads, -1)).transpose(2, 3) for x in (ta[:, blocks], tb[:, blocks], sa, sb)]
            maps = len(blocks) + sa.shape[1]
            for images, group, rows in map_blocks(B, heads, N, MAPS // maps):
                a, b, c, d = (x[images, :, group] for x in sides)
                teacher, student = self._log_relations(a[..., rows, :], b), self._log_relations(c[..., rows, :], d)
                shares = teacher.exp()
                uniform[images, blocks] += torch.linalg.vecdot(shares, teacher).cpu()
                cross[images, blocks] += (shares @ student.mT).cpu()
            uniform[:, blocks] /= heads * N * N
            cross[:, blocks] /= heads * N * N
        return uniform, (uniform.unsqueeze(-1) - cross).clamp_(min=0)  # it falls below 0 in rounding alone

    def _log_relations(self, a: Tensor, b: Tensor) -> Tensor:
        """ln(N · R) of ``(B, blocks, H, n, d)`` and ``(B, blocks, H, N, d)`` tokens, ``(B, blocks, H n N)``."""
        logits = relation_logits(a, b) / self.options.temperature
        return F.log_softmax(logits, dim=-1).add_(math.log(b.shape[-2])).flatten(2)

    def records(self) -> list[dict[str, Any]]:
        """One row a relation and pair of blocks, in nats: the mean KL over images (``kl``), its standard deviation over
        them (``sd``, NaN of one image), and the teacher's KL from the uniform relation, ln N minus its entropy: the
        value for a student whose relations are uniform, and the scale on which to read the others (``kl_uniform``)."""
        rows = []
        for relation, moments in self._kl.items():
            if not moments.count:
                raise TinymimError("agreement: there was no image to compare the networks over")
            mean, sd, uniform = moments.mean, moments.sd, self._uniform[relation].mean
            for t, s in product(range(self.teacher.depth), range(self.student.depth)):
                row = {"relation": relation, "teacher_block": t + 1, "student_block": s + 1}
                row |= {"kl": mean[t, s].item(), "sd": sd[t, s].item(), "kl_uniform": uniform[t].item()}
                rows.append({**row, "images": moments.count})
        return rows
