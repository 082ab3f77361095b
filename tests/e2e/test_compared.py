"""``tinymim search`` and ``tinymim distill`` on toy fits: what is kept, what is read, and going on with more seeds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.experiments.compared import RATES, write_recipe
from tinymim.cli import distill_command, search_command
from tinymim.errors import TinymimError


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the toy was searched, and compared from one seed."""
    folder = tmp_path_factory.mktemp("compared")
    recipe = write_recipe(folder, folder / "own.yaml", teacher="knn_digits")
    search_command.main([str(recipe), "--run_dir", str(folder / "search")])
    distill_command.main([str(recipe), "--run_dir", str(folder / "run")])
    shutil.copytree(folder / "run", folder / "first", ignore=shutil.ignore_patterns("checkpoints"))
    return folder


def test_search__chooses_on_training_images_and_is_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fits = [json.loads(path.read_text()) for path in (place / "search").rglob("results.json")]
    assert len(fits) == 1 + 2 * len(RATES)
    pretrained = json.loads((place / "search/cells/student/pretrain/results.json").read_text())
    assert pretrained["images"] == 1078, "three quarters of 1437"
    written = yaml.safe_load((place / "own.yaml").read_text())
    scores = json.loads((place / "search" / "search.json").read_text())["rows"]
    for row, known in (("scratch", "scratch"), ("student", "toy")):
        best, other = scores[row]["few"]
        assert (best["few labels"], -best["val/loss"]) >= (other["few labels"], -other["val/loss"])
        assert written["rows"][known]["few"] == best["set"]
    assert "75% of the training images" in written["how"]
    search_command.main([str(place / "toy.yaml"), "--run_dir", str(place / "search")])
    assert "0 of 5 fits to run" in capsys.readouterr().err
    assert yaml.safe_load((place / "own.yaml").read_text()) == written


def test_distill__the_table_has_each_rows_settings(place: Path) -> None:
    table = json.loads((place / "first" / "table.json").read_text())
    assert table["rows"].keys() == {"scratch", "student", "teacher"}
    written = yaml.safe_load((place / "own.yaml").read_text())["rows"]
    for row, known in (("scratch", "scratch"), ("student", "toy")):
        config = yaml.safe_load((place / "first" / row / "few" / "config.yaml").read_text())
        rate = written[known]["few"]["model.optim.base_lr"]
        assert config["model"]["init_args"]["optim"]["base_lr"] == rate
        assert any(f"few base_lr {rate:g}" in remark for remark in table["settings"])
    text = (place / "first" / "table.md").read_text()
    assert "| from scratch |" in text
    assert "one seed, 0" in text
    assert "is no fair comparison" in text


def test_distill__more_seeds_keep_what_is_done(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [str(place / "toy.yaml"), "--run_dir", str(place / "run"), "--seeds", "2"]
    before = (place / "run/student/few/results.json").stat().st_mtime_ns
    distill_command.main([*options, "--ckpt_path", "last"])
    out, err = capsys.readouterr()
    assert "5 fits, " in err
    assert "taken. `tinymim search " in " ".join(out.split()), "a command is named as it is"
    assert not set(out) & set("\\*|"), "what is printed is no Markdown"
    assert (place / "run/student/few/results.json").stat().st_mtime_ns == before
    table = json.loads((place / "run" / "table.json").read_text())
    assert table["seeds"] == [0, 1]
    assert table["rows"]["student"].keys() == {"0", "1"}
    assert "mean ± standard deviation" in (place / "run" / "table.md").read_text()
    page = (place / "run" / "index.html").read_text()
    assert page.count("<svg ") - page.count('class="figure narrow"') == 3, "all rows, losses of probe and few"
    assert "curves/compared_few.csv" in page


def test_distill__settings_that_changed_are_not_mixed_in(place: Path) -> None:
    path = place / "own.yaml"
    before = path.read_text()
    path.write_text(before.replace("base_lr: 0.0", "base_lr: 0.00"))
    try:
        with pytest.raises(TinymimError, match=r"(?s)has changed since it was run.*few.*base_lr"):
            distill_command.main([str(place / "toy.yaml"), "--run_dir", str(place / "run"), "--ckpt_path", "last"])
    finally:
        path.write_text(before)
