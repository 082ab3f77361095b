"""Errors of libraries: one line where a user can mend them, and a traceback where code is at fault."""

from __future__ import annotations

import errno

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from tinymim.errors import TinymimError
from tinymim.training.messages import SWITCH, readable_errors


def optimizer(groups: int) -> torch.optim.AdamW:
    return torch.optim.AdamW([{"params": [torch.nn.Parameter(torch.zeros(2))]} for _ in range(groups)])


@pytest.mark.parametrize("groups", [1, 3])
def test_groups__of_another_recipe_are_one_line(groups: int) -> None:
    words = "ckpt_path: the checkpoint's optimizer does not fit"
    with pytest.raises(TinymimError, match=words) as caught, readable_errors():
        optimizer(2).load_state_dict(optimizer(groups).state_dict())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            MisconfigurationException("No supported gpu backend found!"),
            "trainer.accelerator: gpu, but this machine has none",
        ),
        (
            MisconfigurationException(
                "`MPSAccelerator` can not run on your system since the accelerator is not there."
            ),
            "trainer.accelerator: mps, but this machine has none",
        ),
        (RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "), "fewer of them take less"),
        (RuntimeError("DataLoader worker (pid(s) 1, 2) exited unexpectedly"), "a loading process has ended"),
        (RuntimeError("[gloo/x.cc:1] Connection closed by peer"), "another rank died"),
        (OSError(errno.ENOSPC, "No space left on device", "r/metrics.csv"), r"the disk is full \(r/metrics.csv\)"),
        (OSError(errno.EROFS, "Read-only file system", "r"), r"Read-only file system \(r\)"),
    ],
)
def test_environment__is_one_line_whoever_met_it(error: Exception, words: str) -> None:
    with pytest.raises(TinymimError, match=words) as caught, readable_errors():
        raise error
    assert "\n" not in str(caught.value)


class Broken(pl.Callback):
    """A user's own callback, with a fault."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        raise KeyError("mine")


def test_lightning__is_one_line_with_the_part_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def stops() -> None:
        pl.callbacks.EarlyStopping("val/acc")._validate_condition_metric({"val/loss": torch.ones(())})

    words = r"^trainer.callbacks: EarlyStopping: .*val/acc.* \(RuntimeError; TINYMIM"
    with pytest.raises(TinymimError, match=words), readable_errors():
        stops()
    with pytest.raises(TinymimError, match="devices"), readable_errors():
        pl.Trainer(accelerator="cpu", devices=-1, logger=False)
    monkeypatch.setenv(SWITCH, "1")
    with pytest.raises(RuntimeError, match="val/acc"), readable_errors():
        stops()


def test_code__keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="another"), readable_errors():
        raise ValueError("another")
    with pytest.raises(KeyError, match="mine"), readable_errors():
        Broken().setup(None, None, "fit")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="Original Traceback"), readable_errors():
        raise RuntimeError(
            "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last)"
        )
