"""Which networks and which images an analysis takes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import tiny
from tests.data.images import class_folders, write
from tests.training.made import checkpoint, network
from tinymim.analysis import analysis_page, networks, sample_images
from tinymim.analysis.agreement import RelationOptions
from tinymim.analysis.heads import HeadOptions
from tinymim.analysis.measure import MeasureOptions, measure
from tinymim.analysis.networks import AnalysedNetwork
from tinymim.analysis.results import AnalysisResults
from tinymim.analysis.sample_images import SampleImages
from tinymim.data.open_image import read_rgb
from tinymim.data.transforms import PlainView
from tinymim.errors import TinymimError
from tinymim.report import figures
from tinymim.teachers.provenance import SCRATCH
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Tap

CPU = torch.device("cpu")


def first(subject: AnalysedNetwork) -> torch.Tensor:
    return torch.cat([value.flatten() for value in subject.network.state_dict().values()])


def test_random__is_the_architecture_with_weights_of_the_seed(tmp_path: Path) -> None:
    made = network(tiny(24, 4, depth=2, img_size=(16, 16)), taps=[Tap(2, "q")])
    source = f"random:{checkpoint(tmp_path / 'student/checkpoints/last.ckpt', made)}"
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (networks.load([source], seed)[0] for seed in (0, 0, 1))
    assert torch.rand(1) == before, "random weights take nothing from the global generators"
    assert one.title == "random student"
    assert (first(one) == first(same)).all()
    assert (first(one) != first(other)).any()
    assert one.network.describe() == made.describe()
    assert (one.blocks_with_maps, one.blocks_with_outputs) == ([1, 2], [1, 2]), "no block is less trained than another"
    assert (one.provenance, one.licence, one.exclusions) == (None, "", "")
    assert not one.network.training


def spread(subject: AnalysedNetwork) -> float:
    vit: Any = subject.network.vit  # type: ignore[union-attr]
    return float(vit.blocks[0].attn.qkv.weight.std())


def test_random__weights_follow_the_rule(tmp_path: Path) -> None:
    """By default a checkpoint's own; those of before it was noted were timm's, and other people's are published."""
    made = network(tiny(96, 4, depth=2))
    place = tmp_path / "student/checkpoints"
    xavier, timms, cut = math.sqrt(2 / (4 * 96)), 0.02, 0.0108
    cases: list[tuple[str, dict[str, Any], Any, float]] = [
        ("a", {"init": "published"}, None, xavier),
        ("b", {"init": "timm"}, None, timms),
        ("c", {}, None, timms),
        ("d", {"start": {"name": "x", "sha256": "1", "init": "published"}}, None, xavier),
        ("e", {}, "published", xavier),
        ("f", {"init": "published"}, "timm", timms),
        ("g", {"init": "published", "prefix": "model.encoder.vit."}, None, cut),
    ]
    for name, record, init, expected in cases:
        path = checkpoint(place / f"{name}.ckpt", made, **record)
        if prefix := record.get("prefix"):
            content = torch.load(path, weights_only=True)
            state = {key.replace("student.vit.", prefix): value for key, value in content["state_dict"].items()}
            torch.save({**content, "state_dict": state}, path)
        (subject,) = networks.load([f"random:{path}"], 0, init)
        assert spread(subject) == pytest.approx(expected, rel=0.03), name
        assert subject.as_dict()["init"] == subject.init == ("timm" if expected == timms else "published")
    (other,) = networks.load(["random:digits_mae"], 0)
    assert other.init == "published"
    assert spread(other) == pytest.approx(math.sqrt(2 / (4 * 192)), rel=0.03)


def test_random__two_in_one_command_differ() -> None:
    one, other = networks.load(["a=random:eva02_vitt14", "b=random:eva02_vitt14"], 0)
    (again,) = networks.load(["random:eva02_vitt14"], 1)
    assert (first(one) != first(other)).any()
    assert (first(other) == first(again)).all()


def test_random__needs_no_weights() -> None:
    (subject,) = networks.load(["a=random:eva02_vitt14"], 0)
    assert subject.as_dict()["weights"] == "random"
    assert subject.as_dict()["grid"] == [16, 16]


