"""Held-out and training losses, under several fixed masks, of runs that are counted in steps; and what they cost."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from tests.conftest import tiny
from tests.methods.test_distillation import NoiseData, distiller, trainer
from tinymim.data import DigitsData, ShapesData
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError
from tinymim.methods import MAEPretrainer, Optim, SimMIMPretrainer
from tinymim.methods.masking import fixed_noise, keep_smallest, mask_smallest
from tinymim.methods.mim import MaskedPretrainer
from tinymim.methods.optim import configure
from tinymim.tasks import Classifier
from tinymim.training import flops
from tinymim.training.flops import FlopCount

OPTIM = Optim(0.1, warmup_epochs=0)


def pretrainer(kind: type[MaskedPretrainer], **options: Any) -> MaskedPretrainer:
    torch.manual_seed(0)
    if kind is MAEPretrainer:
        sizes = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
        return MAEPretrainer(tiny(24, 3, depth=2), optim=OPTIM, **sizes, **options)
    return SimMIMPretrainer(tiny(24, 3, depth=2), mask_unit=4, drop_path=0.0, optim=OPTIM, **options)


@pytest.mark.parametrize("choose", [keep_smallest, mask_smallest])
def test_fixed_masks__are_of_seed_and_index_alone(choose: Any) -> None:
    index = torch.tensor([5, 900, 7])
    seeds = [choose(fixed_noise(index, 64, seed), 0.75) for seed in range(3)]
    torch.rand(9)
    assert torch.equal(seeds[2][[1]], choose(fixed_noise(torch.tensor([900]), 64, 2), 0.75))
    assert not any(torch.equal(a, b) for a, b in ((seeds[0], seeds[1]), (seeds[1], seeds[2]), (seeds[0], seeds[2])))
    assert len({tuple(part.shape) for part in seeds}) == 1


@pytest.mark.parametrize("kind", [MAEPretrainer, SimMIMPretrainer])
def test_validation__means_over_masks_and_images_held_out_and_trained_on(kind: Any, tmp_path: Path) -> None:
    module, data = pretrainer(kind, mask_seeds=3, train_loss=True), NoiseData()
    data.prepare()
    data._prepared = True
    data.held_out = Some(11)
    runner = trainer(tmp_path)
    (measured, *_) = runner.validate(module, datamodule=data, verbose=False)
    metrics = {name: float(value) for name, value in runner.callback_metrics.items()}

    def by_hand(count: int, seed: int) -> float:
        losses = []
        for i in range(count):  # an image at a time: all have as many masked patches
            sample, index = Some(count)[Draw(0, i)], torch.tensor([i])
            with torch.no_grad():
                losses.append(float(module.loss(sample["image"][None], module.fixed_masks(index, seed))))
        return sum(losses) / count

    for prefix, count in (("val/", 11), ("val/train_", 16)):
        each = [by_hand(count, seed) for seed in range(3)]
        assert [metrics[f"{prefix}loss_mask{seed}"] for seed in range(3)] == pytest.approx(each, rel=1e-5)
        assert metrics[f"{prefix}loss"] == pytest.approx(sum(each) / 3, rel=1e-5)
        assert len(set(each)) == 3
    assert "val/loss" in measured
    one = pretrainer(kind)
    runner.validate(one, datamodule=data, verbose=False)
    assert float(runner.callback_metrics["val/loss"]) == pytest.approx(by_hand(11, 0), rel=1e-5)
    assert not [name for name in runner.callback_metrics if "mask" in name or "train" in name]
    with pytest.raises(TinymimError, match="mask_seeds: 0 is not 1 or more"):
        runner.validate(pretrainer(kind, mask_seeds=0), datamodule=data, verbose=False)


class Some(torch.utils.data.Dataset[dict[str, Any]]):
    """So many random images."""

    def __init__(self, length: int):
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(draw.index))
        return {"image": image, "index": draw.index, "label": draw.index % 2}


def test_validation__of_a_distillation_on_images_trained_on(teacher_card: Path, tmp_path: Path) -> None:
    module, runner = distiller(train_loss=True), trainer(tmp_path, max_epochs=0)
    runner.validate(module, datamodule=NoiseData(), verbose=False)
    metrics = runner.callback_metrics  # both loaders show the same images
    assert float(metrics["val/train_loss"]) == pytest.approx(float(metrics["val/loss"]))
    assert float(metrics["val/train_loss_relation_qk"]) == pytest.approx(float(metrics["val/loss_relation_qk"]))


def linear(tokens: int, width_in: int, width_out: int) -> int:
    return 2 * tokens * width_in * width_out


def block(tokens: int, width: int) -> int:
    """Multiplications and additions of a transformer block's forward pass: qkv, projection, MLP, and attention."""
    return linear(tokens, width, (3 + 1 + 4 + 4) * width) + 2 * linear(tokens, width, tokens)


def counted(module: pl.LightningModule, tmp_path: Path, data: pl.LightningDataModule | None = None) -> int:
    counter = FlopCount()
    trainer(tmp_path, max_epochs=1, limit_val_batches=0, callbacks=[counter]).fit(
        module, datamodule=data or NoiseData()
    )
    return counter.flops


def test_compute__is_the_analytic_count_of_a_tiny_simmim(tmp_path: Path) -> None:
    embedding, pixels = linear(16, 48, 24), linear(16, 24, 48)
    # the backward pass costs twice the forward, but for the images, which need no gradient
    expected = 2 * embedding + 3 * (2 * block(17, 24) + pixels)
    assert counted(pretrainer(SimMIMPretrainer), tmp_path) == expected


