import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymim.analysis.cka import CKA, gram
from tinymim.errors import TinymimError


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def products(features):
    return features @ features.T


def compared(*batches):
    """CKA of ``(a's features, b's features)`` batches, each a list of ``(B, D)``, one a block."""
    cka = CKA(["a", "b"])
    for a, b in batches:
        cka.add({"a": [products(x) for x in a], "b": [products(x) for x in b]})
    return cka


def hsic(a, b):
    """Song et al. (2012), eq. 5: the U-statistic over all ordered quadruples of different images."""
    K, L = products(a).tolist(), products(b).tolist()
    quadruples = list(permutations(range(len(a)), 4))
    return sum(K[i][j] * (L[i][j] + L[q][r] - 2 * L[i][q]) for i, j, q, r in quadruples) / len(quadruples)


def hsic_by_traces(a, b):
    """The same in three terms, eq. 4."""
    n, one = len(a), torch.ones(len(a), 1, dtype=torch.float64)
    K, L = (products(x) - torch.diag(products(x).diagonal()) for x in (a, b))
    both = (one.T @ K @ one) * (one.T @ L @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one.T @ K @ L @ one
    return ((torch.trace(K @ L) + both) / (n * (n - 3))).item()


def biased(a, b):
    """CKA as first published, with the centring matrix."""
    H = torch.eye(len(a), dtype=torch.float64) - 1 / len(a)
    K, L = (H @ products(x) @ H for x in (a, b))
    return ((K * L).sum() / (K.norm() * L.norm())).item()


@pytest.mark.parametrize("which", ["mean", "cls", "all"])
def test_cka__does_not_see_rotation_and_scale(which):
    tokens = drawn(8, 1 + 9, 12)
    rotation = torch.linalg.qr(drawn(12, 12, seed=1)).Q
    moved = 3 * tokens @ rotation + drawn(12, seed=2)  # nor a constant added to every image
    cka = CKA(["x"])
    cka.add({"x": [gram(x, 1, which) for x in (tokens, moved, drawn(8, 10, 12, seed=3))]})
    torch.testing.assert_close(cka.matrix("x", "x")[:2, :2], torch.ones(2, 2, dtype=torch.float64))
    assert cka.matrix("x", "x")[0, 2] < 0.9


def test_cka__of_independent_noise_is_about_0_unlike_the_biased_one():
    batches = [([drawn(32, 256, seed=2 * i)], [drawn(32, 300, seed=2 * i + 1)]) for i in range(8)]
    assert abs(compared(*batches).matrix("a", "b").item()) < 0.05
    assert biased(batches[0][0][0], batches[0][1][0]) > 0.8


def test_cka__of_one_batch_is_the_formula_of_the_whole():
    a, b = drawn(7, 5), drawn(7, 9, seed=1) + 10
    b[:, :5] += a
    expected = hsic(a, b) / math.sqrt(hsic(a, a) * hsic(b, b))
    cka = compared(([a], [b]))
    assert cka.matrix("a", "b").item() == pytest.approx(expected, rel=1e-9)
    assert hsic_by_traces(a, b) == pytest.approx(hsic(a, b), rel=1e-9)
    assert cka.matrix("a", "a").item() == pytest.approx(1)
    assert (cka.batches, cka.images) == (1, 7)


def test_cka__averages_each_hsic_over_batches_and_then_divides():
    batches = [(drawn(8, 6, seed=i), drawn(8, 4, seed=10 + i)) for i in range(3)]
    batches = [(a, torch.cat([b, i * a], dim=1)) for i, (a, b) in enumerate(batches, start=1)]
    across, left, right = (
        sum(hsic_by_traces(*pair) for pair in pairs) / 3
        for pairs in (batches, [(a, a) for a, _ in batches], [(b, b) for _, b in batches])
    )
    result = compared(*(([a], [b]) for a, b in batches)).matrix("a", "b").item()
    assert result == pytest.approx(across / math.sqrt(left * right), rel=1e-9)
    ratios = [hsic_by_traces(a, b) / math.sqrt(hsic_by_traces(a, a) * hsic_by_traces(b, b)) for a, b in batches]
    assert result != pytest.approx(sum(ratios) / 3, rel=1e-2)


def test_cka__a_batch_counts_by_its_images():
    long, short = ((drawn(n, 6, seed=n), drawn(n, 6, seed=n) + drawn(n, 6, seed=n + 1)) for n in (12, 4))
    across, left, right = (
        12 * hsic_by_traces(long[i], long[j]) + 4 * hsic_by_traces(short[i], short[j])
        for i, j in ((0, 1), (0, 0), (1, 1))
    )
    result = compared(([long[0]], [long[1]]), ([short[0]], [short[1]])).matrix("a", "b").item()
    assert result == pytest.approx(across / math.sqrt(left * right), rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(4, 9), min_size=1, max_size=4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_cka__order_of_batches_is_irrelevant_and_nothing_leaves_its_bounds(sizes, depth, other_depth, random):
    batches = [
        (
            [drawn(size, 3 + block, seed=100 * i + block) for block in range(depth)],
            [drawn(size, 7, seed=100 * i + 50 + block) for block in range(other_depth)],
        )
        for i, size in enumerate(sizes)
    ]
    cka = compared(*batches)
    result = cka.matrix("a", "b")
    assert result.shape == (depth, other_depth)
    assert (result.abs() <= 1 + 1e-12).all()
    torch.testing.assert_close(cka.matrix("a", "a").diagonal(), torch.ones(depth, dtype=torch.float64))
    torch.testing.assert_close(result, cka.matrix("b", "a").T)
    random.shuffle(batches)
    torch.testing.assert_close(compared(*batches).matrix("a", "b"), result)


def test_cka__keeps_its_digits_beside_what_all_images_share():
    a, b = drawn(8, 6), drawn(8, 6, seed=1)
    shifted = compared(([a + 1e4], [b - 1e4])).matrix("a", "b").item()
    assert shifted == pytest.approx(compared(([a], [b])).matrix("a", "b").item(), rel=1e-5)


@pytest.mark.parametrize(
    "blind",
    [
        torch.full((6, 3), 0.1),
        torch.full((6, 3), 1e4) * (1 + 1e-7 * drawn(6, 3)),  # float32's rounding
        torch.zeros(6, 3),
        torch.eye(6),  # every image as unlike each other one
        torch.full((6, 3), torch.nan),
    ],
)
def test_cka__of_blocks_that_tell_no_images_apart_is_undefined(blind):
    a, b = drawn(6, 5), drawn(6, 5, seed=1)
    cka = compared(([a, blind.double(), b], [b]))
    assert cka.undefined("a") == [2]
    assert cka.undefined("b") == []
    assert cka.matrix("a", "b").isnan().tolist() == [[False], [True], [False]]
    alone = compared(([a, b], [b]))
    torch.testing.assert_close(cka.matrix("a", "b")[[0, 2]], alone.matrix("a", "b"))
    if not blind.isnan().any():  # one such batch of several does no harm
        cka.add({"a": [products(x) for x in (a, b, b)], "b": [products(b)]})
        assert cka.undefined("a") == []


def test_gram__by_hand():
    tokens = torch.tensor([[[1.0, 2], [3, 0], [1, 4]], [[5, 0], [1, 1], [1, 1]]])  # CLS and two patches
    assert gram(tokens, 1, "mean").tolist() == [[8, 4], [4, 2]]  # (2, 2) and (1, 1)
    assert gram(tokens, 1, "cls").tolist() == [[5, 5], [5, 25]]
    assert gram(tokens, 1, "all").tolist() == [[26, 8], [8, 4]]
    assert gram(tokens, 0, "mean").dtype == torch.float64


def test_cka__few_images_are_refused_and_leave_no_trace():
    cka = CKA(["x"])
    with pytest.raises(TinymimError, match="no batch of 4 or more images"):
        cka.matrix("x", "x")
    with pytest.raises(TinymimError, match="a batch of 3 images; the unbiased estimator needs 4"):
        cka.add({"x": [products(drawn(3, 5))]})
    assert (cka.batches, cka.images) == (0, 0)
