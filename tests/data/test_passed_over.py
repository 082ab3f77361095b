"""What lies in a folder and is not used: named once in the data's line and in `tinymim data check`."""

import os
import shutil

import pytest
from PIL import Image

from tests.data.images import class_folders, noise, prepared, write
from tinymim.cli.main import main
from tinymim.data.folder_check import check
from tinymim.data.image_files import image_folder, root_problems
from tinymim.data.integrity import whole
from tinymim.data.split_folders import splits


@pytest.fixture
def root(tmp_path):
    return class_folders(tmp_path / "set", "ab").parent / "set"


OTHERS = {
    "bmp": (lambda root: write(root / "a/x.BMP"), "1 image of other kinds in {root} is not read (1 .bmp)", True),
    "class of tif": (lambda root: write(root / "c/x.tif"), "no images in c/", True),
    "empty class": (lambda root: (root / "c").mkdir(), "no images in c/", True),
    "pipe": (lambda root: os.mkfifo(root / "a/z.jpg"), "1 pipe or device in {root} is no image, such as a/z", True),
    "device": (lambda root: (root / "a/z.jpg").symlink_to("/dev/zero"), "1 pipe or device in {root}", True),
    "text": (lambda root: (root / "labels.csv").touch(), "1 other file in {root} is not read (1 .csv)", False),
    "no ending": (lambda root: (root / "LICENSE").touch(), "(1 without ending)", False),
    "an image's bytes": (lambda root: shutil.move(write(root / "a/x.png"), root / "a/x"), "and a/x begins as an", True),
    "an image's backup": (lambda root: shutil.move(write(root / "a/x.png"), root / "a/x.png~"), "(1 .png~)", False),
    "a split": (lambda root: write(root / "test/1.jpg"), "test/ is taken for a class, for there is no train/", True),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_passed_over__is_named_once(root, capsys, kind):
    make, words, mistake = OTHERS[kind]
    make(root)
    words = words.format(root=root)
    data = prepared(root)
    assert capsys.readouterr().err.count(words) == 1
    assert len(data.train) + len(data.held_out) == 10 + (kind == "a split")
    assert main(["data", "check", str(root), "--workers", "1"]) == mistake
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("train", "val"),
    [("train", "validation"), ("training", "valid"), ("Train", "Val"), ("TRAINING", "dev"), ("train", None)],
)
def test_splits__under_other_names(tmp_path, train, val):
    class_folders(tmp_path / train, "ab")
    if val:
        class_folders(tmp_path / val, "ab", each=2)
    class_folders(tmp_path / "test", "xyz")
    assert splits(tmp_path) == (str(tmp_path / train), val and str(tmp_path / val))
    folder = image_folder(tmp_path)
    assert folder.classes == ["a", "b"]
    assert folder.remarks == ["test/ is not read: a training reads train/ and val/ alone"]
    assert folder.faults == []
    assert len(prepared(tmp_path).held_out) == (4 if val else 1)


def test_splits__the_usual_name_first(tmp_path):
    for name in ("val", "validation", "train", "Train"):
        class_folders(tmp_path / name, "ab", each=1)
    assert splits(tmp_path) == (str(tmp_path / "train"), str(tmp_path / "val"))
    assert image_folder(tmp_path).faults == ["Train, validation/ beside train/ is not read"]


def test_splits__are_no_classes(tmp_path):
    write(tmp_path / "validation/1.jpg"), write(tmp_path / "test/2.jpg")
    folder = image_folder(tmp_path)
    assert folder.classes is None
    assert folder.why_unlabelled() == "test, validation are splits, not classes"
    assert folder.faults == ["test, validation/ is taken for no split, for there is no train/ beside it"]