def test_compute__is_the_analytic_count_of_a_tiny_mae(tmp_path: Path) -> None:
    kept = 4
    # the embedding is of all patches; the decoder: 24 -> 16, a block of 1 + 16 tokens, pixels of the 16 patches and CLS
    decoder = linear(1 + kept, 24, 16) + block(17, 16)
    whole = 2 * linear(16, 48, 24) + 3 * (2 * block(1 + kept, 24) + decoder)
    found = counted(pretrainer(MAEPretrainer), tmp_path)
    assert found - whole in (3 * linear(16, 16, 48), 3 * linear(17, 16, 48))


def test_compute__counts_a_teachers_forward_pass(teacher_card: Path, tmp_path: Path) -> None:
    found = counted(distiller(), tmp_path)
    relations = 2 * 2 * linear(17, 12, 17)
    # the student's last block as far as its values, and relations of both networks, beside the whole blocks
    student = 2 * linear(16, 48, 12) + 3 * 2 * block(17, 12)
    teacher = linear(16, 48, 24) + 2 * block(17, 24)
    assert student + teacher < found < student + teacher + 3 * block(17, 12) + block(17, 24) + 6 * relations


def test_compute__changes_nothing_of_the_run(tmp_path: Path) -> None:
    """A probe has batch statistics, and both draw random masks."""
    for make in (
        lambda: pretrainer(MAEPretrainer),
        lambda: Classifier(architecture=tiny(24, 3), linear_probe=True, optim=OPTIM),
    ):
        ended = []
        for callbacks in ([], [FlopCount()]):
            torch.manual_seed(1)
            module, runner = make(), trainer(tmp_path, max_epochs=1, limit_val_batches=0, callbacks=callbacks)
            torch.manual_seed(2)
            runner.fit(module, datamodule=NoiseData())
            ended.append(module.state_dict())
        assert all(torch.equal(ended[0][name], value) for name, value in ended[1].items())


def test_compute__counts_nothing_twice_where_blocks_are_recomputed(teacher_card: Path, tmp_path: Path) -> None:
    once, twice = distiller(), distiller(gradient_checkpointing=True)
    assert counted(once, tmp_path) == counted(twice, tmp_path)
    assert twice.backbone.checkpointing, "as it was"
    assert flops.IMAGES % 2 == 0


def test_length_in_steps__whatever_the_epochs(tmp_path: Path) -> None:
    counter, seen = FlopCount(), []
    module = pretrainer(MAEPretrainer, mask_seeds=2, train_loss=True)
    module.optim = Optim(0.1, warmup_steps=2)

    class Steps(pl.Callback):
        def on_validation_end(self, runner: pl.Trainer, _: Any) -> None:
            seen.append(runner.global_step)

    options = {"max_epochs": -1, "max_steps": 9, "check_val_every_n_epoch": None, "val_check_interval": 3}
    runner = trainer(tmp_path, num_sanity_val_steps=0, callbacks=[counter, Steps()], **options)
    runner.fit(module, datamodule=NoiseData())  # two batches an epoch
    assert (runner.global_step, seen) == (9, [3, 6, 9])
    (rate,) = {group["lr"] for group in runner.optimizers[0].param_groups}
    assert rate == pytest.approx(0, abs=1e-9), "the schedule ends where the run does"


def test_optim__epochs_of_warm_up_need_epochs() -> None:
    runner: Any = SimpleNamespace(
        datamodule=SimpleNamespace(batch_size=8),
        world_size=1,
        accumulate_grad_batches=1,
        estimated_stepping_batches=50,
        max_epochs=-1,
        precision="32-true",
    )
    with pytest.raises(
        TinymimError, match=r"optim\.warmup_epochs: trainer\.max_epochs is -1.*give optim\.warmup_steps"
    ):
        configure(torch.nn.Linear(2, 2), Optim(warmup_epochs=3), runner)


def test_fraction_of_shapes__the_first_ones() -> None:
    few, more = ShapesData(train_images=200, fraction=0.1), ShapesData(train_images=200, fraction=0.55)
    for data in (few, more):
        data.prepare()
    assert (len(few.train), len(more.train), len(few.held_out or [])) == (20, 110, 1000)  # type: ignore[arg-type]
    for of_few, of_more in ((few.train, more.train), (few.bank, more.bank), (few.held_out, more.held_out)):
        assert torch.equal(of_few[Draw(0, 19)]["image"], of_more[Draw(0, 19)]["image"])  # type: ignore[index]
    assert ShapesData(fraction=1.5).problems() == [
        "data.fraction: 1.5 is not a share of the training images, more than 0 and up to 1"
    ]


def test_augmentation_of_digits__its_strength() -> None:
    plain, half = DigitsData(augmentation=0.0), DigitsData(augmentation=0.5)
    for data in (plain, half):
        data.prepare()
    image = plain.bank[Draw(0, 3)]["image"]  # type: ignore[index]
    assert torch.allclose(plain.train[Draw(0, 3)]["image"], image, atol=1e-5)
    assert not torch.allclose(half.train[Draw(0, 3)]["image"], image, atol=1e-2)
    assert DigitsData(augmentation=2).problems() == ["data.augmentation: 2 is not a strength from 0 to 1"]
