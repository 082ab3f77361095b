from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tinymim.errors import TinymimError
from tinymim.run.guard import NonFiniteGuard


def at(step: int, folder: Path) -> Any:
    return SimpleNamespace(global_step=step, current_epoch=0, default_root_dir=str(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_guard__names_the_first_bad_step(value: float, tmp_path: Path) -> None:
    guard = NonFiniteGuard()
    guard.on_train_batch_end(at(1, tmp_path), None, {"loss": torch.tensor(1.0)})  # type: ignore[arg-type]
    with pytest.raises(TinymimError, match=r"step 2 .*no checkpoint had been written"):
        guard.on_train_batch_end(at(2, tmp_path), None, {"loss": torch.tensor(value)})  # type: ignore[arg-type]


def test_guard__looks_before_a_checkpoint_and_names_the_last_good_one(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    guard = NonFiniteGuard()
    guard._bad = torch.tensor(7)  # as an accelerator leaves it between two looks
    with pytest.raises(TinymimError, match=r"step 7 .*last\.ckpt"):
        guard.on_save_checkpoint(at(9, tmp_path), None, {})  # type: ignore[arg-type]
