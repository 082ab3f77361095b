"""Correlations of losses with accuracy: the values computed elsewhere from the published table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinymim.scaling import table
from tinymim.scaling.correlations import correlate, correlations
from tinymim.scaling.overfitting import flagged
from tinymim.scaling.table import RunRow

PUBLISHED = flagged(table.read(Path(__file__).parent / "simmim_scaling.csv"))

EXPECTED = {
    "all": (63, -0.786, -0.897),
    "model S": (12, -0.52, -0.64),
    "model B": (15, -0.80, -0.87),
    "model L": (15, -0.91, -0.98),
    "model H": (12, -0.94, -0.94),
    "model g": (9, -0.77, -0.92),
    "500,000 iterations": (21, -0.878, -0.941),
    "not overfit": (49, -0.901, -0.963),
    "overfit": (14, -0.799, -0.732),
    "models and data that never overfit": (36, -0.956, -0.974),
}


def test_published__as_computed_elsewhere() -> None:
    found = {line["runs"]: line for line in correlations(PUBLISHED)}
    assert list(found) == list(EXPECTED)
    for name, (count, pearson, spearman) in EXPECTED.items():
        line = found[name]
        assert line["count"] == count
        digits = 1e-2 / 2 + 1e-3 if name.startswith("model ") else 5e-4
        assert line["pearson"] == pytest.approx(pearson, abs=digits), name
        assert line["spearman"] == pytest.approx(spearman, abs=digits), name
        assert line["pearson_low"] < line["pearson"] < line["pearson_high"], name
        assert line["spearman_low"] <= line["spearman"] <= line["spearman_high"], name
    assert found["not overfit"]["slope"] == pytest.approx(-0.76, abs=0.005)


def row(place: int, training: float | None = None, accuracy: float | None = None) -> RunRow:
    return RunRow("MAE", "S", 5, "all", 9, place, 0.5, training, accuracy=accuracy)


def test_training_loss__counts_the_runs_that_have_it() -> None:
    rows = [row(1, 0.3, 0.5), row(2, 0.2, 0.6), row(3, 0.1, 0.9), row(4, None, 0.1), row(5, 0.9, None)]
    runs = flagged(rows)
    line = correlate("all", "training", runs)
    assert (line["count"], line["spearman"]) == (3, -1)
    constant = correlate("all", "validation", runs)
    assert [constant[name] for name in ("count", "pearson", "spearman", "slope")] == [4, None, None, None]
    assert {line["loss"] for line in correlations(runs)} == {"validation", "training"}


def test_two_runs__are_too_few() -> None:
    line = correlate("all", "validation", flagged([row(1, accuracy=0.5), row(2, accuracy=0.6)]))
    assert (line["count"], line["pearson"], line["spearman"]) == (2, None, None)
