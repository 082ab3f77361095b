from __future__ import annotations

from pathlib import Path

import pytest

from tinymim.errors import TinymimError
from tinymim.training.run_folder import check, clear, goes_on
from tinymim.training.run_record import changed


def claim(folder: Path, resume: bool, overwrite: bool) -> None:
    """What a run does before it begins."""
    check(folder, resume, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    clear(folder, resume)


def test_claim__a_new_folder(tmp_path: Path) -> None:
    claim(tmp_path / "a" / "b", resume=False, overwrite=False)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_claim__a_run_is_kept_unless_a_flag_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(TinymimError, match=r"--ckpt_path last.*--overwrite true.*--run_dir"):
        claim(tmp_path, resume=False, overwrite=False)
    claim(tmp_path, resume=True, overwrite=False)
    assert (tmp_path / "results.json").exists()


def test_goes_on__with_a_run_that_is_to_be_overwritten_is_a_contradiction(tmp_path: Path) -> None:
    for checkpoint in ("last", str(tmp_path / "checkpoints/last.ckpt")):
        with pytest.raises(TinymimError, match=r"--overwrite true and --ckpt_path \S+ contradict each other"):
            goes_on(tmp_path, checkpoint, overwrite=True)
    assert not goes_on(tmp_path, "elsewhere/last.ckpt", overwrite=True)


def test_claim__overwriting_removes_our_files_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/last.ckpt", "config.yaml", "events.out.1", "notes.txt"):
        (tmp_path / name).write_text("x")
    claim(tmp_path, resume=False, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_claim__somebody_elses_folder_is_never_written(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(TinymimError, match="other files"):
            claim(tmp_path, resume=False, overwrite=overwrite)


def test_claim__a_start_that_failed_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("x")
    (tmp_path / "environment.json").write_text("x")
    claim(tmp_path, resume=False, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_claim__resuming_clears_away_what_a_killed_run_left_half_written(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    kept = {".lock", "checkpoints", "last.ckpt", "metrics-1.csv"}
    for name in (".lock", "metrics.csv", ".results.json.x1", "checkpoints/last.ckpt", "checkpoints/.last.ckpt.k3",
                 "hpc_ckpt_1.ckpt", "hpc_ckpt_1.ckpt.sha256"):  # fmt: skip
        (tmp_path / name).write_text("x")
    claim(tmp_path, resume=True, overwrite=False)
    assert {path.name for path in tmp_path.rglob("*")} == kept


def test_changed__says_what_it_means_to_a_run_that_goes_on() -> None:
    before = {"model": {"init_args": {"init": "timm", "compile": False, "drop_path": 0.1}}}
    now = {"model": {"init_args": {"init": "published", "compile": True, "drop_path": 0.2}}}
    init, compiled, drop_path = changed({**before, "run_dir": None}, {**now, "run_dir": "runs/its_name"})
    assert init.endswith('"timm", now "published" (which has no effect on weights that are already trained)')
    assert "compile: false, now true (compiled code draws other random numbers" in compiled
    assert drop_path == "model.init_args.drop_path: 0.1, now 0.2"


def test_claim__leaves_hidden_files_of_a_users_tools(tmp_path: Path) -> None:
    (tmp_path / "checkpoints/.ipynb_checkpoints").mkdir(parents=True)
    for name in (".gitignore", ".nfs0000a1", ".DS_Store", ".ipynb_checkpoints.old", "config.yaml"):
        (tmp_path / name).write_text("x")
    kept = sorted(path.name for path in tmp_path.rglob("*"))
    claim(tmp_path, resume=True, overwrite=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == kept


@pytest.mark.parametrize(
    "name", ["progress.json", "metrics.csv", "config.yaml", "checkpoints/best.ckpt", "checkpoints"]
)
def test_claim__a_folder_in_place_of_a_file_is_named_before_the_run(tmp_path: Path, name: str) -> None:
    if name == "checkpoints":
        (tmp_path / name).write_text("x")
    else:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(TinymimError, match=rf"{name} is a f\w+, where a run has a f\w+; move it away"):
        claim(tmp_path, resume=True, overwrite=False)
