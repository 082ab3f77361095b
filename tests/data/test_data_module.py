"""What all data modules share: loading processes, shares of processes, and the images of a run that goes on."""

import os
from types import SimpleNamespace
from typing import Any

import pytest

from tests.data.images import class_folders, prepared, write
from tinymim.data import DigitsData, ImageFolderData, data_module
from tinymim.errors import TinymimError


def trained_by(data: Any, processes: int = 1, fn: str = "fit") -> Any:
    """A data module under a trainer of so many processes on one machine."""
    data.trainer = SimpleNamespace(
        num_devices=processes, world_size=processes, global_rank=0, state=SimpleNamespace(fn=fn)
    )
    return data


@pytest.mark.parametrize(("cores", "processes", "workers"), [(1, 1, 1), (6, 1, 6), (64, 1, 8), (6, 2, 3), (2, 8, 1)])
def test_workers__auto_follows_cores_and_processes(monkeypatch, cores, processes, workers):
    monkeypatch.setattr(data_module, "cores", lambda: cores)
    monkeypatch.setattr(data_module.ImageData, "needs_workers", True)
    assert trained_by(ImageFolderData("images"), processes).workers() == workers
    assert trained_by(DigitsData(), processes).workers() == 0, "they lie in memory"
    assert DigitsData(num_workers=3).workers() == 3


def test_workers__of_evaluation_have_half_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(data_module, "cores", lambda: 6)
    monkeypatch.setattr(data_module.ImageData, "needs_workers", True)
    data = prepared(class_folders(tmp_path), num_workers="auto")
    assert [loader.num_workers for loader in (data.train_dataloader(), *data.val_dataloader())] == [6, 3, 3]


def test_workers__more_than_a_machine_can_use_are_refused(monkeypatch):
    monkeypatch.setattr(data_module, "cores", lambda: 2)
    (problem,) = DigitsData(num_workers=500).problems()
    assert problem == "data.num_workers: 500 is not 0 or more, up to 32 (16 for each core here), or auto"
    assert DigitsData(num_workers=32).problems() == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"held_out": 0.05}, "1 held-out image (see data.held_out) for 2 processes"),
        ({"held_out": 0.5, "bank_size": 1}, "1 image in the bank of neighbours (see data.bank_size) for 2 processes"),
        ({"held_out": 0.9}, "1 image to train on for 2 processes"),
    ],
)
def test_shares__an_empty_one_is_refused_before_anything_waits(tmp_path, options, words):
    data = prepared(class_folders(tmp_path), **options)
    data._prepared = False
    with pytest.raises(TinymimError) as caught:
        trained_by(data, 2).setup("fit")
    assert words in str(caught.value)


def test_resume__the_same_images_say_nothing(tmp_path, capsys):
    class_folders(tmp_path / "x", "ab")
    state = prepared(tmp_path / "x").state_dict()
    (tmp_path / "x").rename(tmp_path / "y")
    capsys.readouterr()
    trained_by(prepared(tmp_path / "y")).load_state_dict(state)
    assert "have changed" not in capsys.readouterr().err


@pytest.mark.parametrize("change", ["added", "renamed", "lost"])
def test_resume__other_images_are_said(tmp_path, capsys, change):
    class_folders(tmp_path, "ab")
    state = prepared(tmp_path).state_dict()
    if change == "added":
        write(tmp_path / "a/new.jpg", 99)
    elif change == "renamed":
        (tmp_path / "a/0.jpg").rename(tmp_path / "a/zero.jpg")
    else:
        (tmp_path / "a/0.jpg").unlink()
    data = prepared(tmp_path)
    words = {"added": "9 before, 10 now", "renamed": "others of the same number", "lost": "9 before, 8 now"}[change]
    trained_by(data).load_state_dict(state)
    assert f"the images to train on have changed ({words})" in capsys.readouterr().err
    trained_by(data, fn="test").load_state_dict(state)
    assert "have changed" not in capsys.readouterr().err


@pytest.mark.parametrize("change", ["renamed", "gone"])
def test_resume__other_classes_are_an_error(tmp_path, change):
    class_folders(tmp_path, "abc")
    state = prepared(tmp_path).state_dict()
    (tmp_path / "b").rename(tmp_path / ("z" if change == "renamed" else ".b"))
    with pytest.raises(TinymimError, match="they differ in b") as caught:
        trained_by(prepared(tmp_path)).load_state_dict(state)
    assert f"the run has 3 classes, and the data now {3 - (change == 'gone')}" in str(caught.value)


def written(path, delay=0.0, grow=0):
    """A file written again, so many seconds later, so many bytes longer."""
    path.write_bytes(path.read_bytes() + bytes(grow))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + int(1e9 * delay)))


REPLACED = {
    "another size": (1, {"grow": 1}, "have changed (files of the same names have other sizes)"),
    "the same size": (1, {"delay": 9}, "may have changed (1 of 10 files were written since, in sizes as before)"),
    "copied": (10, {"delay": 9}, ""),
}


@pytest.mark.parametrize("case", REPLACED)
def test_resume__files_replaced_under_their_names_are_said(tmp_path, capsys, case):
    count, how, words = REPLACED[case]
    class_folders(tmp_path / "train", "ab")
    class_folders(tmp_path / "val", "ab")
    state = prepared(tmp_path).state_dict()
    for part, what in (("train", "images to train on"), ("val", "held-out images")):
        files = sorted((tmp_path / part).rglob("*.jpg"))
        for file in files[:count]:
            written(file, **how)
        capsys.readouterr()
        trained_by(data := prepared(tmp_path)).load_state_dict(state)
        said = capsys.readouterr().err
        assert (f"data: the {what} {words}" in said) if words else ("changed" not in said)
        state = data.state_dict()


def test_resume__a_checkpoint_of_before_knows_the_training_images_alone(tmp_path, capsys):
    class_folders(tmp_path, "ab")
    new = prepared(tmp_path).state_dict()
    state = {**{key: new["train"][key] for key in ("images", "contents")}, "classes": new["classes"]}
    trained_by(prepared(tmp_path)).load_state_dict(state)
    assert "changed" not in capsys.readouterr().err
    trained_by(prepared(tmp_path)).load_state_dict({**state, "images": 5})
    assert "(5 before, 9 now)" in capsys.readouterr().err


@pytest.mark.parametrize("state", [[1], {"classes": 5}])
def test_resume__a_note_of_another_type_is_damage(tmp_path, state):
    with pytest.raises(TinymimError, match="what it notes of the data is of another type: it is damaged"):
        trained_by(prepared(class_folders(tmp_path, "ab"))).load_state_dict(state)
