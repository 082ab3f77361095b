"""A part of the training images in place of the held-out ones, to choose settings on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinymim.data import DigitsData, ImageFolderData, ShapesData
from tinymim.data.data_module import ImageData
from tinymim.data.sampler import Draw


@pytest.fixture(params=["digits", "shapes", "folder", "folder with val"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[type[ImageData], dict[str, object]]:
    """A data module and its options."""
    if request.param == "digits":
        return DigitsData, {}
    if request.param == "shapes":
        return ShapesData, {"train_images": 40, "held_out_images": 10, "bank_size": 40}
    rng = np.random.default_rng(0)
    for part in ("train", "val")[: 2 if "val" in request.param else 1]:
        for label in "ab":
            (folder := tmp_path / part / label).mkdir(parents=True)
            for number in range(10):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return ImageFolderData, {"root": str(tmp_path), "image_size": 8, "held_out": 0.2, "num_workers": 0}


def images(dataset: object) -> set[bytes]:
    """What a plain dataset holds."""
    return {dataset[Draw(0, i)]["image"].numpy().tobytes() for i in range(len(dataset))}  # type: ignore[index,arg-type]


def made(kind: tuple[type[ImageData], dict[str, object]], **options: float) -> ImageData:
    """The data, prepared."""
    data = kind[0](**kind[1], **options)  # type: ignore[arg-type]
    assert data.problems() == []
    data.prepare()
    return data


def test_choice_split__is_held_out_of_the_training_images_and_the_held_out_ones_are_not_there(kind) -> None:
    plain, split = made(kind), made(kind, choice_split=0.25)
    train, held_out = images(plain.bank), images(plain.held_out)
    kept, chosen = images(split.bank), images(split.held_out)
    assert kept | chosen == train
    assert not kept & chosen
    assert not (kept | chosen) & held_out
    assert len(split.held_out) == pytest.approx(0.25 * len(plain.train), abs=1)
    assert len(split.train) + len(split.held_out) == len(plain.train)


def test_choice_split__few_labels_are_of_the_images_that_are_left(kind) -> None:
    whole, few = made(kind, choice_split=0.25), made(kind, choice_split=0.25, fraction=0.5)
    assert images(few.held_out) == images(whole.held_out)
    assert images(few.bank) < images(whole.bank)


def test_choice_split__evenly_from_all_classes() -> None:
    data = made((DigitsData, {}), choice_split=0.2)
    counts = np.bincount(data.held_out.labels)  # type: ignore[union-attr]
    shares = counts / (counts + np.bincount(data.train.labels))  # type: ignore[attr-defined]
    assert np.all(abs(shares - 0.2) < 0.01)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_choice_split__out_of_range(share: float) -> None:
    for data in (DigitsData(choice_split=share), ShapesData(choice_split=share), ImageFolderData(choice_split=share)):
        assert f"data.choice_split: {share} is not a share of the training images, from 0 (none) to less than 1" in (
            data.problems()
        )
