from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tinymim.data import DigitsData, ImageFolderData, ShapesData
from tinymim.data.sampler import Draw
from tinymim.seeds import stream


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def made(kind, folder, **options):
    if kind is ImageFolderData:
        options |= {"root": str(folder), "image_size": 16, "held_out": 0.3, "color_jitter": 0.4}
    if kind is ShapesData:
        options |= {"train_images": 5, "held_out_images": 2}
    data = kind(**options)
    data.setup("fit")
    return data


@pytest.mark.parametrize("kind", [DigitsData, ShapesData, ImageFolderData])
def test_repeat__a_view_comes_again_for_all_seeds_and_is_new_otherwise(kind, folder):
    data, other, moved = (made(kind, folder, **options) for options in ({}, {"seed": 5}, {"view_seed": 1}))
    new = data.train[Draw(4, 2)]
    assert "view" not in new
    for one in (data, other, moved):
        one.repeat(3)
    first = data.train[Draw(1, 2)]
    for same in (data.train[Draw(4, 2)], other.train[Draw(1, 2)], other.train[Draw(7, 2)]):
        assert torch.equal(first["image"], same["image"])
    assert first["view"].tolist() == [0, 1, 2]
    for different in (data.train[Draw(2, 2)], moved.train[Draw(1, 2)], new):
        assert not torch.equal(first["image"], different["image"])
    if kind is ImageFolderData:  # the student's colours are its own
        seen = [data.train[Draw(1, 2)], data.train[Draw(4, 2)], other.train[Draw(1, 2)]]
        assert len({sample["jittered"].numpy().tobytes() for sample in seen}) == 3
    plain = data.held_out[Draw(0, 1)]
    assert plain["view"].tolist() == [1, 0, 1]
    data.repeat(0)
    again = data.train[Draw(4, 2)]
    assert again.keys() == new.keys()
    assert all(torch.equal(torch.as_tensor(again[name]), torch.as_tensor(new[name])) for name in new)
    assert torch.equal(data.held_out[Draw(0, 1)]["image"], plain["image"])


def test_repeat__what_is_drawn_without_it_is_what_always_was():
    data = DigitsData()
    data.setup("fit")
    rng = stream(0, 3, 5)
    angle = 15 * rng.uniform(-1, 1, size=5)[0]
    from tinymim.data.digits import _affine

    turned = _affine(stream(0, 3, 5), 1.0)
    assert np.isclose(np.degrees(np.arctan2(turned[1, 0], turned[0, 0])), angle)
    assert (turned == _affine(data.train._stream(Draw(3, 5)), 1.0)).all()


def test_repeat__a_neighbour_in_place_of_a_broken_image_has_the_neighbours_own_view(folder):
    data = made(ImageFolderData, folder)
    (Path(data.train.name(2))).write_bytes(b"broken")
    data.repeat(2)
    broken, neighbour = data.train[Draw(1, 2)], data.train[Draw(1, 3)]
    assert (broken["index"], broken["view"].tolist()) == (2, [0, 1, 3])
    assert torch.equal(broken["image"], neighbour["image"])
