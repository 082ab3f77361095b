"""Data sets that a program has opened: items of every form, labels, and torchvision's transforms left out."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision.datasets import FakeData

from tinymim.data import HFData, ObjectData, images_of_run, opened
from tinymim.data.object_data import picture
from tinymim.errors import TinymimError

BYTES = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
TENSOR = torch.from_numpy(BYTES).permute(2, 0, 1)


class Squares(Dataset[Any]):
    """Grey squares whose class is in their colour."""

    def __init__(self, count: int, **fields: Any):
        self.count = count
        vars(self).update(fields)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return Image.new("L", (8, 8), 20 * index), index % 2


def data(dataset: Any, **options: Any) -> ObjectData:
    return ObjectData(opened.name_of(dataset), image_size=8, num_workers=0, batch_size=2, **options)


@pytest.mark.parametrize(
    "item",
    [
        Image.fromarray(BYTES),
        (Image.fromarray(BYTES), 3),
        {"image": BYTES, "label": 3},
        BYTES,
        [TENSOR, 3],
        TENSOR.float() / 255,
        BYTES.astype(np.float32) / 255,
    ],
)
def test_picture__is_the_same_in_any_form(item: Any) -> None:
    assert np.array_equal(np.asarray(picture(item)), BYTES)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (TENSOR.float(), r"values from 0 to \d+.* leave Normalize out"),
        (torch.zeros(5, 4, 4), r"holds Tensor of float32 \(5, 4, 4\)"),
        ({"pixels": BYTES}, "an item has no 'image'"),
        (torch.zeros(32, 32, 3), r"holds Tensor of float32 \(32, 32, 3\)"),
        (torch.full((3, 4, 4), torch.nan), "no numbers"),
        (torch.zeros(3, 0, 0), "holds Tensor"),
        (None, "an item holds None"),
        ((), "an item holds None"),
        (3, "holds int where an image belongs"),
    ],
)
def test_picture__that_is_none(item: Any, says: str) -> None:
    with pytest.raises(TinymimError, match=says):
        picture(item)


def test_labels__are_the_sets_own_and_part_of_it_has_its_part() -> None:
    squares = Squares(10, targets=[i % 2 for i in range(10)], classes=["even", "odd"])
    module = data(Subset(squares, range(1, 10)))
    module.setup("fit")
    assert module.classes == ["even", "odd"]
    assert module.train[module.train_dataloader().sampler.__iter__().__next__()]["image"].shape == (3, 8, 8)
    unlabelled = data(Squares(10))
    unlabelled.setup("fit")
    assert unlabelled.classes is None
    assert unlabelled.bank is None


def test_held_out__is_the_set_that_is_given() -> None:
    train, held = (Squares(count, targets=[i % 2 for i in range(count)]) for count in (10, 4))
    module = data(train, val_dataset=opened.name_of(held))
    module.setup("fit")
    assert (len(module.train), len(module.held_out), module.num_classes) == (10, 4, 2)  # type: ignore[arg-type]
    with pytest.raises(TinymimError, match=r"data\.val_dataset: it has no labels"):
        data(train, val_dataset=opened.name_of(Squares(4))).setup("fit")


def test_transform__of_torchvision_is_left_out() -> None:
    def fails(image: Any) -> Any:
        raise AssertionError

    module = data(FakeData(size=4, image_size=(3, 8, 8), transform=fails))
    module.setup("fit")
    assert next(iter(module.train_dataloader()))["image"].shape == (2, 3, 8, 8)


def noted(dataset: Any) -> Any:
    module = (HFData if hasattr(dataset, "column_names") else ObjectData)(opened.name_of(dataset), num_workers=0)
    module.setup("fit")
    return {part: note for part, note in module.state_dict().items() if part == "train"}


def test_sampled__tells_other_pixels_of_the_same_number_in_data_of_any_kind() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(image) for image in pixels]
    others = [*map(Image.fromarray, 255 - pixels)]
    kinds: list[Any] = [
        list,
        lambda images: [(image, 0) for image in images],
        lambda images: Subset(images, range(9)),
        lambda images: datasets.Dataset.from_dict({"image": images}, datasets.Features({"image": datasets.Image()})),
        lambda images: Squares(9, data=np.stack([*map(np.asarray, images)])),  # torchvision's form in memory
    ]
    for kind in kinds:
        before = noted(kind(pictures))
        assert noted(kind([*map(Image.Image.copy, pictures)])) == before
        (change,) = images_of_run.changes({"train": kind(others)}, before, noted(kind(others)))
        assert change.certain
        assert "have changed (others of the same number)" in change.line


def test_sampled__of_a_set_that_augments_is_nothing_and_draws_no_number_of_the_program() -> None:
    class Noise(Squares):
        def __getitem__(self, index: int) -> Any:
            return torch.rand(3, 8, 8)

    torch.manual_seed(0)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert noted(Noise(9))["train"]["sampled"] is None
    assert torch.rand(1) == drawn


def test_views__come_again_of_bytes_alone() -> None:
    assert data(Squares(6, data=np.zeros((6, 8, 8), np.uint8))).repeatable
    assert not data(Squares(6)).repeatable


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("object:99:Gone", "of a Python program that has ended"),
        (opened.name_of(iter([])), "list_iterator has no length"),
        (opened.name_of(TensorDataset(torch.zeros(0, 3, 4, 4))), "TensorDataset is empty"),
    ],
)
def test_problems__in_a_line(name: str, says: str) -> None:
    assert any(says in problem for problem in ObjectData(name).problems())
    assert any(says in problem for problem in HFData(name).problems())


def test_hf_data__of_a_program_is_called_by_its_class() -> None:
    table = datasets.Dataset.from_dict(
        {"image": [Image.fromarray(BYTES)] * 4}, features=datasets.Features(image=datasets.Image())
    )
    found = HFData(opened.name_of(table), image_size=8, num_workers=0, batch_size=2, held_out=0.5)
    found.setup("fit")
    assert (found.source(), found.train.source) == ("Dataset", "Dataset (train)")
