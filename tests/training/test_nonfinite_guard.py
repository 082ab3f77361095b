from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader

from tinymim import seeds
from tinymim.errors import TinymimError
from tinymim.training import captured_step
from tinymim.training.captured_step import finite_each
from tinymim.training.nonfinite_guard import NonFiniteGuard, Rewind

NAN, INF = float("nan"), float("inf")


class Line(pl.LightningModule):
    """A factor of NaN or infinity breaks the loss; one of 0 breaks the gradient alone, by a root at nought."""

    def __init__(self, fused: bool = True):
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Linear(2, 1)
        self.register_buffer("seen", torch.zeros(()))
        self.fused = fused
        self.drawn: list[float] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.seen += batch["factor"].sum()
        self.drawn.append(float(torch.rand(())))
        return (self.net(batch["x"]).square().sum() * batch["factor"]).sqrt().sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01, fused=self.fused)


def batches(*factors: float) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [{"x": torch.rand(4, 2, generator=generator), "factor": torch.tensor([factor])} for factor in factors]


def fit(folder: Path, data: Any, guard: NonFiniteGuard | None, module: pl.LightningModule | None = None, **more: Any):
    module = module or Line()
    callbacks = [guard] if guard else []
    if saving := more.pop("saving", False):
        callbacks.append(ModelCheckpoint(folder / "checkpoints", "last", save_on_train_epoch_end=True))
    options = {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "default_root_dir": folder, "logger": False}
    quiet = {"enable_checkpointing": bool(saving), "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(**{**options, **quiet, **more}, callbacks=callbacks)
    trainer.fit(module, DataLoader(data, batch_size=None))
    return module, trainer


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize("behind", [None, 2], ids=["at once", "two steps later"])
@pytest.mark.parametrize("factor", [NAN, INF, 0.0])
def test_guard__captures_the_step_as_it_began(factor: float, behind: int | None, tmp_path: Path) -> None:
    data = batches(1, 1, factor, 1, 1, 1)
    module = Line()
    words = (
        "the loss is not finite at step 3" if factor else r"gradients of net.weight, net.bias are not finite at step 3"
    )
    with pytest.raises(TinymimError, match=rf"{words} \(epoch 1\).*no checkpoint had been.*replay.*base_lr"):
        fit(tmp_path, data, NonFiniteGuard(behind=behind), module)
    assert len(module.drawn) == 3 + (behind or 0)
    content = torch.load(tmp_path / "nonfinite" / "step_3.pt", weights_only=True)
    good, _ = fit(tmp_path, data[:2], None)
    same(content["state_dict"], good.state_dict())
    same(dict(module.named_parameters()), dict(good.named_parameters()))  # type: ignore[arg-type]
    assert (content["loss"], content["gradients"]) == (factor != 0, ["net.weight", "net.bias"])
    assert content["batches"][0][0] == 2
    torch.testing.assert_close(content["batches"][0][1], data[2], equal_nan=True, rtol=0, atol=0)
    seeds.restore(content["rng"], torch.device("cpu"))
    assert float(torch.rand(())) == module.drawn[2]


def test_guard__late_verdicts_leave_the_optimiser_alone_too(tmp_path: Path) -> None:
    class Kept(Line):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            self.optimizer = super().configure_optimizers()
            return self.optimizer

    module, good = Kept(), Kept()
    with pytest.raises(TinymimError, match="step 3"):
        fit(tmp_path, batches(1, 1, NAN, 1, 1), NonFiniteGuard(behind=2), module)
    fit(tmp_path, batches(1, 1), None, good)
    for ours, theirs in zip(module.optimizer.state.values(), good.optimizer.state.values(), strict=True):
        same(ours, theirs)


def test_guard__does_not_wait_where_the_optimiser_knows_no_flag(tmp_path: Path) -> None:
    module = Line(fused=False)
    with pytest.raises(TinymimError, match="step 2"):
        fit(tmp_path, batches(1, NAN, 1, 1), NonFiniteGuard(behind=2), module)
    assert len(module.drawn) == 2


def test_guard__looks_before_a_checkpoint_and_names_the_last_good_one(tmp_path: Path) -> None:
    fit(tmp_path, batches(1, 1), NonFiniteGuard(behind=2), saving=True)
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    with pytest.raises(TinymimError, match=r"step 2 .*last good checkpoint is .*last\.ckpt"):
        fit(tmp_path, batches(1, NAN), NonFiniteGuard(behind=2), saving=True)
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before


def test_guard__lets_no_broken_weights_into_a_checkpoint(tmp_path: Path) -> None:
    class Breaks(Line):
        def on_train_epoch_end(self) -> None:
            self.net.bias.data.fill_(NAN)

    with pytest.raises(TinymimError, match=r"weights are not finite after step 2 \(net.bias\)"):
        fit(tmp_path, batches(1, 1), NonFiniteGuard(), Breaks(), saving=True)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_guard__blames_a_checkpoint_that_brought_the_weights(tmp_path: Path) -> None:
    module = Line()
    module.net.bias.data.fill_(NAN)
    trainer: Any = SimpleNamespace(default_root_dir=tmp_path, ckpt_path="a.ckpt")
    with pytest.raises(TinymimError, match=r"ckpt_path: a\.ckpt holds weights that are not finite \(net\.bias\)"):
        NonFiniteGuard().on_train_start(trainer, module)


def test_guard__blames_the_update_that_broke_the_weights(tmp_path: Path) -> None:
    class Breaks(Line):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 1:
                self.net.bias.data.fill_(INF)

    with pytest.raises(Rewind, match=r"at step 3 .* the update of step 2 broke them.* pass over step 2"):
        fit(tmp_path, batches(1, 1, 1), NonFiniteGuard("rewind"), Breaks())
    assert captured_step.read(tmp_path / "nonfinite" / "step_3.pt")["weights"] == ["net.bias"]


@pytest.mark.parametrize("fused", [True, False])
def test_rewind__passes_over_the_step_as_if_its_batch_had_not_been(fused: bool, tmp_path: Path) -> None:
    data = batches(1, 1, NAN, 1, 1)
    with pytest.raises(Rewind, match=r"Starting again.* to pass over step 3; rewind 1 of 2") as error:
        fit(tmp_path, data, NonFiniteGuard("rewind", 2), Line(fused))
    assert error.value.checkpoint is None
    guard = NonFiniteGuard("rewind", 2)
    module, trainer = fit(tmp_path, data, guard, Line(fused), gradient_clip_val=1.0)
    assert trainer.global_step == 5
    assert [entry["step"] for entry in guard.skipped] == [3]
    without, _ = fit(tmp_path, [*data[:2], *data[3:]], None, Line(fused), gradient_clip_val=1.0)
    same(module.state_dict(), without.state_dict())


def test_rewind__stops_when_all_are_spent(tmp_path: Path) -> None:
    data = batches(NAN, NAN, NAN)
    for step in (1, 2):
        with pytest.raises(Rewind, match=f"rewind {step} of 2"):
            fit(tmp_path, data, NonFiniteGuard("rewind", 2))
    with pytest.raises(TinymimError, match=r"step 3 \(epoch 1\), after 2 rewinds") as error:
        fit(tmp_path, data, NonFiniteGuard("rewind", 2))
    assert not isinstance(error.value, Rewind)
    assert [entry["step"] for entry in json.loads((tmp_path / "nonfinite" / "skipped.json").read_text())] == [1, 2]


def test_guard__captures_every_accumulated_batch(tmp_path: Path) -> None:
    data = batches(1, 1, 1, NAN, 1, 1)
    module = Line()
    with pytest.raises(TinymimError, match="step 2"):
        fit(tmp_path, data, NonFiniteGuard(), module, accumulate_grad_batches=2)
    content = captured_step.read(tmp_path / "nonfinite" / "step_2.pt")
    assert [batch_idx for batch_idx, _ in content["batches"]] == [2, 3]
    assert float(content["state_dict"]["seen"]) == 2
    seeds.restore(content["rng"], torch.device("cpu"))
    assert float(torch.rand(())) == module.drawn[2]


def test_guard__leaves_overflowing_gradients_to_the_fp16_scaler(tmp_path: Path) -> None:
    def run(*factors: float) -> tuple[Line, float]:
        plugin = MixedPrecision("16-mixed", "cpu")
        module, _ = fit(tmp_path, batches(*factors), NonFiniteGuard(), Line(fused=False), plugins=[plugin])
        return module, plugin.scaler.get_scale()  # type: ignore[union-attr]

    module, scale = run(1, 0, 1)
    assert torch.isfinite(module.net.weight).all()
    assert scale == 0.5 * run(1, 1)[1]
    with pytest.raises(TinymimError, match="the loss is not finite at step 2"):
        run(1, NAN)


def test_guard__says_that_a_batch_was_changed_in_place(tmp_path: Path) -> None:
    class Mixes(Line):
        def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
            batch["x"].mul_(0.5)
            return super().training_step(batch, batch_idx)

    for module, changed in ((Line(), False), (Mixes(), True)):
        with pytest.raises(TinymimError, match=r"batch itself is not finite \(batch.factor\)"):
            fit(tmp_path, copy.deepcopy(batches(NAN)), NonFiniteGuard(), module)
        assert captured_step.read(tmp_path / "nonfinite" / "step_1.pt")["changed"] is changed


def test_finite_each__by_magnitude_and_over_types() -> None:
    values = [1e30, 1.0, NAN, INF, -INF]
    gradients = [torch.tensor([0.0, value]) for value in values] + [torch.ones(2, dtype=torch.bfloat16)]
    assert finite_each(gradients, torch.device("cpu")).tolist() == [True, True, False, False, False, True]
    assert finite_each([], torch.device("cpu")).all()


def test_bad_samples__are_named_by_index() -> None:
    batch = {"image": torch.zeros(3, 2, 2), "index": torch.tensor([7, 8, 9]), "weight": torch.ones(3)}
    assert captured_step.bad_samples(batch) == []
    batch["image"][1, 0, 1], batch["weight"][2] = NAN, INF
    assert captured_step.bad_samples(batch) == [8, 9]
    assert captured_step.bad_samples([1, 2]) == []


def test_plain__keeps_what_loads_without_running_code(tmp_path: Path) -> None:
    value = {"a": (1, torch.ones(2)), "b": Path("x"), "c": None}
    torch.save(captured_step.plain(value), tmp_path / "a.pt")
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    assert loaded["a"][0] == 1
    assert (loaded["b"], loaded["c"]) == (repr(Path("x")), None)
