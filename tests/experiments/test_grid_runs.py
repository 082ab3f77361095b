"""Studies that are run, by stages of no time: the rows of finished and failed cells, the command, and its page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.experiments.conftest import in_place_of_forks
from tinymim.cli import scaling_command
from tinymim.errors import TinymimError
from tinymim.experiments import grid, grid_runs
from tinymim.experiments.state import begin
from tinymim.scaling import scaling_page, table

STUDY: dict[str, Any] = {
    "objectives": {"MAE": {"recipe": "mae_digits"}},
    "sizes": {"S": {"width": 48, "depth": 4, "heads": 3}},
    "fractions": [0.1, 1.0],
    "lengths": [100],
    "seeds": [2],
    "finetune": {"recipe": "finetune_digits"},
    "set": {"data.batch_size": 64},
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A study of two cells with their fine-tuning, in a folder of its own."""
    in_place_of_forks(monkeypatch, "stand_in.py")
    path = tmp_path / "few.yaml"
    path.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return str(path)


def leave(place: Path, metrics: dict[str, float], **content: Any) -> None:
    place.mkdir(parents=True)
    (place / "results.json").write_text(json.dumps({"metrics": metrics, **content}))


def test_rows__of_run_folders(study: str, tmp_path: Path) -> None:
    loaded = grid.load(study)
    state = begin(tmp_path, loaded.plan, "")
    assert grid_runs.rows(loaded, state) == []
    counts = {"parameters": 123, "steps": 100, "images": 143, "images_seen": 6400, "flops": 10**9}
    each = {"val/loss_mask0": 0.4, "val/loss_mask1": 0.5, "val/loss_mask2": 0.6, "val/train_loss_mask0": 9.0}
    leave(
        tmp_path / "seed2/MAE-S-10-100", {"val/loss": 0.5, "val/train_loss": 0.25, "train/loss": 8.0, **each}, **counts
    )
    leave(tmp_path / "seed2/MAE-S-10-100-ft", {"val/top1": 0.75, "val/loss": 7.0})
    for key in ("seed2/MAE-S-10-100", "seed2/MAE-S-10-100-ft"):
        state.entries[key].state = "done"
    failed = state.entries["seed2/MAE-S-100-100"]
    failed.state, failed.error = "failed", "ended with exit code 1: so it goes"
    done, other = grid_runs.rows(loaded, state)
    assert done == table.RunRow(
        "MAE", "S", 123, "10%", 143, 100, 0.5, 0.25, done.noise, 0.75, 10**9, 6400, 2, mask_losses=(0.4, 0.5, 0.6)
    )
    assert done.noise == pytest.approx(0.1)
    assert math.isnan(other.validation_loss)
    assert (other.status, other.error, other.data) == ("failed", "ended with exit code 1: so it goes", "100%")
    weights = 48 * 48 + 48 + 48 + 2 * 48 + 65 * 48 + 4 * (12 * 48 * 48 + 13 * 48)  # patches, CLS, norm, places, blocks
    assert (other.parameters, other.images) == (weights, 1437)
    table.write(tmp_path / "runs.csv", [done, other])
    again = table.read(tmp_path / "runs.csv")
    assert (again[0], again[1].error) == (done, other.error)
    assert grid_runs.describe(done) == "held-out loss 0.5000 ± 0.1000, on training images 0.2500, fine-tuned 75.0%"
    assert set(grid_runs.chosen(loaded, state, [done, other])) == set(), "one run is no pair"


def test_command__a_failed_cell_is_told_and_the_rest_goes_on(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, pages = tmp_path / "run", []
    monkeypatch.setattr(scaling_page, "write", lambda rows, out, *_: pages.append((rows, out)))
    monkeypatch.setenv("FAIL", "MAE-S-10-100")
    with pytest.raises(TinymimError, match=r"1 of 4 stages failed, and 1 that build on them wait"):
        scaling_command.main([study, "--run_dir", str(place), "--jobs", "2"])
    said = capsys.readouterr()
    assert "seed2/MAE-S-10-100: failed: ended with exit code 1: tinymim fit: the loss is not finite" in said.err
    found = {row.data: row for row in table.read(place / "runs.csv")}
    assert found["100%"].validation_loss == pytest.approx(1 / 200)
    assert found["100%"].accuracy == 0.5
    assert found["10%"].status == "failed"
    assert "the loss is not finite at step 7" in (found["10%"].error or "")
    assert pages[-1] == (table.read(place / "runs.csv"), place / "report"), "what is done is shown"
    monkeypatch.delenv("FAIL")
    before = (place / "seed2/MAE-S-100-100/results.json").stat().st_mtime_ns
    assert scaling_command.main([study, "--run_dir", str(place)]) == 0
    assert (place / "seed2/MAE-S-100-100/results.json").stat().st_mtime_ns == before, "what is done stays"
    assert {row.status for row in table.read(place / "runs.csv")} == {"done"}
    assert scaling_command.main([study, "--run_dir", str(place), "--report_only", "--out", str(tmp_path / "out")]) == 0
    assert pages[-1] == (table.read(place / "runs.csv"), tmp_path / "out")
    with pytest.raises(TinymimError, match="has changed since it was run"):
        scaling_command.main([study, "--run_dir", str(place), "--set", "model.optim.base_lr=0.5"])


def test_command__analyses_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [table.RunRow("MAE", "S", 1000, "10%", 10, steps, 1 / steps) for steps in (10, 20)]
    table.write(tmp_path / "some.csv", rows)
    assert scaling_command.main(["--table", str(tmp_path / "some.csv"), "--out", str(tmp_path / "out")]) == 0
    assert "0.0500" in capsys.readouterr().out
    assert (tmp_path / "out/index.html").is_file()


def test_command__of_a_table_nothing_is_run() -> None:
    with pytest.raises(
        TinymimError, match="--table only analyses a finished table: --quick has no effect; leave it out"
    ):
        scaling_command.main(["--table", "some.csv", "--quick"])


@pytest.mark.parametrize("arguments", [[], ["digits", "--table", "some.csv"]])
def test_command__a_study_or_a_table(arguments: list[str]) -> None:
    with pytest.raises(TinymimError, match="name a study of recipes/scaling, or give --table"):
        scaling_command.main(arguments)
    with pytest.raises(TinymimError, match=r"unknown scaling study 'digit'; did you mean digits"):
        scaling_command.main(["digit"])
