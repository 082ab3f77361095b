"""Sentences follow from the numbers, and change with them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pandas import DataFrame

from tinymim.analysis import analysis_figures, findings
from tinymim.analysis.results import AnalysisResults


def results(**tables: Any) -> AnalysisResults:
    models = [
        {"title": title, "prefix_tokens": 1, "sha256": sha, "taught_by_sha256": taught, "distilled_blocks": blocks}
        for title, sha, taught, blocks in (("a", "1", "", []), ("b", "2", "1", [[2, 1]]), ("c", "3", "9", [[2, 1]]))
    ]
    return AnalysisResults(
        {"models": models, "teacher": "a"}, **{name: DataFrame(rows) for name, rows in tables.items()}
    )


def heads(title: str, *blocks: list[tuple[float, float, float]]) -> list[dict[str, Any]]:
    """Distance as a share of uniform (10 px), entropy and diversity of each head of each block."""
    return [
        {
            "model": title,
            "block": number,
            "head": head,
            "distance_px": 10 * distance,
            "distance_ratio": distance,
            "entropy_nats": entropy,
            "entropy_ratio": entropy / 4,
            "diversity_kl": kl,
            "prefix_mass": 0.1,
        }
        for number, block in enumerate(blocks, start=1)
        for head, (distance, entropy, kl) in enumerate(block, start=1)
    ]


LOCAL = heads("a", [(0.9, 3.0, 2.0), (0.9, 3.0, 4.0)], [(0.6, 1, 1), (0.6, 1, 1)], [(0.4, 1.0, 1.0), (0.8, 3.0, 2.0)])
BROAD = heads("b", [(0.2, 1.0, 0.5), (0.2, 1.0, 0.5)], [(0.6, 1, 0), (0.6, 1, 0)], [(1.0, 4.0, 0.0), (1.0, 4.0, 0.0)])
LONE = heads("c", [(0.6, 1.0, math.nan)], [(0.6, 1.0, math.nan)], [(0.6, 1.0, math.nan)])


def test_heads__the_last_third_is_what_counts() -> None:
    ends = findings.summary(results(heads=LOCAL + BROAD + LONE))
    assert list(ends.index) == ["a", "b", "c"]
    assert list(ends["local"][["a", "b"]]) == [0.5, 0.0]
    assert list(ends["spread"][["a", "b"]]) == [0.25, 0.0]
    assert (ends["greatest_block"]["a"], ends["greatest"]["a"]) == (1, 3.0)
    assert list(ends["kept"][["a", "b"]]) == [0.5, 0.0]
    assert findings.COLUMNS["diversity_kl"]["last / greatest"](ends.loc["c"]) == "-"
    share, moves = findings.distance(ends)
    assert share.endswith("a (50%), b (0%) and c (0%); most in a, least in b and c.")
    assert moves == (
        "From the first third to the last the distance rises in b (+8.0 px), falls in a (-3.0 px) and stays in c "
        "(+0.0 px)."
    )
    assert "widest in a, least in b and c" in findings.entropy(ends)[0]
    assert "a (50%), b (100%) and c (25%); broadest in b, least in c." in findings.entropy(ends)[1]
    assert "differ by a (1.5 nats) and b (0 nats); most in a, least in b." in findings.diversity(ends)[0]
    assert findings.diversity(ends.loc[["c"]]) == ["Blocks of a single head have nothing to differ from."]


def test_heads__one_network_is_compared_with_none() -> None:
    ends = findings.summary(results(heads=LOCAL + BROAD + LONE)).loc[["b"]]
    assert findings.distance(ends)[0].endswith("b (0%); there is no other to compare it with.")


def test_prefix__is_told() -> None:
    text = findings.prefix_mass(results(heads=LOCAL + BROAD + LONE))
    assert text.endswith("get a (10.0%), b (10.0%) and c (10.0%).")


def pairs(a: str, b: str, *values: tuple[int, int, float]) -> list[dict[str, Any]]:
    return [{"model_a": a, "block_a": i, "model_b": b, "block_b": j, "cka": value} for i, j, value in values]


def test_cka__finds_the_least_alike_blocks_whatever_is_undefined() -> None:
    rows = pairs("a", "a", (1, 1, 1.0), (1, 2, 0.95), (1, 3, 0.91), (2, 3, 0.99))
    rows += pairs("b", "b", (1, 2, math.nan), (1, 3, 0.4)) + pairs("a", "b", (1, 1, 0.2), (2, 1, 0.7))
    least, alike, between = findings.likeness(results(cka=rows))
    assert least.endswith("a (0.91, blocks 1 and 3) and b (0.40, blocks 1 and 3).")
    assert alike == "All blocks are nearly alike (0.9 or more) in a."
    assert between.endswith("a and b (0.70): most for a and b.")


def relation(student: str, student_block: int, kl: float) -> dict[str, Any]:
    blocks = {"teacher_block": 2, "student_block": student_block}
    return {"teacher": "a", "student": student, "relation": "qk", **blocks, "kl": kl, "kl_uniform": 2.0}


def test_agreement__speaks_of_the_pair_that_this_teacher_taught() -> None:
    rows = [relation("b", 1, 0.1), relation("b", 2, 1.0), relation("c", 1, 1.5), relation("c", 2, 0.05)]
    (text,) = findings.agreement(results(relations=rows))
    assert "distilled pair of b (teacher's block 2, student's 1)" in text
    assert text.endswith("b (0.1 nats, 5%) and c (1.5 nats, 75%); farthest in c, nearest in b.")
    shares = findings.relative(DataFrame(rows))
    assert list(shares) == [0.05, 0.5, 0.75, 0.025]
    assert findings.agreement(results(relations=rows[2:])) == [], "c was taught by another"


def test_agreement_figure__says_what_its_darkest_colour_holds(tmp_path: Path) -> None:
    for nearest, said in ((1e-6, True), (0.1, False)):
        rows = [relation("b", 1, nearest), relation("b", 2, 1.0)]
        picture = analysis_figures.agreement(results(relations=rows), "qk", tmp_path / "figures/agreement")
        assert ("0.001 or less" in picture.content.decode()) == said
        assert picture.files == ["figures/agreement.png", "figures/agreement.svg"]
        assert "A frame marks the pair" in picture.text


@pytest.mark.parametrize(("names", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_together(names: list[str], text: str) -> None:
    assert findings.together(names) == text
