"""A cached teacher reads as the teacher does, from what is stored, whatever of it was there before."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import tiny
from tests.methods.test_distillation import NoiseData, distiller, trainer
from tinymim.data import ShapesData
from tinymim.errors import TinymimError
from tinymim.methods import Distiller
from tinymim.methods.cached_teacher import CachedTeacher
from tinymim.targets import CLS, AttentionMap, Feature, Relation, Target
from tinymim.teacher_cache.storage import entries
from tinymim.vit.taps import TAPS, Tap


class Shapes(ShapesData):
    def __init__(self, **options: Any) -> None:
        super().__init__(**{"image_size": 16, "batch_size": 8, "train_images": 20, "held_out_images": 6, **options})


@pytest.fixture
def place(teacher_card: Path, tmp_path: Path) -> Path:
    return tmp_path / "cache"


def made(
    place: Path, *targets: Target, epochs: int = 2, views: int | None = 2, data: Any = None, **options: Any
) -> Distiller:
    module = distiller(*targets, teacher_cache=views, teacher_cache_dir=str(place), **options)
    trainer(place.parent, max_epochs=epochs).fit(module, datamodule=data or Shapes())
    return module


def difference(one: Distiller, other: Distiller) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs if a.numel())


def counted(module: Distiller) -> int:
    assert isinstance(module.frozen, CachedTeacher)
    return module.frozen.filler.filled


def test_cached__steps_are_the_same_whether_it_was_stored_or_not(place: Path) -> None:
    data: Any = Shapes()
    data.source, data.shown = lambda: "/topsecret/images", lambda text: text.replace("/topsecret", "${oc.env:KEY}")
    first, second = made(place, epochs=3, data=data), made(place, epochs=3)
    assert difference(first, second) == 0
    assert {entry.about["source"] for entry in entries(place)} == {"${oc.env:KEY}/images"}
    assert counted(first) >= 2 * 16 + 6
    assert counted(second) == 0
    half = made(place.parent / "half", epochs=1)  # the first view alone; the teacher is let go in between
    assert difference(first, made(place.parent / "half", epochs=3)) == 0
    assert counted(half) < counted(first)


def test_cached__zero_views_is_off(place: Path) -> None:
    module = made(place, epochs=1, views=0)
    assert not isinstance(module.frozen, CachedTeacher)
    assert not place.exists()


def test_cached__another_seed_finds_the_same_views_and_the_teacher_is_let_go(place: Path) -> None:
    made(place, epochs=4, data=Shapes(batch_size=10))  # no image is left over
    other = made(place, epochs=2, data=Shapes(seed=7, batch_size=10))
    assert counted(other) == 0
    assert all(p.is_meta for p in other.teacher.parameters())
    assert dict(other.summary())["teacher"].startswith("vit_tiny")


def test_cached__losses_are_near_those_without(place: Path) -> None:
    targets = [Relation(), Feature(), CLS(), AttentionMap(teacher_block=2), Feature(tap="q", teacher_block=1)]
    stored, plain = made(place, *targets, epochs=0), made(place, *targets, epochs=0, views=None)
    plain.load_state_dict(stored.state_dict())
    batch = {"image": torch.rand(8, 3, 16, 16), "index": torch.arange(8)}
    for module in (stored, plain):
        module.eval()  # the student's drop path would differ
    with torch.no_grad():
        ours, theirs = stored.losses(batch), plain.losses(batch)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0.01, atol=1e-5, msg=name)
    assert isinstance(stored.frozen, CachedTeacher)
    assert [f.name for f in stored.frozen.forms] == [
        "block1_normed", "block2_normed", "block3_ffn_post", "block3_normed"
    ]  # fmt: skip


def test_cached__of_a_cls_target_the_token_alone_is_stored(place: Path) -> None:
    module = made(place, CLS(), epochs=0)
    assert isinstance(module.frozen, CachedTeacher)
    assert [(f.name, f.size) for f in module.frozen.forms] == [("block3_ffn_post_cls", 4 * 24)]
    image = torch.rand(3, 3, 16, 16)
    tap = Tap(3, "ffn_post")
    expected = module.frozen.backbone.read(image, [tap])[tap][:, :1]
    assert torch.equal(module.frozen.read(image)[tap], expected)


@pytest.mark.parametrize(
    "option", [{}, {"teacher_precision": "bfloat16"}, {"mask_ratio": 0.5, "teacher_view": "whole"}]
)
def test_cached__reads_each_tap_as_the_teacher_does(option: dict[str, Any], place: Path) -> None:
    names = [tap for tap in TAPS if tap not in ("logits", "normed")]
    targets = [Feature(tap=[*names], teacher_block=2)]  # type: ignore[list-item]
    stored, plain = made(place, *targets, epochs=0, **option), made(place, *targets, epochs=0, views=None, **option)
    images = torch.rand(4, 3, 16, 16)
    keep = torch.tensor([[0, 3, 5]]).expand(4, -1) if "mask_ratio" in option else None
    ours, theirs = stored.frozen.read(images, keep), plain.frozen.read(images, keep)
    assert ours.keys() == theirs.keys()
    for tap, tokens in theirs.items():
        assert ours[tap].shape == tokens.shape
        assert ours[tap].dtype == tokens.dtype
        # half a step of the largest channel; of q, k and v, what a product makes of it
        assert (ours[tap] - tokens).norm() < 0.015 * tokens.norm(), tap


def test_cached__rotary_positions_are_those_of_the_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinymim.methods.frozen_teacher import FrozenTeacher
    from tinymim.teachers.locate import freeze
    from tinymim.vit.architecture import Architecture
    from tinymim.vit.backbone import Backbone

    torch.manual_seed(0)
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
    architecture = Architecture("eva02_tiny_patch14_224", options=options)
    backbone = freeze(Backbone(architecture))
    twin = freeze(Backbone(architecture))
    twin.load_state_dict(backbone.state_dict())
    taps = [Tap(2, name) for name in "qkv"]
    load = functools.partial(FrozenTeacher, twin)
    cached = CachedTeacher(load, taps, [], None, "float32", backbone, tmp_path, 1)
    images = torch.rand(2, 3, 16, 16)
    expected = backbone.read(images, taps)
    for tap, tokens in cached.read(images).items():
        assert (tokens - expected[tap]).norm() < 0.015 * expected[tap].norm()


def test_problems__what_does_not_go_with_a_cache_is_said_together(teacher_card: Path) -> None:
    module = distiller(teacher_cache=2, teacher_drop_path=0.1, mask_ratio=0.5, teacher_sharding=True)
    found = [line for line in module.problems(16) if line.startswith("teacher_cache")]
    assert len(found) == 3
    assert all("teacher_cache: null" in line for line in found)
    assert distiller(mask_ratio=0.5, teacher_view="whole", teacher_cache=1).problems(16) == []
    (negative,) = distiller(teacher_cache=-1).problems(16)
    assert "-1 is not a number of views" in negative
    assert distiller(teacher_cache=0, teacher_drop_path=0.1).problems(16) == [], "0 is off, as null is"
    (strange,) = distiller(teacher_cache=1).problems(16, NoiseData())
    assert strange.startswith("teacher_cache: NoiseData does not say what determines its views")
    assert distiller().problems(16, NoiseData()) == []


def test_fit__refuses_data_without_views_and_gives_the_others_back(place: Path, tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match="NoiseData does not say"):
        made(place, data=NoiseData())
    data = Shapes()
    made(place, epochs=1, data=data)
    assert data.train.repeats is None


def test_cached__the_bank_is_stored_where_its_losses_are_evaluated(place: Path) -> None:
    plain = made(place, epochs=1)
    assert counted(plain) == 16 + 6
    both = made(place, epochs=1, train_loss=True)
    assert counted(both) == 20
    assert counted(made(place, epochs=1, train_loss=True, student=tiny(12, 3))) == 0
