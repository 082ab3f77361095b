"""Signs of overfitting, saturation and the sentences on them: by hand, and on the 63 published runs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tinymim.scaling import table
from tinymim.scaling.overfitting import band, flagged
from tinymim.scaling.paper_findings import findings, next_length
from tinymim.scaling.saturation import saturation
from tinymim.scaling.table import RunRow

PUBLISHED = table.read(Path(__file__).parent / "simmim_scaling.csv")
SLICES = {"10%": 10, "100%": 100}
VERDICTS = ["overfit", "classic", "big on small", "held-out loss", "training loss", "saturation", "short training"]


def run(data: str, iterations: int, loss: float, training: float | None = None, **more: object) -> RunRow:
    given = {"objective": "MAE", "model": "S", "parameters": 5, "noise": 0.01, "training_loss": training, **more}
    return RunRow(data=data, images=SLICES[data], iterations=iterations, validation_loss=loss, **given)  # type: ignore[arg-type]


def test_published__14_runs_rose_above_a_shorter_one() -> None:
    runs = flagged(PUBLISHED)
    rose = {(run.model, run.data, run.iterations // 1000) for run in runs[runs["is_overfit"]].itertuples()}
    assert rose == {
        *((model, "10%", length) for model in "SBL" for length in (250, 500)),
        *(("S", "20%", 500), ("B", "20%", 500), ("L", "20%", 250), ("L", "20%", 500)),
        *(("H", "20%", 250), ("H", "20%", 500), ("H", "50%", 500), ("g", "50%", 500)),
    }
    assert runs["exceeds"].sum() == 36
    assert runs["training_loss_fell"].isna().all()


def test_rise__is_over_the_best_shorter_run_and_beyond_noise() -> None:
    rows = [run("10%", 4, 0.55), run("10%", 1, 0.6), run("10%", 2, 0.5), run("10%", 3, 0.505)]
    runs = flagged(rows)
    assert list(runs["row"]) == rows
    assert list(runs["is_overfit"]) == [True, False, False, False]
    assert list(runs["loss_increase"]) == pytest.approx([0.05, math.nan, -0.1, 0.005], nan_ok=True)


def test_classic_sign__the_training_loss_falls_meanwhile() -> None:
    rows = [run("10%", 1, 0.5, 0.4), run("10%", 2, 0.6, 0.3), run("100%", 1, 0.4, 0.3), run("100%", 2, 0.6, 0.5)]
    assert list(flagged(rows)["training_loss_fell"]) == [None, True, None, False]
    assert flagged(rows)["gap"][1] == pytest.approx(0.3)


def test_excess__over_more_data_at_equal_steps() -> None:
    rows = [run("10%", 1, 0.5), run("100%", 1, 0.48), run("10%", 2, 0.485), run("100%", 2, 0.48)]
    assert list(flagged(rows)["exceeds"]) == [True, False, False, False]
    assert not flagged(rows)["is_overfit"].any()


def test_runs_that_differ_otherwise__are_not_compared() -> None:
    others = [{"seed": 1}, {"model": "B"}, {"objective": "SimMIM"}, {"status": "failed"}]
    for other in others:
        runs = flagged([run("10%", 1, 0.3, **other), run("10%", 2, 0.5)])
        assert not runs[["is_overfit", "exceeds"]].to_numpy().any()


def test_saturation__published_22k_lowers_no_loss() -> None:
    found = saturation(PUBLISHED)
    assert len(found) == 15
    assert set(found["model"][found["falls"].astype(bool)]) == {"S"}
    (large,) = found[(found["model"] == "L") & (found["iterations"] == 500_000)].itertuples()
    assert (large.second_largest, large.largest, large.flat_from) == ("1K", "22K", "1K")
    assert large.fall == pytest.approx(0.4507 - 0.4536)
    assert large.fall_per_doubling == pytest.approx(-0.0029 / 3.4703, rel=1e-3)  # 14.2 M is 2^3.47 x 1,281,167


def test_saturation__is_measured_against_noise() -> None:
    (line,) = saturation([run("10%", 1, 0.505), run("100%", 1, 0.5)]).itertuples()
    assert (line.falls, line.flat_from) == (False, "10%")
    (line,) = saturation([run("10%", 1, 0.52), run("100%", 1, 0.5)]).itertuples()
    assert (line.falls, line.flat_from) == (True, "")
    assert not len(saturation([run("10%", 1, 0.5)]))


def test_findings__of_the_published_runs() -> None:
    found = findings(flagged(PUBLISHED))
    assert dict(zip(VERDICTS, (one.verdict for one in found), strict=True)) == {
        **dict.fromkeys(VERDICTS, "agrees"),
        **dict.fromkeys(("classic", "training loss"), "cannot tell"),
    }
    assert "14 of the 42 runs that have a shorter one (10%: 6 of 6, 20%: 6 of 8, 50%: 2 of 10, 1K: 0" in found[0].here
    assert "20%: 4 of 6" in found[2].here  # B over S, L over S are not worse; H is under all three, L under B
    assert "g +0.0324" in found[5].here


def test_next_length__of_the_published_runs() -> None:
    assert next_length(flagged(PUBLISHED)) == (
        "From one length to the next of the same model and data, the loss fell 28 times, and accuracy rose in 28 of "
        "them; it rose 14 times, and accuracy still rose in 7 of them."
    )


def test_findings__that_disagree_say_so() -> None:
    """A world turned round: only much data overfits, and what loss there is goes up with accuracy."""
    rows = [
        run(data, length, loss, 1 - loss, parameters=size, model=model, accuracy=0.5 + loss / 2)
        for size, model, less in ((5, "S", 0.0), (50, "B", 0.05))
        for data, length, loss in (
            ("10%", 1, 0.9 - less), ("10%", 2, 0.5 - less), ("100%", 1, 0.7 - less), ("100%", 2, 0.8 + less)
        )
    ]  # fmt: skip
    found = dict(zip(VERDICTS, findings(flagged(rows)), strict=True))
    assert found["overfit"].verdict == "disagrees"
    assert found["classic"].verdict == "agrees"
    assert found["held-out loss"].verdict == "disagrees"
    assert found["saturation"].verdict == "disagrees"
    assert "overfit: too few runs, 2" in found["held-out loss"].here


def test_findings__of_one_run_tell_nothing() -> None:
    assert {one.verdict for one in findings(flagged([run("10%", 1, 0.5)]))} == {"cannot tell"}


def test_band__is_of_the_difference_where_the_masks_are_shared() -> None:
    alike = {"objective": "MAE", "model": "S", "parameters": 1, "data": "10%", "images": 10, "noise": 0.1}
    first = RunRow(**alike, iterations=100, validation_loss=0.5, mask_losses=(0.4, 0.5, 0.6))
    second = RunRow(**alike, iterations=200, validation_loss=0.502, mask_losses=(0.402, 0.502, 0.602))
    alone = RunRow(**alike, iterations=200, validation_loss=0.502)
    assert band(first, second) == pytest.approx(0, abs=1e-12)
    assert band(first, alone) == 0.1
    assert list(flagged([first, second])["is_overfit"]) == [False, True]
    assert list(flagged([first, alone])["is_overfit"]) == [False, False]
