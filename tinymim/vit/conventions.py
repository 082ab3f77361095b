"""Small choices that a checkpoint was made under and its weights do not show.

They follow the published code now. Checkpoints of before they did are opened, tested and resumed as they were made.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

CONVENTIONS = "conventions"  # key of a checkpoint's record

BiasLayer = Literal["last", "stem"]


@dataclass(frozen=True)
class Conventions:
    """Conventions that a checkpoint was made under.

    Args:
        norm_eps: of MAE's decoder and of linear probes, see ``tinymim/vit/norms.py``.
        shared_bias: the layer whose rate a relative position bias that all blocks share has under layer-wise decay of
            the learning rate: the ``last``, as in BEiT's and SimMIM's code, or the ``stem``, as in timm.
    """

    norm_eps: float = 1e-6
    shared_bias: BiasLayer = "last"

    def record(self) -> dict[str, Any]:
        """Their part of a checkpoint's record."""
        return dataclasses.asdict(self)

    def lay_on(self, network: nn.Module) -> None:
        """Make ``network``, or a module that holds it, follow them."""
        for module in network.modules():
            if hasattr(module, "follows_norm_eps"):
                module.eps = self.norm_eps  # type: ignore[assignment]
            if hasattr(module, "shared_bias"):
                module.shared_bias = self.shared_bias  # type: ignore[assignment]


def of(record: dict[str, Any]) -> Conventions:
    """Conventions of a checkpoint's or a capture's record; without any it is from before they were as published."""
    return Conventions(**record[CONVENTIONS]) if CONVENTIONS in record else Conventions(1e-5, "stem")
