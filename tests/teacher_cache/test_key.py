import json
from dataclasses import replace

import pytest

from tests.conftest import tiny
from tinymim.data import DigitsData, ImageFolderData, ShapesData
from tinymim.teacher_cache import storage as keys
from tinymim.teacher_cache.storage import digest, key_of
from tinymim.vit.backbone import skeleton

ONE = tiny(24, 4)
SAME = {"sha256": "ab", "precision": "float32", "data": {"scale": [0.2, 1.0]}, "view_seed": 0}
TEACHERS = [
    replace(ONE, heads=2),
    replace(ONE, mean=(0.5, 0.5, 0.5)),
    replace(ONE, std=(0.5, 0.5, 0.5)),
    replace(ONE, pos_embed="sincos"),
    tiny(24, 4, depth=2),
    tiny(24, 4, img_size=32),
    tiny(24, 4, qk_norm=True),
]


def test_key__is_the_same_for_the_same_and_survives_json():
    key = key_of(skeleton(ONE), **SAME)
    assert digest(key) == digest(key_of(skeleton(ONE), **SAME)) == digest(json.loads(json.dumps(key)))


@pytest.mark.parametrize(
    "other",
    [{"sha256": "cd"}, {"precision": "bfloat16"}, {"data": {"scale": [0.3, 1.0]}}, {"view_seed": 1}],
    ids=lambda other: next(iter(other)),
)
def test_key__every_field_counts(other):
    assert digest(key_of(skeleton(ONE), **{**SAME, **other})) != digest(key_of(skeleton(ONE), **SAME))


def test_key__every_part_of_the_teacher_counts_and_the_format(monkeypatch):
    found = [digest(key_of(skeleton(one), **SAME)) for one in [ONE, *TEACHERS]]
    monkeypatch.setattr(keys, "FORMAT", keys.FORMAT + 1)
    assert len({*found, digest(key_of(skeleton(ONE), **SAME))}) == len(TEACHERS) + 2


def identities(data):
    data.setup("fit")
    return [json.dumps(part.identity()) for part in data.parts().values() if part is not None]


@pytest.mark.parametrize(
    ("data", "others"),
    [
        (DigitsData, [{"image_size": 16}, {"held_out": 0.3}, {"split_seed": 1}, {"fraction": 0.5}]),
        (ShapesData, [{"image_size": 16}, {"set_seed": 1}]),
    ],
)
def test_identity__of_data_changes_with_its_contents_and_not_with_the_run(data, others):
    first = identities(data())
    assert first == identities(data(seed=3, batch_size=7, num_workers=1))
    for other in others:
        assert identities(data(**other))[0] != first[0], other


def test_identity__of_a_view_changes_the_training_images_alone():
    plain, other = identities(DigitsData()), identities(DigitsData(augmentation=0.5))
    assert plain[0] != other[0]
    assert plain[1:] == other[1:]
    for options in ({"scale": (0.5, 1.0)}, {"flip": False}):
        assert identities(ShapesData())[0] != identities(ShapesData(**options))[0]
        assert identities(ShapesData())[1:] == identities(ShapesData(**options))[1:]


def test_identity__of_a_folder_is_of_names_sizes_times_and_views(tmp_path):
    from PIL import Image

    for number in range(6):
        (tmp_path / "a" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (40 * number, 0, 0)).save(tmp_path / "a" / str(number % 2) / f"{number}.png")

    def found(**options):
        return identities(ImageFolderData(root=str(tmp_path / "a"), image_size=16, held_out=0.4, **options))

    first = found()
    assert found(color_jitter=0.4, seed=5, device_augment=True) == first  # the teacher's view is the same
    for options in ({"scale": (0.5, 1.0)}, {"flip": False}, {"rand_augment": "rand-m9"}, {"random_erasing": 0.5}):
        assert found(**options)[0] != first[0]
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "b").rename(tmp_path / "a")
    assert found() == first
    Image.new("RGB", (20, 20)).save(tmp_path / "a" / "0" / "0.png")
    assert found() != first