def test_random__of_a_swin() -> None:
    (subject,) = networks.load(["random:timm:swin_tiny_patch4_window7_224"], 0)
    about = subject.as_dict()
    assert (subject.title, about["depth"], about["grid"]) == ("random swin_tiny_patch4_window7_224", 12, [56, 56])
    assert about["heads"] == [3, 3, 6, 6, 12, 12, 12, 12, 12, 12, 24, 24]
    assert subject.blocks_with_outputs == list(range(1, 13))


def test_licence__of_weights_from_scratch_there_is_none_to_warn_of(tmp_path: Path) -> None:
    started = {"start": {"name": "a.ckpt", "sha256": "1"}}
    for name, origin, said in (
        ("own", {"licence": SCRATCH}, ""),
        ("other", {"licence": "unknown", **started}, "unknown"),
    ):
        path = checkpoint(tmp_path / f"{name}.ckpt", network(tiny(24, 4)), **origin)
        assert networks.load([str(path)], 0)[0].licence == said


def test_fine_tuned__its_backbone_is_taken_and_its_teacher_known(tmp_path: Path) -> None:
    start = {"name": "last.ckpt", "sha256": "1", "teacher": {"name": "t", "sha256": "2"}}
    path = checkpoint(tmp_path / "it=1.ckpt", network(tiny(24, 4)), start=start)
    (subject,) = networks.load([str(path)], 0)
    assert subject.title == "it=1", "a path may hold the sign that ends a title"
    assert subject.teacher_sha256 == "2"
    assert subject.distilled_blocks() == [], "the run of its distillation is not the one beside it"


def test_distilled_blocks__are_unknown_without_the_run(tmp_path: Path) -> None:
    teacher = {"name": "digits_mae", "sha256": "2"}
    path = checkpoint(tmp_path / "run/checkpoints/last.ckpt", network(tiny(24, 4)), teacher=teacher)
    assert networks.load([str(path)], 0)[0].distilled_blocks() == []
    (tmp_path / "run/config.yaml").write_text("model: [")
    assert networks.load([str(path)], 0)[0].distilled_blocks() == []


def seen(found: SampleImages, size: int = 2) -> torch.Tensor:
    return torch.cat(list(found.batches(size)))


def test_folder__is_read_evenly_in_order_as_it_is_evaluated(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path / f"deep/{number}.png", seed=number)
    found = sample_images.find(str(tmp_path), 3, 16)
    assert found.what == f"3 of 5 images in {tmp_path}"
    expected = [PlainView(16)(read_rgb(f"{tmp_path}/deep/{n}.png"))["image"] / 255 for n in (0, 2, 4)]
    assert torch.equal(seen(found), torch.stack(expected))


def test_folder__batches_are_whole_though_images_are_passed_over(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path / f"{number}.png", seed=number)
    (tmp_path / "1.png").write_bytes(b"no image")
    found = sample_images.find(str(tmp_path), 10, 16)
    for _ in range(2):
        assert [len(batch) for batch in found.batches(2)] == [2, 2]
        assert (found.used, found.unreadable) == (4, ["1.png"])


def test_folder__of_train_and_val_is_its_val(tmp_path: Path) -> None:
    class_folders(tmp_path / "train")
    class_folders(tmp_path / "val", each=2)
    assert sample_images.find(str(tmp_path), 9, 16).what == f"4 of 4 images in {tmp_path / 'val'}"


def test_shapes__are_made_in_the_size_asked_for() -> None:
    found = sample_images.find("shapes", 3, 24)
    assert found.what == "3 of 1000 held-out images of shapes"
    assert seen(found).shape == (3, 3, 24, 24)


def test_recipe__its_held_out_images_without_the_unreadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class_folders(tmp_path / "images/train")
    class_folders(tmp_path / "images/val", each=2)
    (tmp_path / "images/val/b/0.jpg").write_bytes(b"no image")
    data = {"class_path": "tinymim.data.ImageFolderData", "init_args": {"root": str(tmp_path / "images")}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"data": data}))
    found = sample_images.find(str(tmp_path / "mine.yaml"), 9, 16)
    assert found.what == "4 of 4 held-out images of mine"
    assert seen(found).shape == (3, 3, 16, 16)
    assert found.unreadable == [f"{tmp_path}/images/val/b/0.jpg"]
    assert "unreadable, left out: " in capsys.readouterr().err


