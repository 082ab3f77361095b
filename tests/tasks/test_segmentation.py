from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from tests.conftest import tiny
from tests.methods.test_distillation import NoiseData, distiller, trainer
from tinymim.data import ShapesData
from tinymim.data.data_module import ImageData
from tinymim.data.segmentation_folder import Masks
from tinymim.data.segmentation_views import UNLABELLED
from tinymim.errors import TinymimError
from tinymim.methods import Optim
from tinymim.tasks import Classifier, Segmenter, segmentation
from tinymim.tasks.base import resized_backbone
from tinymim.tasks.pyramid import Pyramid
from tinymim.tasks.segmentation import pixel_loss, slide, upsampled
from tinymim.tasks.upernet import SharedDropout2d, UPerNet, UPerNetForm
from tinymim.teachers import locate, weights
from tinymim.training.predictions import MaskFiles
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone

CLASSES = 3


class Halves(Dataset[dict[str, Any]]):
    """Noise whose brighter half has class 1 and the other class 0, with some pixels of class 2 and some unlabelled."""

    def __init__(self, side: int, mask_side: int):
        self.side, self.mask_side = side, mask_side

    def __len__(self) -> int:
        return 8

    def __getitem__(self, draw: Any) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(draw.index)
        image = torch.rand(3, self.side, self.side, generator=generator) / 2
        mask = torch.zeros(self.mask_side, self.mask_side, dtype=torch.long)
        image[:, :, : self.side // 2] += 0.5
        mask[:, : self.mask_side // 2] = 1
        mask[0], mask[1, : draw.index] = UNLABELLED, 2
        return {"image": image, "mask": mask, "index": draw.index}


class HalvesData(ImageData):
    mask_classes = CLASSES

    def __init__(self, image_size: int = 16, held_out: int = 16, mask: int = 16, batch_size: int = 4) -> None:
        super().__init__(image_size=image_size, batch_size=batch_size)
        self.sides = held_out, mask

    def prepare(self) -> None:
        self.train, self.bank = Halves(self.image_size, self.image_size), None
        self.held_out = Halves(*self.sides)


def segmenter(**options: Any) -> Segmenter:
    torch.manual_seed(2)
    small = {"decoder_width": 8, "auxiliary": 4, "dropout": 0.0, "drop_path": 0.0}
    given = {"architecture": tiny(24, 3)} if "weights" not in options else {}
    return Segmenter(**{**small, **given, "optim": Optim(0.3, warmup_epochs=0), **options})


def fit(module: Segmenter, folder: Path, epochs: int = 1, data: ImageData | None = None) -> dict[str, float]:
    runner = trainer(folder, max_epochs=epochs)
    runner.fit(module, datamodule=data or HalvesData())
    return {name: float(value) for name, value in runner.callback_metrics.items()}


@pytest.fixture
def built(tmp_path: Path) -> Segmenter:
    module = segmenter()
    fit(module, tmp_path, epochs=0)
    return module.eval()


# The network


@torch.no_grad()
def test_pyramid__four_scales_of_the_blocks_tokens_each_in_its_place() -> None:
    pyramid = Pyramid(6).eval()
    tokens = [torch.randn(2, 12, 6) for _ in range(4)]
    maps = pyramid(tokens, (2, 6))
    assert [tuple(one.shape) for one in maps] == [(2, 6, 8, 24), (2, 6, 4, 12), (2, 6, 2, 6), (2, 6, 1, 3)]
    for row in range(2):
        for column in range(6):
            assert torch.equal(maps[2][:, :, row, column], tokens[2][:, 6 * row + column])
    assert torch.equal(maps[3][:, :, 0, 1], tokens[3][:, [2, 3, 8, 9]].amax(1))
    changed = [one.clone() for one in tokens]
    for one in changed[:2]:
        one[:, 7] += 1  # row 1, column 1
    for factor, one, other in zip((4, 2), maps, pyramid(changed, (2, 6)), strict=False):
        rows, columns = np.nonzero((one != other).any(1).any(0).numpy())
        assert set(rows // factor) == set(columns // factor) == {1}


@torch.no_grad()
def test_network__reads_its_blocks_and_gives_logits_in_the_images_size() -> None:
    backbone = Backbone(tiny(24, 3, depth=6, img_size=24))
    net = UPerNet(backbone, UPerNetForm(5, [1, 3, 4, 6], width=8, auxiliary=4)).eval()
    images = torch.rand(2, 3, 24, 24)
    main, auxiliary = net.forward_all(images)
    assert main.shape == auxiliary.shape == (2, 5, 24, 24)
    assert torch.equal(main, net(images))
    inner, x = [], backbone.embed(images)
    for block in backbone.vit.blocks:
        inner.append(x := block(x))
    by_hand = net.pyramid([inner[n - 1][:, 1:] for n in (1, 3, 4, 6)], (6, 6))
    expected = F.interpolate(net.decoder(by_hand), size=(24, 24), mode="bilinear")
    torch.testing.assert_close(main, expected)
    seen = F.interpolate(net.auxiliary([by_hand[2]] * 3), size=(24, 24), mode="bilinear")
    torch.testing.assert_close(auxiliary, seen, msg="the auxiliary classifier is on the third scale")


@pytest.mark.parametrize(("depth", "blocks"), [(12, [4, 6, 8, 12]), (24, [8, 12, 16, 24]), (6, [2, 3, 4, 6])])
def test_blocks__of_other_depths_are_fractions(depth: int, blocks: list[int]) -> None:
    module = segmenter(architecture=tiny(24, 3, depth=depth))
    assert module.problems(16) == []
    assert module.checkpoint_record()["segmenter"]["blocks"] == blocks


def test_dropout__of_whole_channels_in_training_alone() -> None:
    torch.manual_seed(0)
    dropout, x = SharedDropout2d(0.25), torch.ones(50, 40, 2, 2)
    out = dropout(x)
    kept = out.flatten(2)
    assert ((kept == 0).all(-1) | torch.isclose(kept, torch.tensor(4 / 3)).all(-1)).all()
    assert (kept == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(dropout.eval()(x), x)


def test_parameters__every_trained_one_is_reached(tmp_path: Path) -> None:
    module = segmenter(blocks=[1, 1, 2, 2], dropout=0.1)
    fit(module, tmp_path, epochs=0)
    assert module.backbone.depth == 2
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    batch = next(iter(module.trainer.datamodule.train_dataloader()))  # type: ignore[attr-defined]
    module.train().training_step(batch, 0).backward()
    unreached = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    assert unreached == []
    assert frozen == ["network.backbone.vit.norm.weight", "network.backbone.vit.norm.bias"]


def test_optimiser__layer_decay_reaches_the_backbone_alone(tmp_path: Path) -> None:
    module = segmenter(optim=Optim(1.6e-3, layer_decay=0.5, weight_decay=0.05))
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(module, datamodule=HalvesData())
    names = {id(p): name for name, p in module.net.named_parameters()}
    found = {
        names[id(p)]: (group["lr_scale"], group["weight_decay"])
        for group in runner.optimizers[0].param_groups
        for p in group["params"]
    }
    assert found["backbone.vit.pos_embed"] == found["backbone.vit.cls_token"] == (0.5**4, 0.0)
    assert found["backbone.vit.blocks.0.attn.qkv.weight"] == (0.5**3, 0.05)
    assert found["backbone.vit.blocks.2.attn.qkv.weight"] == (0.5, 0.05)
    heads = {scale for name, (scale, _) in found.items() if not name.startswith("backbone")}
    assert heads == {1.0}


# Loss and figures


def test_loss__is_the_cross_entropy_of_labelled_pixels_over_all_pixels(built: Segmenter) -> None:
    logits, mask = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    mask[0, :2] = UNLABELLED
    expected = 0.0
    for image, row, column in np.ndindex(2, 4, 5):
        if mask[image, row, column] != 255:
            scores = logits[image, :, row, column].double().numpy()
            expected += np.log(np.exp(scores).sum()) - scores[mask[image, row, column]]
    assert float(pixel_loss(logits, mask)) == pytest.approx(expected / 40, rel=1e-6)
    assert pixel_loss(logits, torch.full_like(mask, UNLABELLED)) == 0
    built.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    batch = {"image": torch.rand(2, 3, 16, 16), "mask": torch.randint(0, 3, (2, 16, 16))}
    main, auxiliary = (pixel_loss(one, batch["mask"]) for one in built.net.forward_all(batch["image"]))
    torch.testing.assert_close(built.training_step(batch, 0), main + 0.4 * auxiliary)


@pytest.mark.parametrize("held_out", [16, 24], ids=["one window", "sliding"])
def test_figures__are_those_of_all_held_out_pixels_in_the_size_of_the_masks(held_out: int, tmp_path: Path) -> None:
    module, data = segmenter(), HalvesData(held_out=held_out, mask=20)
    metrics = fit(module, tmp_path, data=data)
    module.eval()
    counts, losses = np.zeros((CLASSES, CLASSES)), []
    for batch in data.val_dataloader()[0]:
        with torch.no_grad():
            logits = F.interpolate(module(batch["image"]), size=(20, 20), mode="bilinear")
        losses.append(float(pixel_loss(logits, batch["mask"])))
        predicted = module.predict_step(batch, 0)
        assert torch.equal(predicted["mask"], logits.argmax(1))
        for mask, own in zip(batch["mask"].flatten().tolist(), predicted["mask"].flatten().tolist(), strict=True):
            if mask != 255:
                counts[mask, own] += 1
    right = np.diag(counts)
    either = counts.sum(0) + counts.sum(1) - right
    assert metrics["val/miou"] == pytest.approx((right / either)[either > 0].mean())
    assert metrics["val/pixel_accuracy"] == pytest.approx(right.sum() / counts.sum())
    assert metrics["val/loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_segmenter__learns_shapes_beyond_any_constant_prediction(tmp_path: Path) -> None:
    data = ShapesData(
        image_size=16, batch_size=16, masks=True, train_images=192, held_out_images=64, bank_size=1, flip=False
    )
    module = segmenter(decoder_width=16, optim=Optim(0.16, warmup_epochs=1, schedule="linear"))
    metrics = fit(module, tmp_path, epochs=8, data=data)
    masks = torch.stack([data.held_out[draw]["mask"] for draw in data.val_dataloader()[0].sampler])  # type: ignore[index]
    shares = masks.flatten().bincount(minlength=9) / masks.numel()
    constant = float(shares.max()) / 9  # all other classes have an intersection of zero
    assert metrics["val/pixel_accuracy"] > shares.max()

    assert metrics["val/miou"] > 1.1 * constant  # 1.19 to 1.26 from three first weights


def test_predict__writes_masks_that_are_read_as_the_data_reads_its_own(tmp_path: Path) -> None:
    module = segmenter()
    fit(module, tmp_path, epochs=0)
    data = HalvesData(held_out=24, mask=20)
    data.first_class, data.name_of = 1, "folder/{}".format  # type: ignore[method-assign, assignment]
    runner = trainer(tmp_path, callbacks=[MaskFiles(tmp_path)])
    predicted = torch.cat([batch["mask"] for batch in runner.predict(module.eval(), datamodule=data)])  # type: ignore
    assert len({path.name for path in (tmp_path / "masks/folder").iterdir()}) == 8
    for index, mask in enumerate(predicted):
        stored = Masks(CLASSES, zero_unlabelled=True).read(tmp_path / f"masks/folder/{index}.png")
        assert np.array_equal(stored, mask.numpy())


# Sliding windows and other sizes


@pytest.mark.parametrize("size", [(40, 23), (23, 40), (5, 6), (7, 9), (90, 7)])
def test_upsampled__in_bands_as_at_once(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.rand(2, 3, 7, 9)
    expected = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    ((rows, whole),) = upsampled(logits, size)
    assert torch.equal(whole[:, :, rows], expected)
    monkeypatch.setattr(segmentation, "BAND", 2 * 3 * size[1] * 2)
    bands = list(upsampled(logits, size))
    assert [len(range(*rows.indices(size[0]))) for rows, _ in bands][:-1] == [2] * (len(bands) - 1)
    assert len(bands) == -(-size[0] // 2)
    torch.testing.assert_close(torch.cat([band for _, band in bands], 2), expected)


def test_validation__in_bands_has_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = segmenter()
    fit(module, tmp_path, epochs=0)
    data = HalvesData(held_out=24, mask=20)
    (whole,) = trainer(tmp_path).validate(module, data, verbose=False)
    monkeypatch.setattr(segmentation, "BAND", CLASSES * 20 * 3)
    (in_bands,) = trainer(tmp_path).validate(module, data, verbose=False)
    assert in_bands == pytest.approx(whole)


def test_slide__one_window_is_the_whole_image(built: Segmenter) -> None:
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(built(images), built.net(images))


@pytest.mark.parametrize(("height", "width", "window", "stride"), [(7, 12, 5, 3), (5, 5, 5, 3), (9, 6, 4, 4)])
def test_slide__averages_each_pixel_over_the_windows_that_show_it(
    height: int, width: int, window: int, stride: int
) -> None:
    weight = torch.rand(2, 3, window, window)

    def predict(part: torch.Tensor) -> torch.Tensor:  # what is said of a pixel depends on where in the window it is
        return torch.einsum("bchw,kchw->bkhw", part, weight)

    images = torch.rand(2, 3, height, width)

    def starts(side: int) -> list[int]:
        found = [0]
        while found[-1] + window < side:
            found.append(min(found[-1] + stride, side - window))
        return found

    expected = torch.zeros(2, 2, height, width)
    for y, x in np.ndindex(height, width):
        said = [
            torch.einsum("bc,kc->bk", images[:, :, y, x], weight[:, :, y - top, x - left])
            for top in starts(height)
            for left in starts(width)
            if top <= y < top + window and left <= x < left + window
        ]
        expected[:, :, y, x] = sum(said) / len(said)  # type: ignore[assignment]
    torch.testing.assert_close(slide(predict, images, window, stride), expected)


def test_slide__a_smaller_image_is_filled_up_and_nothing_is_said_of_the_filling() -> None:
    seen: list[torch.Tensor] = []
    images, fill = torch.rand(1, 3, 3, 6), torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    out = slide(lambda part: (seen.append(part), part)[1], images, 4, 3, fill)
    torch.testing.assert_close(out, images)
    torch.testing.assert_close(seen[0][0, :, 3], fill.squeeze(-1).expand(3, 4))


@torch.no_grad()
def test_size__positions_are_resampled_and_the_rest_stays() -> None:
    torch.manual_seed(0)
    backbone = Backbone(tiny(24, 3))
    larger = resized_backbone(backbone, 24)
    assert (larger.image_size, larger.heads) == ((24, 24), backbone.heads)
    own, other = backbone.vit.state_dict(), larger.vit.state_dict()
    assert torch.equal(other["pos_embed"][:, 0], own["pos_embed"][:, 0]), "the CLS token's position is its own"
    grid = own["pos_embed"][0, 1:].T.reshape(1, 24, 4, 4)
    expected = F.interpolate(grid, size=(6, 6), mode="bicubic", antialias=True)
    torch.testing.assert_close(other["pos_embed"][0, 1:].T.reshape(1, 24, 6, 6), expected)
    for key in own.keys() - {"pos_embed"}:
        assert torch.equal(own[key], other[key])
    assert resized_backbone(backbone, 16) is backbone
    with pytest.raises(TinymimError, match=r"data\.image_size: 18 is no multiple"):
        resized_backbone(backbone, 18)


@pytest.mark.parametrize("arch", ["beit_base_patch16_224", "eva02_tiny_patch14_224", "vit_small_patch14_dinov2"])
@torch.no_grad()
def test_size__of_networks_with_other_positions(arch: str) -> None:
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 3}
    larger = resized_backbone(Backbone(Architecture(arch, options)), 48)
    net = UPerNet(larger, UPerNetForm(3, [1, 2, 3, 4], width=8, auxiliary=4)).eval()
    assert net(torch.rand(1, 3, 48, 48)).shape == (1, 3, 48, 48)


# Weights and checkpoints


@pytest.fixture
def student(teacher_card: Path, tmp_path: Path) -> Path:
    """A student of relations, in the teacher's heads: its last block is trained up to q, k and v."""
    runner = trainer(tmp_path)
    runner.fit(distiller(head_layout="published"), datamodule=NoiseData())
    runner.save_checkpoint(tmp_path / "student.ckpt")
    return tmp_path / "student.ckpt"


def test_weights__of_a_student_with_its_heads_and_what_was_trained_is_said(student: Path, tmp_path: Path) -> None:
    module = segmenter(weights=str(student))
    fit(module, tmp_path, epochs=0, data=HalvesData(24))
    stored, _, _ = weights.load(student)
    assert module.backbone.heads == stored.heads == [3, 3, 4]
    assert module.backbone.image_size == (24, 24)
    for name, value in stored.vit.blocks.state_dict().items():
        assert torch.equal(module.backbone.vit.blocks.state_dict()[name], value)
    said = dict(module.summary())
    assert said["blocks"].startswith("pre-trained up to 2 and q, k, v of the next; all 3 are trained now")
    assert said["positions"] == "resampled from 4x4 patches to 6x6"
    assert module.licence == "Apache-2.0"


def test_checkpoint__goes_on_and_is_what_its_recipe_promised(student: Path, tmp_path: Path) -> None:
    module, data = segmenter(weights=str(student)), HalvesData(24)
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(module, datamodule=data)
    runner.save_checkpoint(tmp_path / "segmenter.ckpt")
    record = weights.read(tmp_path / "segmenter.ckpt").record
    fresh = segmenter(weights=str(student), num_classes=CLASSES)
    assert fresh.problems(24) == []
    assert fresh.checkpoint_record() == record
    again = segmenter(weights=str(student))
    trainer(tmp_path, max_epochs=1).fit(again, datamodule=data, ckpt_path=tmp_path / "segmenter.ckpt")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in module.state_dict().items())
    started = locate.locate(str(tmp_path / "segmenter.ckpt"))
    assert torch.equal(started.load()[0].vit.pos_embed, module.backbone.vit.pos_embed)
    other = segmenter(weights=str(student), decoder_width=12)
    with pytest.raises(TinymimError, match=r"its decoder is .*'width': 8.*'width': 12"):
        trainer(tmp_path, max_epochs=2).fit(other, datamodule=data, ckpt_path=tmp_path / "segmenter.ckpt")
    with pytest.raises(TinymimError, match="is a Segmenter's, and the recipe trains a Classifier's"):
        trainer(tmp_path, max_epochs=2).fit(
            Classifier(weights=str(student)), datamodule=NoiseData(), ckpt_path=tmp_path / "segmenter.ckpt"
        )


# Mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"blocks": [1, 2, 3]}, "blocks: [1, 2, 3] is not four of the backbone's blocks 1 to 3, rising"),
        ({"blocks": [1, 3, 2, 3]}, "blocks: [1, 3, 2, 3] is not four"),
        ({"blocks": [0, 1, 2, 3]}, "blocks: [0, 1, 2, 3] is not four"),
        ({"decoder_width": 0}, "decoder_width: 0"),
        ({"auxiliary_weight": 0.0}, "auxiliary_weight: 0.0"),
        ({"dropout": 1.0}, "dropout: 1.0"),
        ({"stride": 17}, "stride: 17 is more than data.image_size, 16"),
        ({"weights": "nobody"}, "no card 'nobody'"),
        ({"architecture": None}, "no architecture to start from scratch"),
    ],
)
def test_problems__each_names_its_option(options: dict[str, Any], words: str) -> None:
    (found,) = segmenter(**options).problems(16)
    assert words in found


def test_data__without_masks_or_with_a_batch_of_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match="no masks"):
        fit(segmenter(), tmp_path, data=NoiseData())
    with pytest.raises(TinymimError, match=r"data\.batch_size: steps of 1 image"):
        fit(segmenter(), tmp_path, data=HalvesData(batch_size=1))


def test_figures__of_held_out_masks_without_a_class_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Halves.__getitem__
    monkeypatch.setattr(
        Halves, "__getitem__", lambda self, draw: {**(it := read(self, draw)), "mask": torch.full_like(it["mask"], 255)}
    )
    with pytest.raises(TinymimError, match="no pixel of the held-out masks has a class"):
        fit(segmenter(), tmp_path)
