import os

import numpy as np
import pytest
import torch

from tests.data.images import SIDE, class_folders, names, prepared, write
from tinymim.data.folder import ImageFolderData
from tinymim.data.image_files import image_files
from tinymim.data.open_image import read_rgb
from tinymim.data.sampler import Draw
from tinymim.data.transforms import PlainView
from tinymim.errors import TinymimError

# Layouts


def test_layout__train_and_val(tmp_path):
    class_folders(tmp_path / "train", "ba"), class_folders(tmp_path / "val", "b", each=3)
    class_folders(tmp_path / "test", "xyz")
    data = prepared(tmp_path)
    assert (data.classes, data.num_classes) == (["a", "b"], 2)
    assert names(data.train) == names(data.bank) == [f"{c}/{i}.jpg" for c in "ab" for i in range(5)]
    assert data.train.labels.tolist() == [0] * 5 + [1] * 5
    assert names(data.held_out) == ["b/0.jpg", "b/1.jpg", "b/2.jpg"]
    assert data.held_out.labels.tolist() == [1, 1, 1]
    sample = data.held_out[Draw(0, 2)]
    assert (sample["index"], sample["label"]) == (2, 1)
    assert torch.equal(sample["image"], PlainView(SIDE)(read_rgb(str(tmp_path / "val/b/2.jpg")))["image"])


def test_crop_pct__of_what_is_evaluated(tmp_path):
    class_folders(tmp_path / "train", "ab")
    data = prepared(tmp_path, crop_pct=1.0)
    assert data.held_out.view.shorter == data.bank.view.shorter == SIDE
    assert any("data.crop_pct: 2 is not" in line for line in ImageFolderData(str(tmp_path), crop_pct=2).problems())


def test_layout__train_without_val_is_split_evenly(tmp_path):
    data = prepared(class_folders(tmp_path / "train", "abc", each=10).parent, held_out=0.2)
    assert not set(names(data.train)) & set(names(data.held_out))
    assert (len(data.train), len(data.held_out)) == (24, 6)
    assert np.bincount(data.held_out.labels).tolist() == [2, 2, 2]
    assert [data.classes[label] for label in data.train.labels] == [name[0] for name in names(data.train)]


def test_layout__class_folders_in_the_root(tmp_path):
    data = prepared(class_folders(tmp_path, "xyz"), held_out=0.2)
    assert data.classes == ["x", "y", "z"]
    assert (len(data.train), len(data.held_out), len(data.bank)) == (12, 3, 12)


def test_layout__flat(tmp_path):
    for i in range(6):
        write(tmp_path / f"{i}.png", i)
    data = prepared(tmp_path)
    assert data.num_classes is data.classes is data.bank is None
    assert (len(data.train), len(data.held_out)) == (5, 1)
    assert data.train[Draw(0, 1)].keys() == {"image", "index"}
    assert len(data.val_dataloader()) == 1


@pytest.mark.parametrize(
    "files",
    [
        ["a/x/1.jpg", "a/y/2.jpg", "b/3.jpg"],
        ["a/1.jpg", "b/2.jpg", "stray.jpg"],
        ["only/1.jpg", "only/2.jpg"],
        ["val/a/1.jpg", "val/b/2.jpg"],
    ],
    ids=["nested", "stray", "one-class", "val-without-train"],
)
def test_layout__without_labels(tmp_path, files):
    for i, file in enumerate(files):
        write(tmp_path / file, i)
    data = prepared(tmp_path)
    assert data.num_classes is data.bank is None
    assert sorted(names(data.train) + names(data.held_out)) == sorted(files)
    assert "label" not in data.train[Draw(0, 0)]


def test_layout__val_of_an_unlabelled_train(tmp_path):
    write(tmp_path / "train/1.jpg"), class_folders(tmp_path / "val")
    data = prepared(tmp_path)
    assert (len(data.train), len(data.held_out)) == (1, 10)
    assert "label" not in data.held_out[Draw(0, 0)]


def test_layout__val_with_a_class_that_train_lacks(tmp_path):
    class_folders(tmp_path / "train", "ab"), class_folders(tmp_path / "val", "abq")
    with pytest.raises(TinymimError, match=r"val has 1 class that train/ lacks, such as q"):
        prepared(tmp_path)


def test_layout__val_not_sorted_into_classes(tmp_path):
    class_folders(tmp_path / "train", "ab"), write(tmp_path / "val/ILSVRC_val_1.JPEG")
    with pytest.raises(TinymimError, match=r"outside class folders, such as ILSVRC_val_1\.JPEG"):
        prepared(tmp_path)


