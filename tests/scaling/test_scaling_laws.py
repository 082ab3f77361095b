"""Power laws: known ones are found again, as SciPy finds them, and too few points are a result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import curve_fit

from tinymim.scaling import power_law, table
from tinymim.scaling.laws import Law, laws
from tinymim.scaling.overfitting import flagged
from tinymim.scaling.table import RunRow

PUBLISHED = table.read(Path(__file__).parent / "simmim_scaling.csv")
TRUE = {"a": 0.3, "b": 0.4, "c": 0.4}


def curve(x, a, b, c):  # type: ignore[no-untyped-def]
    return a * x**-b + c


def test_fit__finds_an_exact_law() -> None:
    x = np.geomspace(1e15, 1e18, 6)
    found = power_law.fit_finely(x, curve(x, 200, 0.2, 0.1))
    assert (found.a[0], found.b[0], found.c[0]) == pytest.approx((200, 0.2, 0.1), rel=1e-3)


@pytest.mark.parametrize("law", [(0.3, 0.4, 0.4), (0.5, 0.05, 0.0), (2.0, 1.5, 0.2)])
def test_fit__as_scipy_finds_it(law: tuple[float, float, float]) -> None:
    x = np.geomspace(1, 100, 8)
    y = curve(x, *law) + 0.002 * np.random.default_rng(3).normal(size=8)
    bounds = ([0, 1e-3, 0], [np.inf, 10, y.min()])
    theirs, _ = curve_fit(
        curve, x, y, p0=[law[0], law[1], min(law[2], y.min() * 0.99)], bounds=bounds, xtol=1e-12, ftol=1e-14
    )
    ours = power_law.fit_finely(x, y)
    error, least = (((guess - y) ** 2).sum() for guess in (ours.at(x)[0], curve(x, *theirs)))
    assert error <= least * (1 + 1e-6)
    assert ours.b[0] == pytest.approx(theirs[1], rel=0.01)


def test_fit__rows_are_fitted_apart() -> None:
    x = np.geomspace(1, 50, 5)
    rows = np.stack([curve(x, 0.3, 0.4, 0.4), curve(x, 1.0, 1.0, 0.1)])
    both = power_law.fit(x, rows)
    for place, row in enumerate(rows):
        alone = power_law.fit(x, row[None])
        assert (both.a[place], both.b[place], both.c[place]) == pytest.approx((alone.a[0], alone.b[0], alone.c[0]))


def test_intervals__hold_the_truth_about_as_often_as_the_page_says() -> None:
    x, held = np.geomspace(1, 100, 8), dict.fromkeys(TRUE, 0)
    rng = np.random.default_rng(1)
    for _ in range(60):
        y = curve(x, **TRUE) + 0.001 * rng.normal(size=x.size)
        drawn = power_law.resample(power_law.fit_finely(x, y), x, y, 200)
        for name, value in TRUE.items():
            low, high = np.quantile(getattr(drawn, name), [0.025, 0.975])
            held[name] += low <= value <= high
    assert all(0.8 <= count / 60 <= 0.99 for count in held.values()), held


def along(found: list[Law], axis: str) -> Law:
    return next(law for law in found if law.axis == axis)


def test_published__five_sizes_near_the_fit_made_elsewhere() -> None:
    law = along(laws(flagged(PUBLISHED)), "parameters")
    assert [(row.model, row.data, row.iterations) for row in law.points["row"]] == [
        (model, "1K", 500_000) for model in "SBLHg"
    ]
    assert law.curve is not None
    assert law.curve.c[0] == pytest.approx(0.414, abs=0.001)
    assert law.curve.b[0] == pytest.approx(0.226, abs=0.005)
    millions = law.curve.a[0] * 1e6 ** -law.curve.b[0]
    assert millions == pytest.approx(0.121, abs=0.001)
    low, high = law.band(law.places)
    assert (low <= high).all()
    assert all(law.interval(name)[1] < law.interval(name)[2] for name in "abc")


def test_published__compute_and_data() -> None:
    found = laws(flagged(PUBLISHED))
    compute, data = along(found, "compute"), along(found, "data")
    assert compute.unit == "weights x iterations"
    assert (np.diff(compute.places) > 0).all()
    assert (np.diff(compute.losses) < 0).all()
    assert list(data.points["data"]) == ["10%", "20%", "50%", "1K", "22K"]
    assert [round(loss, 4) for loss in data.losses] == [0.4820, 0.4675, 0.4511, 0.4395, 0.4416]
    assert any("rises at SimMIM g, 22K, 500,000" in remark for remark in data.remarks)


def test_compute__is_flops_where_all_runs_have_them() -> None:
    rows = [RunRow("MAE", "S", 5, "all", 9, n, 1 / n, flops=7.0 * n, images_seen=2 * n) for n in range(1, 7)]
    law = along(laws(flagged(rows)), "compute")
    assert (law.unit, law.places.tolist()) == ("FLOPs", [7.0 * n for n in range(1, 7)])
    law = along(laws(flagged([replace(rows[0], flops=None), *rows[1:]])), "compute")
    assert (law.unit, law.places.tolist()) == ("weights x images seen", [10.0 * n for n in range(1, 7)])


def test_overfit_runs__are_no_points() -> None:
    rows = [RunRow("MAE", "S", 5, "all", 9, n, 1 / n if n < 6 else 0.9) for n in range(1, 7)]
    law = along(laws(flagged(rows)), "compute")
    assert list(law.points["iterations"]) == [1, 2, 3, 4, 5]


def test_too_few_points__is_a_result() -> None:
    rows = [RunRow("MAE", "S", 5, "all", 9, n, 1 / n) for n in range(1, 5)]
    for law, count in zip(laws(flagged(rows)), (4, 1, 1), strict=True):
        assert law.remarks == [f"too few points to fit: {count}, needs 5 at different places"]
        assert law.curve is law.rmse is law.record()["b"] is None


def test_no_fall__is_no_law() -> None:
    rows = [RunRow("MAE", f"S{n}", n, "all", 9, 5, 0.3 + n / 100) for n in range(1, 7)]
    law = along(laws(flagged(rows)), "parameters")
    assert law.curve is None
    assert law.remarks == ["no law: the loss does not fall along this axis"]


def test_intervals__of_points_without_residuals_hold_the_estimate() -> None:
    x = np.geomspace(1, 100, 8)
    found = power_law.fit_finely(x, curve(x, **TRUE))
    drawn = power_law.resample(found, x, curve(x, **TRUE), 50)
    for name in TRUE:
        assert getattr(drawn, name) == pytest.approx(getattr(found, name)[0], rel=1e-6)
