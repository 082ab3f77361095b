"""Run folders of others: a report reads them or refuses them in a line, and takes neither long nor much."""

from __future__ import annotations

import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.safety import places
from tinymim.cli.main import main
from tinymim.data.open_image import open_image
from tinymim.errors import TinymimError
from tinymim.training import inspection, lock

BACKBONE = {"architecture": {"arch": "vit_tiny_patch16_224", "options": {"depth": 3}, "heads": [3]}, "output_block": 3}
LOG = "step,epoch,train/loss,val/loss\n1,0,2,\n2,0,1,2\n"


def folder(place: Path, log: str = LOG, **changes: Any) -> Path:
    """A run folder without a checkpoint, some fields of whose figures are others."""
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(yaml.safe_dump(places.RECIPE))
    (place / "metrics.csv").write_text(log)
    for name in ("results.json", "progress.json"):
        (place / name).write_text(json.dumps({**places.RESULTS, "backbone": BACKBONE, **changes}))
    return place


def report(place: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    begun = time.process_time()
    code = main(["report", str(place), "--count", "0"])
    assert time.process_time() - begun < places.SECONDS
    return code, capsys.readouterr().err


ARCHITECTURE = BACKBONE["architecture"]


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": None},
        {"seconds": None, "epochs": None, "state": None, "skipped_steps": [], "metrics": {}},
        {"seconds": 0, "metrics": {"val/top1": float("nan"), "val/loss": float("inf"), "val/top5": 1e308}},
        *({"backbone": {**BACKBONE, "architecture": {**ARCHITECTURE, "heads": heads}}} for heads in (3, None)),  # type: ignore[dict-item]
        {"backbone": {**BACKBONE, "architecture": {}}},
        {"backbone": None, "weights": None},
    ],
)
def test_figures__that_are_absent_are_left_out(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(tmp_path / "other", **changes)
    assert report(folder(tmp_path / "run", **changes), capsys) == (0, "")


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1e300, "x"])
def test_figures__that_are_wrong_are_named_and_a_neighbours_left_out(
    seconds: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = folder(tmp_path / "wrong", seconds=seconds)
    code, err = report(wrong, capsys)
    assert code == 1
    assert "results.json: seconds: expected" in err
    assert len(err.splitlines()) == 1
    code, err = report(folder(tmp_path / "run"), capsys)
    assert code == 0
    assert "left out of the comparison: run: " in err


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("step,train/loss\n1e308,1\n-1e308,2\n", "step 1e308 is no number from 0 to"),
        ("step,train/loss\n-1,1\n", "step -1 is no number from 0 to"),
        ("step,train/loss\nnan,1\n", "step nan is no number from 0 to"),
        (f"step,{','.join(f'train/l{n}' for n in range(20_000))}\n", "20,001 columns, and 500 are taken"),
        ("step,train/loss\n1,2,3\n", "a line has more cells than there are columns"),
        ("step,train/loss\n1e15,1e308\n2e15,-1e308\n1,nan\n2,-inf\n", ""),
        (f"step,{','.join(f'train/l{n}' for n in range(400))}\n{','.join('1' * 401)}\n", ""),
    ],
)
def test_logs__of_other_sizes(log: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(tmp_path / "other", log)
    code, err = report(folder(tmp_path / "run", log), capsys)
    assert code == bool(words)
    assert words in err
    assert len(err.splitlines()) == bool(words)


def test_logs__of_gigabytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.truncate(folder(tmp_path / "run") / "metrics.csv", 1 << 30)
    code, err = report(tmp_path / "run", capsys)
    assert code == 1
    assert "metrics.csv has 1,073,741,824 bytes, and 67,108,864 are taken" in err


@pytest.mark.parametrize("size", [9000, 10**9])
def test_images__of_a_side_that_no_picture_has(size: Any) -> None:
    recipe = copy.deepcopy(places.RECIPE)
    recipe["data"]["init_args"]["image_size"] = size
    with pytest.raises(TinymimError, match=r"image_size .* is more than 2,048; if it is meant so, say --trust"):
        inspection.data(recipe, False, "run x")


@pytest.mark.parametrize("owner", ["[" * 100_000, '{"pid":' * 100_000, "[1]", '{"pid":' + "9" * 5000 + "}", None])
def test_lock__of_a_folder_that_is_only_looked_at(owner: str | None, tmp_path: Path) -> None:
    place = tmp_path / lock.NAME
    os.mkfifo(place) if owner is None else place.write_text(owner)
    assert lock.owner(tmp_path) is None


def test_image__that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(OSError, match="a named pipe"):
        open_image(str(tmp_path / "x.png"))
