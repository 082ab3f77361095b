"""``tinymim data check``: what it finds in a folder, and what it says of a user's mistakes."""

import json
import shutil
from pathlib import Path

import pytest

from tests.data.images import class_folders, noise, write
from tinymim.cli.main import main
from tinymim.data.folder_check import check


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """ImageNet's layout, in order: 10 images to train on, 4 to validate on, all different."""
    class_folders(tmp_path / "set/train", "ab"), class_folders(tmp_path / "set/val", "a", each=2)
    for i in range(2):
        write(tmp_path / f"set/val/b/{i}.jpg", 500 + i)
    for i in range(2):
        write(tmp_path / f"set/val/a/{i}.jpg", 600 + i)
    return tmp_path / "set"


def run(folder: Path, *options: str) -> int:
    return main(["data", "check", str(folder), "--workers", "1", *options])


def test_check__a_folder_in_order(folder, capsys):
    noise(7, 300, 260).convert("L").save(folder / "train/a/grey.png")
    assert run(folder, "--crop", "42", "--json", str(folder.parent / "found.json")) == 0
    said = capsys.readouterr().out
    assert f"{folder}: in order" in said
    assert "11 images in 2 classes, 5 to 6 in each" in said
    found = json.loads((folder.parent / "found.json").read_text())
    assert found["images"] == 15
    assert found["splits"] == {"train/": {"a": 6, "b": 5}, "val/": {"a": 2, "b": 2}}
    assert (found["widths"], found["heights"]) == ([48, 48, 300], [40, 40, 260])
    assert (found["forms"], found["modes"]) == ({"JPEG": 14, "PNG": 1}, {"RGB": 14, "L": 1})
    assert len(found["small"]) == 14
    assert found["broken"] == {}
    assert found["duplicates"] == found["leaks"] == found["contradictions"] == []


def test_check__names_broken_files_and_exits_with_1(folder, capsys):
    data = (folder / "train/a/0.jpg").read_bytes()
    (folder / "train/a/0.jpg").write_bytes(data[: len(data) // 2])
    (folder / "train/b/1.jpg").write_bytes(b"")
    (folder / "val/a/1.jpg").write_text("<html>404 Not Found</html>")
    report = folder.parent / "found.json"
    assert run(folder, "--json", str(report)) == 1
    said = capsys.readouterr().out
    assert f"{folder}: 3 of 14 images cannot be read" in said
    broken = json.loads(report.read_text())["broken"]
    assert broken.keys() == {"train/a/0.jpg", "train/b/1.jpg", "val/a/1.jpg"}
    assert "truncated" in broken["train/a/0.jpg"].lower()
    assert "empty" in broken["train/b/1.jpg"]
    assert broken["val/a/1.jpg"].startswith("cannot identify an image: it is a web page")
    assert all(f"{path}: {error}" in said for path, error in broken.items())


def test_check__duplicates_leaks_and_contradictions(folder, capsys):
    shutil.copy(folder / "train/a/0.jpg", folder / "train/a/again.jpg")
    assert run(folder) == 0, "which wastes time and spoils nothing"
    assert "train/a/0.jpg = train/a/again.jpg" in capsys.readouterr().out
    shutil.copy(folder / "train/a/1.jpg", folder / "train/b/other.jpg")
    shutil.copy(folder / "train/b/2.jpg", folder / "val/b/leak.jpg")
    assert run(folder) == 1
    assert f"{folder}: 1 image both in train/ and in val/" in capsys.readouterr().out
    found = check(str(folder), 1, 32)
    assert len(found.duplicates) == 3
    assert found.leaks == [["train/b/2.jpg", "val/b/leak.jpg"]]
    assert found.contradictions == [["train/a/1.jpg", "train/b/other.jpg"]]


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["1.jpg", "2.png"], {"all": {"(no labels)": 2}}),
        (["a/x/1.jpg", "a/y/2.jpg", "b/3.jpg"], {"all": {"(no labels)": 3}}),
        (["a/1.jpg", "b/2.jpg", "b/3.jpg"], {"all": {"a": 1, "b": 2}}),
        (["train/1.jpg", "val/a/1.jpg"], {"train/": {"(no labels)": 1}, "val/": {"(no labels)": 1}}),
        (["train/a/1.jpg", "train/b/1.jpg", "test/c/1.jpg"], {"train/": {"a": 1, "b": 1}}),
    ],
    ids=["flat", "nested", "classes", "train-without-labels", "train-alone"],
)
def test_check__layouts(tmp_path, files, splits):
    for i, file in enumerate(files):
        write(tmp_path / file, i)
    assert check(str(tmp_path), 1, 224).splits == splits


def test_check__several_processes_find_the_same(folder):
    (folder / "train/b/1.jpg").write_bytes(b"no image")
    assert vars(check(str(folder), 2, 32)) == vars(check(str(folder), 1, 32))


def test_check__a_users_mistakes_are_one_line(tmp_path, capsys):
    write(tmp_path / "images/1.jpg"), (tmp_path / "empty").mkdir()
    for given, said in [
        (["check", str(tmp_path / "none")], "does not exist: give a folder of images"),
        (["check", str(tmp_path / "images/1.jpg")], "is a file, not a folder"),
        (["check", str(tmp_path / "empty")], f"no images in {tmp_path / 'empty'}: looked for .jpg"),
        (["check", str(tmp_path / "images"), "--workers", "0"], "--workers: 0 is not 1 or more"),
        (["check", str(tmp_path / "images"), "--max-pixels", "0"], "--max-pixels: 0 is not 1 or more"),
        (["check", str(tmp_path / "images"), "--crop", "-5"], "--crop: -5 is not 1 or more"),
    ]:
        assert main(["data", *given]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("tinymim data: ")
        assert said in line


def test_json__nowhere_to_write_is_said_before_anything_is_read(tmp_path, capsys):
    write(tmp_path / "a.jpg")
    for wrong, why in ((tmp_path, "is a folder; give a file"), (tmp_path / "none" / "x.json", "lies in no folder")):
        assert main(["data", "check", str(tmp_path), "--json", str(wrong)]) == 1
        assert why in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
