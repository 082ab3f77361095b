"""Correlations: as SciPy has them, for one pair of lists or many, and 0 where there is nothing to correlate."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from tinymim.scaling.correlations import pearson, spearman, spearman_text


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=8))
def test_correlations__as_scipy_has_them(pairs: list[tuple[int, int]]) -> None:
    first, second = [a / 10 for a, _ in pairs], [b / 10 for _, b in pairs]
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert pearson(first, second) == spearman(first, second) == 0.0
    else:
        assert pearson(first, second) == pytest.approx(pearsonr(first, second).statistic)
        expected = spearmanr(first, second).statistic
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "scipy.stats", None)  # a study's tables are written without the extra
            assert spearman(first, second) == pytest.approx(expected)


def test_correlations__of_many_lists_at_once() -> None:
    first, second = np.random.default_rng(0).integers(0, 4, (2, 50, 5))
    second[7] = 3
    for function in (pearson, spearman):
        together = function(first, second)
        assert together.shape == (50,)
        assert together[7] == 0
        np.testing.assert_allclose(together, [function(a, b) for a, b in zip(first, second, strict=True)])


def test_correlations__of_equal_values_are_named_as_none() -> None:
    assert spearman_text([1, 2, 3], [0.3, 0.1, 0.2]) == "-0.50"
    assert spearman_text([1, 2, 3], [0.1, 0.1, 0.1]) == "none, as all of one side are equal"
