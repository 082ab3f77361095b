"""Metrics whose states stay exact in a run whose weights are of half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from typing_extensions import override


class ExactMetrics(nn.ModuleDict):
    """Metrics by name that move between devices and keep their types.

    Lightning's ``bf16-true`` and ``16-true`` call ``.to(dtype)`` on a module, which torchmetrics' states follow, though
    they refuse ``.half()``: a count kept in bfloat16 stops at 256, and a mean over more rows than that is wrong.
    """

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        return super()._apply(lambda tensor: fn(tensor).to(tensor.dtype), recurse)
