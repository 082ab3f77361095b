import math

import pytest
import torch

from tinymim.evaluation.knn import KNNEvaluator, knn_top1


def at(*degrees):
    """Unit vectors in the plane."""
    angles = torch.tensor(degrees, dtype=torch.float32) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def labels(*values):
    return torch.tensor(values)


def test_knn__one_neighbour():
    bank, classes = at(0, 90, 180), labels(0, 1, 2)
    assert knn_top1(bank, classes, at(10, 80, 170), labels(0, 1, 2), k=1) == 1
    assert knn_top1(bank, classes, at(10, 80, 170, 100), labels(0, 1, 1, 0), k=1) == 0.5


def test_knn__is_by_cosine_and_not_by_distance_or_length():
    bank = torch.cat([0.01 * at(0), 100 * at(30)])
    assert knn_top1(bank, labels(0, 1), 5 * at(10), labels(0), k=1) == 1


def test_knn__similar_neighbours_weigh_more():
    """One at 5 degrees against two at 30: exp((cos 5 - cos 30) / 0.07) = 6.4, more than 2."""
    bank, classes = at(5, 30, -30), labels(0, 1, 1)
    assert knn_top1(bank, classes, at(0), labels(0), k=3) == 1
    assert knn_top1(bank, classes, at(0), labels(1), k=3, temperature=10.0) == 1


def test_knn__votes_add_up():
    """Two at 10 degrees against one at 5: exp((cos 5 - cos 10) / 0.07) = 1.18, less than 2."""
    assert knn_top1(at(5, 10, -10), labels(0, 1, 1), at(0), labels(1), k=3) == 1


def test_knn__only_k_of_them_vote():
    bank, classes = at(5, 10, -10), labels(0, 1, 1)
    assert knn_top1(bank, classes, at(0), labels(0), k=1) == 1
    assert knn_top1(bank, classes, at(0), labels(0), k=2) == 1


def test_knn__a_bank_smaller_than_k():
    assert knn_top1(at(0, 90), labels(0, 1), at(10, 80), labels(0, 1), k=10) == 1


def test_knn__a_class_that_the_bank_lacks_is_never_right():
    assert knn_top1(at(0, 90), labels(0, 1), at(10, 80), labels(0, 5), k=1) == 0.5


def test_knn__more_queries_than_one_piece():
    degrees = torch.arange(2500) % 360
    truth = (degrees // 180).long()
    assert knn_top1(at(90, 270), labels(0, 1), at(*degrees.tolist()), truth, k=1) == pytest.approx(1, abs=0.01)
    assert knn_top1(at(90, 270), labels(1, 0), at(*degrees.tolist()), truth, k=1) == pytest.approx(0, abs=0.01)


def test_knn__takes_half_precision():
    assert knn_top1(at(0, 90).bfloat16(), labels(0, 1), at(10, 80).bfloat16(), labels(0, 1), k=1) == 1


class Plane:
    """A backbone whose features are the images."""

    @staticmethod
    def features(images):
        return images


def test_evaluator__loader_0_asks_and_loader_1_is_the_bank():
    evaluator = KNNEvaluator()
    evaluator.add(Plane, {"image": at(10, 80), "label": labels(0, 1)}, 0)
    evaluator.add(Plane, {"image": at(95), "label": labels(0)}, 0)
    for degrees, label in ((0, 0), (90, 1)):
        evaluator.add(Plane, {"image": at(degrees), "label": labels(label)}, 1)
    assert evaluator.top1() == pytest.approx(2 / 3)
    assert evaluator.top1() is None  # it starts afresh


def test_evaluator__nothing_without_labels_or_bank():
    evaluator = KNNEvaluator()
    evaluator.add(Plane, {"image": at(10)}, 0)
    evaluator.add(Plane, {"image": at(10)}, 1)
    assert evaluator.top1() is None
    evaluator.add(Plane, {"image": at(10), "label": labels(0)}, 0)
    assert evaluator.top1() is None
