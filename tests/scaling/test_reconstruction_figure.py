"""Completions: visible patches as they are, masked ones as the network has them, the objective's loss beside them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from tinymim.errors import TinymimError
from tinymim.methods import MAEPretrainer, SimMIMPretrainer
from tinymim.methods.base import Errors
from tinymim.methods.mae_decoder import patchify, unpatchify
from tinymim.methods.mim import MaskedPretrainer
from tinymim.report import completions
from tinymim.scaling import reconstruction_figure
from tinymim.scaling.overfitting import flagged
from tinymim.scaling.table import RunRow
from tinymim.training.checkpoint_files import SafeCheckpointIO

ARCHITECTURE = {
    "arch": "vit_tiny_patch16_224",
    "options": {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 3},
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
}
MAE = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
SIMMIM = {"mask_unit": 8, "drop_path": 0.5}


def built(kind: type[MaskedPretrainer], **options: object) -> MaskedPretrainer:
    from tinymim.vit.architecture import Architecture

    torch.manual_seed(0)
    module = kind(Architecture(**ARCHITECTURE), **options)  # type: ignore[arg-type]
    module.build(None, None, Errors())
    return module.eval()


def run_folder(place: Path, kind: type[MaskedPretrainer], **options: object) -> Path:
    """As ``tinymim fit`` leaves it, without the training."""
    module = built(kind, **options)
    content = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(content)
    SafeCheckpointIO().save_checkpoint(content, place / "checkpoints/last.ckpt")
    data = {"image_size": 16, "train_images": 40, "held_out_images": 20}
    model = {"class_path": f"tinymim.modules.{kind.__name__}", "init_args": {"architecture": ARCHITECTURE, **options}}
    config = {"data": {"class_path": "tinymim.data.ShapesData", "init_args": data}, "model": model}
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    return place


def test_unpatchify__undoes_patchify() -> None:
    images = torch.rand(2, 3, 8, 18)
    assert torch.equal(unpatchify(patchify(images, (4, 6)), (2, 3), (4, 6)), images)


@pytest.mark.parametrize(
    ("kind", "options", "masked"), [(MAEPretrainer, MAE, 12), (SimMIMPretrainer, SIMMIM, 12)], ids=["MAE", "SimMIM"]
)
def test_restored__masked_patches_alone_are_the_networks(kind: type, options: dict[str, object], masked: int) -> None:
    module, images, index = built(kind, **options), torch.rand(3, 3, 16, 16), torch.tensor([5, 0, 5])
    images[2] = images[0]
    found = completions.restored(module, images, index)
    hidden = (found.masked != images).any(1)
    assert hidden.unfold(1, 4, 4).unfold(2, 4, 4).flatten(3).float().mean(-1).flatten(1).sum(1).tolist() == [masked] * 3
    assert torch.equal(found.completed[~hidden[:, None].expand_as(images)], images[~hidden[:, None].expand_as(images)])
    assert (found.error[~hidden] == 0).all()
    assert torch.equal(found.completed[0], found.completed[2])
    assert torch.equal(hidden[0], hidden[2])
    with torch.inference_mode():
        for place in range(3):
            alone = module.loss(images[place : place + 1], module.fixed_masks(index[place : place + 1]))
            assert found.losses[place] == pytest.approx(float(alone))


def test_restored__is_float32_whatever_is_around_it() -> None:
    module, images, index = built(MAEPretrainer, **MAE), torch.rand(2, 3, 16, 16), torch.tensor([5, 0])
    found = completions.restored(module, images, index)
    with torch.autocast("cpu", torch.bfloat16):
        again = completions.restored(module, images, index)
    assert torch.equal(found.completed, again.completed)
    assert found.losses == again.losses


def test_restored__simmims_error_is_its_loss() -> None:
    """The mean absolute error of normalised pixels, from the pictures."""
    module, images = built(SimMIMPretrainer, **SIMMIM), torch.rand(1, 3, 16, 16) * 0.2 + 0.3
    with torch.no_grad():
        module.restorer.pixels.weight.mul_(0.1)
    found = completions.restored(module, images, torch.tensor([3]))
    assert 0 < found.completed.min() < found.completed.max() < 1, "nothing was clamped"
    hidden = (found.masked != images).any(1)[0]
    error = (found.completed - images).abs()[0] / torch.tensor(ARCHITECTURE["std"])[:, None, None]
    assert found.losses[0] == pytest.approx(float(error[:, hidden].mean()), rel=1e-4)


def test_restored__norm_pix_puts_each_patchs_own_statistics_back() -> None:
    module, images = built(MAEPretrainer, norm_pix=True, **MAE), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        module.decoder.pixels.weight.zero_()
        module.decoder.pixels.bias.zero_()
    found = completions.restored(module, images, torch.tensor([3]))
    normalised = patchify(module.backbone.normalise(images), (4, 4))
    flat = unpatchify(normalised.mean(-1, keepdim=True).expand_as(normalised), (4, 4), (4, 4))
    hidden = (found.masked != images).any(1, keepdim=True).expand_as(images)
    mean, std = (torch.tensor(ARCHITECTURE[name])[:, None, None] for name in ("mean", "std"))
    assert torch.allclose(found.completed[hidden], (flat * std + mean).clamp(0, 1)[hidden], atol=1e-5)


def test_section__of_two_runs(tmp_path: Path) -> None:
    runs = {
        "S 1%": run_folder(tmp_path / "a", MAEPretrainer, **MAE),
        "S 100%": run_folder(tmp_path / "b", SimMIMPretrainer, **SIMMIM),
    }
    section = reconstruction_figure.section(runs, tmp_path / "out", count=2)
    with (tmp_path / "out/reconstructions.csv").open(newline="") as stream:
        records = list(csv.DictReader(stream))
    assert [(record["run"], record["images"], record["index"]) for record in records] == [
        (run, kind, i) for run in runs for kind in ("training", "held out") for i in "01"
    ]
    seen, unseen = (sum(float(record["loss"]) for record in records[start : start + 2]) / 2 for start in (0, 2))
    assert section.tables[0].rows[0] == ["S 1%", f"{seen:.4f}", f"{unseen:.4f}", f"{unseen - seen:+.4f}"]
    assert "true mean and variance" in section.pictures[0].text
    with Image.open(tmp_path / "out/figures/reconstructions.png") as picture:
        assert picture.width > 80 / 25.4 * 299


def test_load__says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=r"has no config\.yaml"):
        completions.load("a", tmp_path)
    place = run_folder(tmp_path / "a", SimMIMPretrainer, **SIMMIM)
    config = yaml.safe_load((place / "config.yaml").read_text())
    other = {
        **config,
        "model": {"class_path": "tinymim.modules.MAEPretrainer", "init_args": {"architecture": ARCHITECTURE}},
    }
    (place / "config.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(TinymimError, match="this checkpoint is"):
        completions.load("a", place)
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    (place / "checkpoints/last.ckpt").unlink()
    with pytest.raises(TinymimError, match="has no checkpoint yet"):
        completions.load("a", place)


def row(data: str, iterations: int, loss: float, training: float | None) -> RunRow:
    return RunRow("MAE", "S", 5, data, len(data), iterations, loss, training)


def test_choose__the_most_overfitted_and_the_best() -> None:
    rows = [row("a", 1, 0.5, 0.4), row("a", 2, 0.6, 0.1), row("bb", 1, 0.7, 0.6), row("bb", 2, 0.3, 0.2)]
    assert reconstruction_figure.choose(flagged(rows)) == (rows[1], rows[3])
    bare = [row(one.data, one.iterations, one.validation_loss, None) for one in rows]
    assert reconstruction_figure.choose(flagged(bare)) == (bare[1], bare[3])
    assert reconstruction_figure.choose(flagged(bare[:1])) is None
    assert reconstruction_figure.choose(flagged(rows[:1])) is None
    assert reconstruction_figure.choose(flagged(rows[2:])) is None, "none of them is overfitted"
