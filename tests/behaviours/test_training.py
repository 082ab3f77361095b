"""Lightning's loop, and torch in other precisions: what differs where the same is expected."""

from __future__ import annotations

import logging
import sys
from multiprocessing.spawn import get_preparation_data
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.strategies.launchers.subprocess_script import _basic_subprocess_cmd
from torch.utils.data import DataLoader, TensorDataset

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}


class Plain(pl.LightningModule):
    """A weight, the batches it was given, and the learning rates and modes it met."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.layer.weight)
        self.part = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout(0.5)).eval()
        self.seen: list[list[float]] = []
        self.modes: list[bool] = []
        self.stepping: float = 0

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        self.seen.append(batch[0].flatten().tolist())
        self.modes.append(self.part.training)
        self.stepping = self.trainer.estimated_stepping_batches if len(self.seen) == 1 else self.stepping
        return self.layer(torch.ones_like(batch[0])).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.layer.parameters(), 1.0)


def loader(samples: int, batch: int = 1) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(samples).float().view(-1, 1)), batch)


def fitted(data: DataLoader[Any], **options: Any) -> Plain:
    module = Plain()
    pl.Trainer(**QUIET, **options).fit(module, data)
    return module


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")
def test_modes__are_left_as_they_were_given() -> None:
    assert fitted(loader(2), max_steps=1).modes == [False]  # as transformers' from_pretrained hands networks over


def test_ddp__the_other_ranks_of_a_worker_are_the_parents_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is spawned gets its parent's command line, which Lightning begins again for the other ranks."""
    monkeypatch.setattr("sys.argv", ["/a/script.py", "--all"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # a script, not `python -m pytest`
    assert get_preparation_data("worker")["sys_argv"] == ["/a/script.py", "--all"]
    assert _basic_subprocess_cmd() == [sys.executable, "/a/script.py", "--all"]


def test_accumulation__the_incomplete_last_step_is_a_part_of_one() -> None:
    module = fitted(loader(10), max_epochs=1, accumulate_grad_batches=4)
    assert float(module.layer.weight.detach()) == pytest.approx(-(1 + 1 + 2 / 4))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_stepping_batches__of_endless_epochs_are_no_number_of_steps() -> None:
    class Stopping(Plain):
        def on_train_batch_end(self, *_: Any) -> None:
            self.trainer.should_stop = True

    module = Stopping()
    pl.Trainer(**QUIET, max_epochs=-1).fit(module, loader(2))
    assert module.stepping == float("inf")


def test_resume__amid_an_epoch_begins_the_data_again(tmp_path: Any) -> None:
    class Saving(Plain):
        def on_train_batch_end(self, outputs: Any, batch: Any, number: int) -> None:
            if number == 2:
                self.trainer.save_checkpoint(tmp_path / "amid.ckpt")

    module = Saving()
    pl.Trainer(**QUIET, max_epochs=1).fit(module, loader(6))
    resumed = Plain()
    pl.Trainer(**QUIET, max_epochs=1).fit(resumed, loader(6), ckpt_path=tmp_path / "amid.ckpt", weights_only=False)
    assert module.seen == [[0], [1], [2], [3], [4], [5]]
    assert resumed.seen[0] == [0]  # and not [3]


def test_autocast__keeps_losses_and_not_norms_in_float32() -> None:
    x = torch.randn(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        low = (x @ x.T).float().bfloat16()
        types = {
            "mse": F.mse_loss(low, low).dtype,
            "kl": F.kl_div(low.log_softmax(1), low.softmax(1), reduction="batchmean").dtype,
            "cross-entropy": F.cross_entropy(low, torch.zeros(4).long()).dtype,
            "softmax": low.softmax(1).dtype,
            "layer norm": F.layer_norm(low, (4,)).dtype,
            "cosine": F.cosine_similarity(low, low).dtype,
        }
    full, half = torch.float32, torch.bfloat16
    assert list(types.values()) == [full, full, full, half, half, half]


def test_normalize__of_nothing_in_float16_is_nan() -> None:
    assert F.normalize(torch.zeros(1, 3, dtype=torch.float16)).isnan().all()
    assert F.normalize(torch.zeros(1, 3, dtype=torch.bfloat16)).abs().max() == 0


def test_attention__with_a_mask_that_may_be_trained_is_not_fused() -> None:
    q, mask = torch.randn(1, 1, 4, 8), torch.nn.Parameter(torch.zeros(4, 4))
    names = []
    for given in (mask, mask.detach()):
        with torch.no_grad(), torch.profiler.profile() as profile:
            F.scaled_dot_product_attention(q, q, q, attn_mask=given)
        names.append({event.name for event in profile.events()})
    assert "aten::_scaled_dot_product_attention_math" in names[0]
    assert "aten::_scaled_dot_product_attention_math" not in names[1]
