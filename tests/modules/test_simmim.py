from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.conftest import tiny
from tests.modules.test_distiller import NoiseData, trainer
from tinymim import weights
from tinymim.errors import TinymimError
from tinymim.modules import Distiller, MAEPretrainer, Optim, SimMIMPretrainer
from tinymim.modules.masking import fixed_mask, mask_smallest
from tinymim.targets import CLS


def pretrainer(**fields: Any) -> SimMIMPretrainer:
    """Over 16 squares of one patch, or 4 of four patches with ``mask_unit=8``."""
    torch.manual_seed(0)
    module = SimMIMPretrainer(tiny(24, 3), **{"mask_unit": 4, "drop_path": 0.0, "optim": Optim(), **fields})
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(image_size=16))  # type: ignore[assignment]
    module.configure_model()
    return module


def pictures(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("units", "ratio", "masked"), [(5, 0.6, 3), (16, 0.6, 10), (4, 0.5, 2), (49, 0.6, 30)])
def test_masks__their_share_is_rounded_up(units: int, ratio: float, masked: int) -> None:
    noise = torch.rand(3, units, generator=torch.Generator().manual_seed(0))
    masks = mask_smallest(noise, ratio)
    assert masks.sum(1).tolist() == [masked] * 3
    for mask, row in zip(masks, noise, strict=True):
        assert row[mask].max() < row[~mask].min()


def test_masks__held_out_ones_are_a_function_of_the_index() -> None:
    masks = fixed_mask(torch.tensor([4, 9, 4]), 16, 0.6, torch.device("cpu"))
    assert torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], masks[1])


@torch.no_grad()
def test_loss__is_the_mean_absolute_error_of_masked_pixels() -> None:
    module, images = pretrainer(mask_unit=8).eval(), pictures()
    squares = torch.tensor([[True, False, False, True], [False, True, False, False]])
    predicted = torch.randn(2, 16, 48, generator=torch.Generator().manual_seed(2))
    module.restorer.forward = lambda images, masked: predicted  # type: ignore[method-assign]
    normal = (images - module.backbone.mean) / module.backbone.std  # type: ignore[operator]
    errors = []
    for image, square in squares.nonzero().tolist():
        top, left = 8 * (square // 2), 8 * (square % 2)
        for y in range(top, top + 8):
            for x in range(left, left + 8):
                patch, inside = y // 4 * 4 + x // 4, (y % 4) * 4 + x % 4
                for channel in range(3):
                    given = predicted[image, patch, 3 * inside + channel]
                    errors.append(abs(float(given - normal[image, channel, y, x])))
    assert float(module.loss(images, squares)) == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_encoder__sees_the_mask_token_in_place_of_masked_patches_alone() -> None:
    module, images = pretrainer().eval(), pictures()
    masks = torch.zeros(2, 16, dtype=torch.bool)
    masks[:, 5] = True  # the patch of rows 4 to 7, columns 4 to 7
    other = images.clone()
    other[:, :, 4:8, 4:8] = 0.5
    assert torch.equal(module.restorer(images, masks), module.restorer(other, masks))
    assert not torch.equal(module.restorer(images, ~masks), module.restorer(other, ~masks))
    module.loss(images, masks).backward()
    assert module.restorer.mask_token.grad is not None
    assert module.restorer.mask_token.grad.abs().sum() > 0
    idle = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mask_unit": 6}, "mask_unit: 6 px must be a multiple of the 4x4 px patch"),
        ({"mask_unit": 12}, "divide the 16x16 px image"),
        ({"mask_unit": 8, "mask_ratio": 0.9}, "is all of them"),
        ({"mask_ratio": 1.0}, "mask_ratio: 1.0 is not between 0 and 1"),
        ({"drop_path": 1.0}, r"drop_path: 1.0 is not in \[0, 1\)"),
    ],
)
def test_options__that_cannot_be(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(TinymimError, match=words):
        pretrainer(**fields)


def test_checkpoint__teaches_and_is_not_taken_for_maes(tmp_path: Path) -> None:
    module = SimMIMPretrainer(tiny(24, 3), mask_unit=4, optim=Optim(0.05, warmup_epochs=0))
    run = trainer(tmp_path, max_epochs=3)
    run.fit(module, datamodule=NoiseData())
    checkpoint = tmp_path / "simmim.ckpt"
    run.save_checkpoint(checkpoint)
    backbone, _, record = weights.load(checkpoint)
    assert record["backbone"] == module.leaves()["backbone"]
    assert torch.equal(backbone.vit.blocks[1].attn.qkv.weight, module.backbone.vit.blocks[1].attn.qkv.weight)
    student = Distiller(str(checkpoint), tiny(12, 3), [CLS()], Optim())
    trainer(tmp_path / "b", max_epochs=1).fit(student, datamodule=NoiseData())
    mae = MAEPretrainer(tiny(24, 3), decoder_width=16, decoder_depth=1, decoder_heads=2)
    with pytest.raises(TinymimError, match=r"a SimMIMPretrainer's.*an MAEPretrainer's"):
        trainer(tmp_path / "c", max_epochs=4).fit(mae, datamodule=NoiseData(), ckpt_path=checkpoint)


def test_training__lowers_the_held_out_loss(tmp_path: Path) -> None:
    module = SimMIMPretrainer(tiny(24, 3), mask_unit=4, drop_path=0.0, optim=Optim(0.5, warmup_epochs=0))
    before = trainer(tmp_path, max_epochs=1).validate(module, datamodule=NoiseData(), verbose=False)[0]["val/loss"]
    run = trainer(tmp_path, max_epochs=15)
    run.fit(module, datamodule=NoiseData())
    assert float(run.callback_metrics["val/loss"]) < before - 0.02