def test_layout__one_image(tmp_path):
    write(tmp_path / "1.jpg")
    with pytest.raises(TinymimError, match=r"^data\.root: .* has one image"):
        prepared(tmp_path)


def test_listing__hidden_and_other_files_ignored(tmp_path):
    for file in ["a.JPG", "b.Jpeg", "c.png", "d/e.WEBP", ".f.jpg", ".g/h.jpg"]:
        write(tmp_path / file)
    (tmp_path / "readme.txt").write_text("no image")
    assert sorted(image_files(str(tmp_path))) == ["a.JPG", "b.Jpeg", "c.png", "d/e.WEBP"]


def test_listing__sorted_whatever_the_disk_says(tmp_path):
    for i in [3, 1, 2, 0]:
        write(tmp_path / f"train/{i}.jpg")
    write(tmp_path / "val/0.jpg")
    assert names(prepared(tmp_path).train) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


def test_listing__follows_links_but_not_in_circles(tmp_path):
    write(tmp_path / "elsewhere/1.jpg"), write(tmp_path / "root/a/2.jpg"), write(tmp_path / "root/b/3.jpg")
    (tmp_path / "root/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/a/up").symlink_to(tmp_path / "root")
    (tmp_path / "root/a/b").symlink_to(tmp_path / "root/b")
    (tmp_path / "root/b/a").symlink_to(tmp_path / "root/a")
    found = list(image_files(str(tmp_path / "root")))
    assert {"linked/1.jpg", "a/2.jpg", "b/3.jpg"} <= set(found)
    assert len(found) < 10


def test_split__follows_split_seed_and_not_seed(tmp_path):
    class_folders(tmp_path, "ab", each=20)
    held = names(prepared(tmp_path, held_out=0.2).held_out)
    assert names(prepared(tmp_path, held_out=0.2, seed=9).held_out) == held
    assert names(prepared(tmp_path, held_out=0.2, split_seed=9).held_out) != held


def test_bank__is_small_even_and_plain(tmp_path):
    data = prepared(class_folders(tmp_path, "abc", each=10), bank_size=6, held_out=0.1)
    assert np.bincount(data.bank.labels).tolist() == [2, 2, 2]
    assert set(names(data.bank)) < set(names(data.train))
    assert torch.equal(data.bank[Draw(0, 1)]["image"], data.bank[Draw(1, 1)]["image"])


# Problems


def test_problems__root_not_set():
    (problem,) = ImageFolderData().problems()
    assert problem.startswith("data.root is not set: give --data.root FOLDER")


def test_problems__folder_missing(tmp_path):
    (problem,) = ImageFolderData(str(tmp_path / "none")).problems()
    assert problem.startswith(f"data.root: {tmp_path / 'none'} does not exist")


def test_problems__not_a_folder(tmp_path):
    (problem,) = ImageFolderData(str(write(tmp_path / "a.jpg"))).problems()
    assert "is a file, not a folder" in problem


@pytest.mark.parametrize("empty", [".", "train", "val"])
def test_problems__no_images(tmp_path, empty):
    if empty != ".":
        write(tmp_path / "train/a.jpg"), write(tmp_path / "val/a.jpg")
        (tmp_path / empty / "a.jpg").unlink()
    (tmp_path / empty / "readme.txt").touch()
    (problem,) = ImageFolderData(str(tmp_path)).problems()
    assert problem.startswith(f"data.root: no images in {tmp_path / empty}")
    assert ".jpg, .jpeg, .png, .webp" in problem


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("held_out", 0.0),
        ("held_out", 1.0),
        ("held_out", -1),
        ("image_size", 0),
        ("batch_size", 0),
        ("num_workers", -1),
        ("seed", -1),
        ("scale", (0.0, 1.0)),
        ("scale", (0.9, 0.5)),
        ("color_jitter", -0.1),
        ("rand_augment", "strong"),
        ("random_erasing", 1.5),
        ("bank_size", 0),
    ],
)
def test_problems__value_out_of_range(tmp_path, field, value):
    write(tmp_path / "a.jpg")
    data = ImageFolderData(str(tmp_path), **{field: value})
    (problem,) = data.problems()
    assert problem.startswith(f"data.{field}: ")
    assert " is not " in problem
    with pytest.raises(TinymimError, match=rf"data\.{field}"):
        data.setup("fit")


def test_problems__stop_at_the_first_image(tmp_path, monkeypatch):
    for i in range(20):
        write(tmp_path / f"{i}/a.jpg")
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (listed.append(path), scandir(path))[1])
    assert ImageFolderData(str(tmp_path)).problems() == []
    assert len(listed) == 3  # the root for splits, the root, and the first class
