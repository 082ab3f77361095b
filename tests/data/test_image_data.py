"""A stratified part of the training images."""

import numpy as np
import pytest

from tests.data.images import class_folders, names, prepared
from tinymim.data import DigitsData
from tinymim.data.image_data import few

LABELS = np.array([0] * 100 + [1] * 40 + [2] * 3)


def test_few__of_each_class_its_share_and_one_at_least():
    chosen = few(LABELS, len(LABELS), 0.1, seed=0)
    assert np.bincount(LABELS[chosen]).tolist() == [10, 4, 1]
    assert sorted(set(chosen)) == chosen.tolist()


def test_few__is_a_function_of_the_seed_and_grows_with_the_fraction():
    small, large = (set(few(LABELS, len(LABELS), share, seed=3)) for share in (0.1, 0.5))
    assert small < large
    assert small == set(few(LABELS, len(LABELS), 0.1, seed=3)) != set(few(LABELS, len(LABELS), 0.1, seed=4))
    assert few(LABELS, len(LABELS), 1, seed=3).tolist() == list(range(len(LABELS)))


def test_few__without_labels():
    assert len(few(None, 50, 0.1, seed=0)) == 5


def test_folder__trains_on_a_part_and_holds_out_the_same(tmp_path):
    class_folders(tmp_path / "train", "abc", each=6), class_folders(tmp_path / "val", "abc", each=2)
    data = prepared(tmp_path, fraction=0.34)
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert set(names(data.bank)) == set(names(data.train))
    assert len(data.held_out) == 6
    assert names(prepared(tmp_path, fraction=0.34, seed=5).train) == names(data.train), "a function of split_seed alone"


def test_digits__a_hundredth():
    data = DigitsData(fraction=0.01)
    data.setup("fit")
    assert np.bincount(data.train.labels).tolist() == np.bincount(data.bank.labels).tolist() == [1] * 10
    assert len(data.held_out) == 360


@pytest.mark.parametrize("fraction", [0, 1.5])
def test_problems__of_a_fraction(fraction):
    assert "data.fraction" in " ".join(DigitsData(fraction=fraction).problems())
