"""The paper's findings, put into numbers."""

from __future__ import annotations

import pytest
from pandas import DataFrame

from tinymim.analysis import verdicts
from tinymim.analysis.results import AnalysisResults
from tinymim.errors import TinymimError


def heads(title: str, distance: list[float], entropy: list[list[float]], kl: list[float]) -> list[dict]:
    """Two heads a block: distances as shares of uniform attention's, entropies of either, one diversity."""
    return [
        {
            "model": title, "block": block, "head": head + 1, "distance_ratio": distance[block - 1],
            "distance_px": 10 * distance[block - 1], "entropy_nats": 4 * entropy[block - 1][head],
            "entropy_ratio": entropy[block - 1][head] / 4,
            "diversity_kl": kl[block - 1],
        }
        for block in (1, 2, 3)
        for head in (0, 1)
    ]  # fmt: skip


def cka(title: str, least: float) -> list[dict]:
    return [
        {"model_a": title, "model_b": title, "block_a": a, "block_b": b, "cka": 1.0 if a == b else least}
        for a in (1, 2)
        for b in (1, 2)
    ]


def results(masked: list[dict], supervised: list[dict], likeness: tuple[float, float] = (0.95, 0.6)) -> AnalysisResults:
    about = {"models": [{"title": "m"}, {"title": "s"}]}
    heads_, cka_ = [*masked, *supervised], [*cka("m", likeness[0]), *cka("s", likeness[1])]
    return AnalysisResults(about, DataFrame(heads_), DataFrame(cka_))


AS_PUBLISHED = (
    heads("m", [0.5, 0.5, 0.4], [[1, 3]] * 3, [1, 1, 1]),
    heads("s", [0.4, 0.7, 1.0], [[1, 3], [2, 3], [3, 3]], [1, 0.5, 0.1]),
)


def test_answers__agree_where_all_is_as_published() -> None:
    assert [one.verdict for one in verdicts.answers(results(*AS_PUBLISHED), "m", "s")] == ["agrees"] * 5


def test_answers__disagree_where_the_two_are_exchanged() -> None:
    found = verdicts.answers(results(*AS_PUBLISHED, likeness=(0.5, 0.95)), "s", "m")
    assert [one.verdict for one in found] == ["disagrees"] * 4 + ["agrees"]


def test_answers__one_half_of_a_finding_counts_as_that() -> None:
    flat = heads("s", [0.4, 0.4, 0.3], [[1, 3], [2, 3], [3, 3]], [1, 0.5, 0.1])
    found = verdicts.answers(results(AS_PUBLISHED[0], flat, (0.7, 0.6)), "m", "s")
    assert found[0].verdict == found[4].verdict == "agrees in 1 of 2"
    assert "m -0.10, s -0.10" in found[0].here


def test_answers__names_a_title_that_is_not_there() -> None:
    with pytest.raises(TinymimError, match="no network 'x'; there are m, s"):
        verdicts.answers(results(*AS_PUBLISHED), "m", "x")
