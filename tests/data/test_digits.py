import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tinymim.data.digits import FILE, DigitsData
from tinymim.data.sampler import Draw
from tinymim.data.stratified import stratified


def prepared(**options) -> DigitsData:
    data = DigitsData(**options)
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def data() -> DigitsData:
    return prepared()


def test_split__1437_and_360_with_every_class_in_proportion(data):
    assert (len(data.train), len(data.held_out), len(data.bank)) == (1437, 360, 1437)
    train, held = torch.bincount(data.train.labels), torch.bincount(data.held_out.labels)
    assert len(train) == len(held) == data.num_classes == 10
    assert ((held / (train + held) - 0.2).abs() < 0.01).all()


def test_split__shares_no_image(data):
    seen = {image.numpy().tobytes() for image in data.train.images}
    assert not any(image.numpy().tobytes() in seen for image in data.held_out.images)


def test_split__follows_split_seed_and_not_seed(data):
    assert torch.equal(prepared(seed=5).held_out.images, data.held_out.images)
    assert not torch.equal(prepared(split_seed=5).held_out.labels, data.held_out.labels)


def test_batch__equals_its_samples_one_by_one(data):
    draws = [Draw(3, 0), Draw(3, 1436), Draw(4, 0), Draw(3, 17)]
    for draw, together in zip(draws, data.train.__getitems__(draws), strict=True):
        alone = data.train[draw]
        assert alone.keys() == together.keys() == {"image", "label", "index"}
        assert torch.allclose(alone["image"], together["image"], atol=1e-6)
        assert alone["label"] == together["label"]
        assert alone["index"] == together["index"] == draw.index


def test_images__in_zero_to_one_and_of_the_size_asked_for():
    batch = next(iter(prepared(image_size=24, batch_size=64).train_dataloader()))
    assert batch["image"].shape == (64, 3, 24, 24)
    assert batch["image"].dtype == torch.float32
    assert batch["image"].min() >= 0
    assert 0.9 < batch["image"].max() <= 1


def test_augmentation__depends_on_seed_epoch_and_index(data):
    def image(seed: int, epoch: int) -> torch.Tensor:
        return prepared(seed=seed).train[Draw(epoch, 5)]["image"]

    assert torch.equal(image(0, 1), image(0, 1))
    assert not torch.allclose(image(0, 1), image(0, 2), atol=0.05)
    assert not torch.allclose(image(0, 1), image(1, 1), atol=0.05)
    same = prepared()
    same.train.images = same.train.images[5:6].expand(20, -1, -1, -1)
    assert not torch.allclose(same.train[Draw(0, 5)]["image"], same.train[Draw(0, 6)]["image"], atol=0.05)


def test_augmentation__keeps_label_and_digit(data):
    draws = [Draw(9, index) for index in range(100)]
    augmented = data.train.__getitems__(draws)
    assert [int(sample["label"]) for sample in augmented] == data.train.labels[:100].tolist()
    # By 0.27 of correlation a moved digit is more like itself than like the others; by 0 if they were mixed up.
    moved = np.stack([sample["image"][0].numpy().ravel() for sample in augmented])
    plain = data.train.images[:100, 0].numpy().reshape(100, -1)
    likeness = np.corrcoef(moved, plain)[:100, 100:]
    assert np.diag(likeness).mean() > likeness.mean() + 0.15


def test_held_out_and_bank__are_not_augmented(data):
    for dataset in (data.held_out, data.bank):
        assert torch.equal(dataset[Draw(0, 3)]["image"], dataset[Draw(8, 3)]["image"])
        assert torch.equal(dataset[Draw(0, 3)]["image"], dataset.images[3])


def test_loaders__held_out_then_bank(data):
    held, bank = data.val_dataloader()
    assert sum(len(batch["index"]) for batch in held) == 360
    assert torch.cat([batch["index"] for batch in bank]).tolist() == list(range(1437))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 3.0])
def test_problems__fraction_out_of_range(fraction):
    (problem,) = DigitsData(held_out=fraction).problems()
    assert problem.startswith("data.held_out")
    assert str(fraction) in problem


def test_problems__none():
    assert DigitsData().problems() == []


def test_file__is_the_set_that_scikit_learn_has():
    digits = load_digits()
    with np.load(FILE, allow_pickle=False) as file:
        assert np.array_equal(file["images"], digits.images)
        assert np.array_equal(file["labels"], digits.target)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=12, max_size=90).map(lambda labels: [*range(5), *range(5), *labels]),
    fraction=st.floats(0.3, 0.7),
    seed=st.integers(0, 2**32 - 1),
)
def test_stratified__draws_as_scikit_learn_does(labels: list[int], fraction: float, seed: int):
    ours = stratified(np.array(labels), fraction, seed)
    theirs = train_test_split(np.arange(len(labels)), test_size=fraction, random_state=seed, stratify=labels)
    for side, expected in zip(ours, theirs, strict=True):
        assert np.array_equal(side, expected)
