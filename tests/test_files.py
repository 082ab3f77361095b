"""Places that take no file: told before the work, and after it in a line that says what is there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.experiments.compared import write_recipe
from tinymim import files
from tinymim.cli import main, search_command
from tinymim.errors import TinymimError
from tinymim.training import predictions, test_report

NO_FOLDER = os.strerror(errno.ENOTDIR)


@pytest.mark.parametrize(
    "words",
    [
        "bench junk.ckpt --out junk.ckpt/x",
        "bench junk.ckpt --out folder",
        "export junk.ckpt junk.ckpt/x.safetensors",
        "export junk.ckpt --to timm --out junk.ckpt/x",
        "predict junk.ckpt --images folder --out junk.ckpt/x.npz",
        "predict junk.ckpt --images folder --out folder.npz --overwrite",
        "analyze junk.ckpt --data folder --out junk.ckpt/x",
        "scaling digits --out junk.ckpt/x",
        "data check folder --json folder",
        "report run --out junk.ckpt/x",
        "report run --out folder",
    ],
)
def test_nowhere_to_write__is_told_before_the_work(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights are no weights: whoever begins with the work stumbles over them."""
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "folder.npz", "run"):
        Path(folder).mkdir()
    Path("junk.ckpt").write_text("no weights")
    Path("run/config.yaml").write_text("name: run\n")
    before = sorted(map(str, tmp_path.rglob("*")))
    given = words.split()
    assert main.main(given) == 1
    (line,) = capsys.readouterr().err.splitlines()
    if "junk.ckpt/x" in words:
        field, place = ("file" if "safetensors" in words else "out"), next(word for word in given if "/x" in word)
        assert line == f"tinymim {given[0]}: {field}: {place} cannot be written ({NO_FOLDER})"
    else:
        assert line.endswith("is a folder; give a file")
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_check__lets_new_folders_and_devices_pass_and_leaves_nothing(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "new", tmp_path / "new/deep/x.json", Path(os.devnull)):
        files.check_writable("out", place)
        files.check_writable("out", place, inside=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("there", "left"), [(True, "what was there is unchanged"), (False, "nothing is left of it")])
def test_writing__says_what_is_there(there: bool, left: str, tmp_path: Path) -> None:
    place = tmp_path / "x.json"
    if there:
        place.write_text("before")

    def fails(temporary: Path) -> None:
        raise OSError(errno.EFBIG, "File too large", str(temporary))

    with pytest.raises(TinymimError) as caught, files.writing("out", place):
        files.write_atomically(place, fails)
    assert str(caught.value) == f"out: {place} cannot be written (File too large); {left}"
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"] * there
    for ours in (RuntimeError("shapes"), TinymimError("No space left on device")):
        with pytest.raises(type(ours), match=f"^{ours}$"), files.writing("out", place):
            raise ours


def test_runs__have_a_place_for_figures_and_predictions_before_they_are_made(tmp_path: Path) -> None:
    (junk := tmp_path / "junk").write_text("no folder")
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    assert test_report.folder(checkpoint, junk / "x", named=False) == tmp_path / "run"
    assert test_report.folder(tmp_path / "last.ckpt", tmp_path, named=False) == tmp_path
    makers: list[Callable[[], object]] = [
        lambda: test_report.folder(checkpoint, junk / "x", named=True),
        lambda: predictions.PredictionArrays(junk / "x"),
        lambda: predictions.MaskFiles(junk / "x"),
    ]
    for make in makers:
        with pytest.raises(TinymimError, match=rf"run_dir: .*junk/x.* cannot be written \({NO_FOLDER}\)"):
            make()
    assert list(tmp_path.iterdir()) == [junk]


def test_search__knows_its_file_of_settings_before_the_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(tmp_path, tmp_path / "own.yaml")
    (tmp_path / "own.yaml").mkdir()
    monkeypatch.setattr(search_command, "opened", pytest.fail)
    with pytest.raises(TinymimError, match=r"settings: .*own.yaml is a folder; give a file"):
        search_command.main([str(recipe)])
