"""Weights that something was learned in: all of them finite, and not all of them zero."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from tinymim.errors import TinymimError, counted, plural
from tinymim.teachers import weights_summary


def check_values(path: Path, parts: Iterable[tuple[Any, dict[str, Tensor]]]) -> None:
    """Check the values that networks have loaded.

    Args:
        path: of their file, for the error.
        parts: networks, and their keys that were loaded.

    Raises:
        TinymimError: some are not finite, or no matrix has a weight but 0.
    """
    loaded = {key: value for network, keys in parts for key, value in network.state_dict().items() if key in keys}
    if broken := [key for key, value in loaded.items() if not bool(value.isfinite().all())]:
        count = sum(int((~loaded[key].isfinite()).sum()) for key in broken)
        raise TinymimError(
            f"{path} holds {counted(count, 'weight')} that {plural(count, 'is', 'are')} not finite (NaN or infinite in "
            f"float32), of {weights_summary.by_meaning(broken)}: the training that wrote it had diverged, or it is "
            "damaged; take another copy, or a checkpoint of before"
        )
    matrices = [value for key, value in loaded.items() if value.ndim > 1 and key.endswith("weight")]
    if matrices and not any(bool(value.any()) for value in matrices):  # which ends at the first one that has weights
        raise TinymimError(f"{path} holds only zeros where weights belong, so it learned nothing; take another copy")
