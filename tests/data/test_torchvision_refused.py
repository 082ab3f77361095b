"""Sets of torchvision that cannot be used: one line each, before anything is read where that can be."""

import gzip

import numpy as np
import pytest

from tests.data.idx import idx, write_set
from tests.data.test_torchvision_data import _no_system_places, problem  # noqa: F401
from tinymim.data import TorchvisionData
from tinymim.data import torchvision_sets as sets

BROKEN = {
    "cut off": ("train-images-idx3-ubyte", lambda raw: raw[:-100], "is damaged: 31360 bytes are announced, 31260 are"),
    "too long": ("t10k-labels-idx1-ubyte", lambda raw: raw + b"x", "is damaged: 20 bytes are announced, more are"),
    "other values": ("train-images-idx3-ubyte", lambda raw: b"\0\0\x0d\3" + raw[4:], "is no IDX file of images"),
    "empty": ("train-labels-idx1-ubyte", lambda raw: b"", "is no IDX file of labels: its header is empty"),
    "huge": ("train-images-idx3-ubyte", lambda raw: raw[:4] + b"\xff" * 12 + raw[16:], "is damaged"),
    "fewer labels": ("train-labels-idx1-ubyte", lambda raw: idx(np.zeros(39, int)), "has 40 images, and"),
    "label": ("train-labels-idx1-ubyte", lambda raw: idx(np.arange(40)), "has a label of 39; FashionMNIST has 10"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_idx__damaged_files_are_named(tmp_path, kind):
    name, change, words = BROKEN[kind]
    write_set(tmp_path)
    (tmp_path / name).write_bytes(change((tmp_path / name).read_bytes()))
    line = problem("FashionMNIST", tmp_path)
    assert words in line
    assert str(tmp_path / name) in line


def test_idx__of_gzip_damaged_or_missing(tmp_path):
    write_set(tmp_path, zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    for content in (path.read_bytes()[:-500], b"no gzip at all", gzip.compress(b"")):
        path.write_bytes(content)
        assert str(path) in problem("FashionMNIST", tmp_path)
    path.unlink()
    assert f"{tmp_path} has no train-images-idx3-ubyte, .gz or not" in problem("FashionMNIST", tmp_path)


REFUSED = {
    "unset": (None, {}, "data.dataset is not set: give --data.dataset NAME"),
    "unknown": ("CIFAR-10s", {}, "no image classification set 'CIFAR-10s'; did you mean CIFAR10 or CIFAR100"),
    "case": ("fashionmnist", {}, "did you mean FashionMNIST"),
    "strange": ("Zzqx", {}, "no image classification set 'Zzqx', such as CIFAR10"),
    "function": ("wrap_dataset_for_transforms_v2", {}, "no image classification set"),
    "detection": ("VOCDetection", {}, "VOCDetection is a detection set; detectors train on ShapesData"),
    "segmentation": ("VOCSegmentation", {}, "VOCSegmentation is a segmentation set; SegmentationFolderData reads"),
    "flow": ("Sintel", {}, "Sintel is an optical flow set; TorchvisionData reads image classification sets"),
    "stereo": ("CREStereo", {}, "CREStereo is a stereo matching set"),
    "folder": ("ImageFolder", {}, "folders of images are read by ImageFolderData"),
    "split": (
        "CIFAR10",
        {"train_split": "trian"},
        "train_split: CIFAR10 has no split 'trian'; it has train, test",
    ),
    "part": ("DTD", {"val_split": "val+dev"}, "data.val_split: DTD has no split 'dev'; it has train, val, test"),
    "same": ("DTD", {"val_split": "test+train"}, "data.val_split: test+train holds train out, which train trains on"),
    "within": (
        "FGVCAircraft",
        {"train_split": "trainval", "val_split": "val"},
        "val_split: val holds val out, which trainval trains on; name another, or none",
    ),
    "no split": ("EuroSAT", {"train_split": "train"}, "EuroSAT has no split 'train'; it has all"),
    "argument": ("STL10", {"arguments": {"fold": 1}}, "STL10 has no argument 'fold'; it takes folds"),
    "no argument": (
        "EMNIST",
        {},
        "data.arguments: EMNIST needs split, one of byclass, bymerge, balanced, letters, digits, mnist: "
        "--data.arguments '{split: byclass}'",
    ),
    "loader": ("STL10", {"arguments": {"root": "/"}}, "STL10 has no argument 'root'; it takes folds"),
    "missing": ("CIFAR100", {}, "has no CIFAR100: looked for cifar-100-python/train"),
    "idx": ("FashionMNIST", {}, "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte"),
    "unfetched": ("FER2013", {"download": True}, "data.download: torchvision fetches no FER2013"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_problems__in_one_line(tmp_path, kind):
    dataset, options, words = REFUSED[kind]
    problems = TorchvisionData(dataset, root=str(tmp_path), **options).problems()
    assert words in problems[0]
    assert "\n" not in problems[0]
    if kind in ("missing", "idx"):
        assert len(problems) == 1
        assert "--data.download true fetches it" in problems[0]


def test_problems__a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").touch()
    for download in (False, True):
        line = problem("FashionMNIST", tmp_path / "file", download=download)
        assert line == f"data.root: {tmp_path / 'file'} is a file; name the folder that FashionMNIST lies in"


def test_download__is_offered_as_an_option_of_ours(tmp_path):
    for name in ("CelebA", "Places365"):
        assert problem(name, tmp_path).endswith("corrupted; --data.download true fetches it")


def test_download__without_a_network(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    for name in ("CIFAR10", "FashionMNIST", "EuroSAT"):
        line = problem(name, tmp_path, download=True)
        assert line.startswith(f"data.download: {name} cannot be fetched: ")
        assert "is there a network? Else put its files into" in line


@pytest.mark.parametrize(
    ("dataset", "train", "held_out"),
    [
        ("DTD", "train+val", "test"),
        ("FGVCAircraft", "trainval", "test"),
        ("CelebA", "all", None),
        ("CelebA", "train", "valid"),
        ("LFWPeople", "10fold", None),
        ("STL10", "train+unlabeled", "test"),
        ("FashionMNIST", "train+test", None),
    ],
)
def test_held_out__by_default_is_no_split_that_is_trained_on(dataset, train, held_out):
    data = TorchvisionData(dataset, train_split=train)
    assert data._splits(sets.find(dataset)) == (train, held_out)
    assert not [text for text in data.problems() if "val_split" in text]