def test_splits__a_class_called_train(tmp_path):
    for name in ("bus", "car", "train"):
        write(tmp_path / name / "1.jpg")
    assert image_folder(tmp_path).faults == ["bus, car/ beside train/ is not read"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.tar", b"", "it holds 1 .tar. WebDataset's shards are read by tinymim.data.ShardsData"),
        ("x.parquet", b"", "read by tinymim.data.HFData"),
        ("images.zip", b"", "Archives are to be unpacked"),
    ],
)
def test_problems__a_folder_of_something_else(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    (problem,) = root_problems(str(tmp_path))
    assert words in problem


def test_problems__an_archive_for_a_folder(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"PK\x03\x04")
    (problem,) = root_problems(str(tmp_path / "images.zip"))
    assert problem.endswith("images.zip is a zip archive (unpack it), not a folder: give a folder of images")


def test_check__masks_without_a_labelled_pixel(tmp_path):
    for part in ("training", "validation"):
        write(tmp_path / f"images/{part}/1.jpg", len(part))
        (tmp_path / f"annotations/{part}").mkdir(parents=True)
        Image.new("L", (48, 40), 255).save(tmp_path / f"annotations/{part}/1.png")
    findings = check(str(tmp_path), 1, 32)
    assert findings.unlabelled == ["annotations/training/1.png", "annotations/validation/1.png"]
    words = "1 of 1 mask in annotations/{}/ without a pixel but 0 and 255, which mean no class"
    assert findings.mistakes == [words.format("training"), words.format("validation")]
    for part in ("training", "validation"):
        write(tmp_path / f"images/{part}/2.jpg", 10 * len(part))
        Image.new("L", (48, 40), 1).save(tmp_path / f"annotations/{part}/2.png")
    findings = check(str(tmp_path), 1, 32)
    assert (findings.faults(), len(findings.unlabelled), findings.images) == ("", 2, 8)


PAIRS = {
    "no mask": (lambda root: write(root / "images/training/9.jpg"), "1 image in images/training/ without a PNG"),
    "no image": (
        lambda root: write(root / "annotations/training/9.png"),
        "mask in annotations/training/ without an image",
    ),
    "another ending": (lambda root: write(root / "annotations/training/1.jpg"), None),
    "colours": (lambda root: write(root / "annotations/validation/1.png"), "1 mask without a single number a pixel"),
    "size": (
        lambda root: Image.new("L", (4, 4), 1).save(root / "annotations/validation/1.png"),
        "1 mask of another size than the image, such as annotations/validation/1.png",
    ),
    "twice": (lambda root: write(root / "images/training/1.png"), "have one mask, and the last alone is read"),
    "part": (
        lambda root: shutil.move(root / "images/validation", root / "images/val"),
        "no images in images/validation/",
    ),
    "case": (
        lambda root: shutil.move(root / "images", root / "Images"),
        "annotations/ beside Images/ is read",
    ),
    "name": (lambda root: shutil.move(root / "annotations", root / "masks"), "masks/ beside images/ is read as images"),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_check__pairs_of_images_and_masks(tmp_path, kind):
    for part in ("training", "validation"):
        write(tmp_path / f"images/{part}/1.jpg", len(part))
        (tmp_path / f"annotations/{part}").mkdir(parents=True)
        Image.new("L", (48, 40), 1).save(tmp_path / f"annotations/{part}/1.png")
    assert check(str(tmp_path), 1, 32).faults() == ""
    make, words = PAIRS[kind]
    make(tmp_path)
    assert (words or "") in check(str(tmp_path), 1, 32).faults()


HIDDEN = {
    "years": (["train2017", "val2017", "test2017"], "test2017/, train2017/, val2017/ are all trained on"),
    "sets": (["train_set/a", "val_set/a"], "train_set/, val_set/ are all trained on: name them train/ and val/"),
    "below": (["set/train/a", "set/val/a"], "set/train/, set/val/ are all trained on: give the folder {root}/set"),
    "in classes": (
        ["a/train", "a/val", "b/train", "b/val"],
        "a/val/ are all trained on: train/ and val/ come",
    ),
    "classes": (["bullet train", "test tube", "evaluation form", "fish"], None),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_splits__that_are_all_trained_on(tmp_path, capsys, kind):
    folders, words = HIDDEN[kind]
    for i, folder in enumerate(folders):
        write(tmp_path / folder / "1.jpg", i)
    assert main(["data", "check", str(tmp_path), "--workers", "1"]) == (words is not None)
    assert (words or "in order").format(root=tmp_path) in capsys.readouterr().out


def test_check__what_keeps_a_classifier_from_training(tmp_path, capsys):
    class_folders(tmp_path / "train", "ab"), write(tmp_path / "train/cover.jpg", 77)
    for folder in ("__MACOSX", "train/@eaDir"):  # systems leave them
        write(tmp_path / folder / "x.jpg")
    assert main(["data", "check", str(tmp_path), "--workers", "1"]) == 1
    assert f"{tmp_path}: no image has a label: cover.jpg is not in a class folder" in capsys.readouterr().out
    (tmp_path / "train/a/june").mkdir()
    (tmp_path / "train/cover.jpg").rename(tmp_path / "train/a/june/1.jpg")
    assert main(["data", "check", str(tmp_path), "--workers", "1"]) == 1
    assert "no image has a label: a/june/1.jpg is deeper than a class folder" in capsys.readouterr().out
    (tmp_path / "train/a/june/1.jpg").unlink(), (tmp_path / "train/a/june").rmdir()
    assert check(str(tmp_path), 1, 32).faults() == ""
    write(tmp_path / "val/c/1.jpg", 99)
    assert "val has 1 class that train/ lacks, such as c" in check(str(tmp_path), 1, 32).faults()
    assert main(["data", "check", ""]) == 1
    assert "tinymim data: no folder is named, or a variable that holds its name is empty" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P", "1", "LA", "I;16"])
def test_whole__agrees_with_pillow_and_finds_each_damage(tmp_path, ending, mode):
    path = tmp_path / f"a.{ending}"
    try:
        noise(1, 61, 45).convert(mode).save(path, **({"progressive": True} if ending == "jpg" else {}))
    except (OSError, ValueError):
        return  # no such form
    data = path.read_bytes()
    with Image.open(path) as image:
        assert whole(data, 10**6) in (None, (image.format, image.mode, image.size))
    assert whole(data, 60 * 45) is None
    for cut in range(2, len(data) - 20, 97):
        assert whole(data[:cut], 10**6) is None