def test_data__of_a_variable_that_is_not_set_is_not_the_working_folder() -> None:
    with pytest.raises(TinymimError, match="data: nothing is named; give a folder of images, digits, shapes or a"):
        sample_images.find("", 9, 16)


def test_recipe__without_data_or_with_mistakes_in_it(tmp_path: Path) -> None:
    (tmp_path / "none.yaml").write_text("seed_everything: 0")
    with pytest.raises(TinymimError, match=r"data: the recipe .*none.yaml has none"):
        sample_images.find(str(tmp_path / "none.yaml"), 9, 16)
    (tmp_path / "odd.yaml").write_text("data: {class_path: tinymim.data.Nothing}")
    with pytest.raises(TinymimError, match=r"data.class_path: tinymim.data.Nothing cannot be imported"):
        sample_images.find(str(tmp_path / "odd.yaml"), 9, 16)
    data = {"class_path": "tinymim.data.RobustnessData"}
    (tmp_path / "sets.yaml").write_text(yaml.safe_dump({"data": data}))
    with pytest.raises(TinymimError, match="RobustnessData does more than read images; name a folder of some, or say"):
        sample_images.find(str(tmp_path / "sets.yaml"), 9, 16)
    with pytest.raises(TinymimError, match="data: the recipe sets has test sets alone"):
        sample_images.find(str(tmp_path / "sets.yaml"), 9, 16, trust=True)


def analysed(*given: Backbone, count: int = 6, **chosen: object) -> AnalysisResults:
    measured = [AnalysedNetwork(name, name, one) for name, one in zip("abc", given, strict=False)]
    options = {"measures": ("heads", "cka", "relations"), "batch_size": 4, "tokens": "mean", "teacher": "a", **chosen}
    relations = RelationOptions(cls="keep")
    return measure(
        measured,
        sample_images.find("digits", count, 16),
        MeasureOptions(heads=HeadOptions(), relations=relations, **options),
        CPU,
    )


def test_measure__is_float32_whatever_is_around_it() -> None:
    pair = network(tiny(24, 3)), network(tiny(24, 3, depth=2))
    alone = analysed(*pair)
    with torch.autocast("cpu", torch.bfloat16):
        again = analysed(*pair)
    assert alone.heads.equals(again.heads)
    assert alone.cka.equals(again.cka)
    assert alone.relations.equals(again.relations)


def test_grids__agreement_is_resampled_or_left_out_and_all_else_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    square, finer, oblong = (network(tiny(24, 3, **one)) for one in ({}, {"patch_size": 2}, {"img_size": (16, 8)}))
    found = analysed(square, finer, oblong)
    assert found.about["notes"][0] == (
        "relation agreement of a and b: the teacher's 4x4 patches are resampled to the student's 8x8"
    )
    assert found.about["notes"][1].startswith(
        "relation agreement of a and c: left out (agreement: the teacher sees 4x4"
    )
    assert set(found.relations["student"]) == {"b"}
    assert set(found.heads["model"]) == {"a", "b", "c"}
    assert set(zip(found.cka["model_a"], found.cka["model_b"], strict=True)) == {*zip("aabbca", "abbccc", strict=True)}
    found.write(tmp_path)
    monkeypatch.setattr(figures, "save", lambda drawn, stem: b"")
    distance, *_, models = analysis_page.sections(tmp_path)
    assert models.remarks[0].startswith("Relation agreement of a and b: the teacher's 4x4 patches are resampled")
    assert "in proportion to uniform attention" in distance.pictures[1].text


def test_batches__too_small_for_cka_are_left_out_of_it_and_counted() -> None:
    found = analysed(network(tiny(24, 3, depth=1)), count=7)
    assert "CKA: 3 images in a batch of fewer than 4 left out, too few for its estimator" in found.about["notes"]
    assert set(found.heads["images"]) == {7}
    alone = analysed(network(tiny(24, 3, depth=1)), count=3)
    assert (len(alone.cka), len(alone.heads)) == (0, 3)
