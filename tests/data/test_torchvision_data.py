import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import default_collate

from tests.data.idx import idx, write_set
from tinymim.data import TorchvisionData, torchvision_images
from tinymim.data import torchvision_sets as sets
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError


@pytest.fixture(autouse=True)
def _no_system_places(monkeypatch):
    """What this machine has installed is no part of a test."""
    monkeypatch.setattr(sets, "SYSTEM_PLACES", {"FashionMNIST": ()})


def prepared(root: Path, dataset: str = "FashionMNIST", **options) -> TorchvisionData:
    options = {"image_size": 32, "batch_size": 8, "num_workers": 0, "crop_pct": 1.0} | options
    data = TorchvisionData(dataset, root=str(root), **options)
    assert data.problems() == []
    data.setup("fit")
    return data


def opened(data: TorchvisionData) -> None:
    data.prepare_data()
    data.setup("fit")


def problem(dataset: str | None, root: Path, **options) -> str:
    """The one line that a set is refused with, before anything is read or when it is opened."""
    data = TorchvisionData(dataset, root=str(root), image_size=32, **options)
    problems = data.problems()
    if not problems:
        with pytest.raises(TinymimError) as error:
            opened(data)
        problems = [str(error.value)]
    assert len(problems) == 1
    assert "\n" not in problems[0]
    return problems[0]


def write_cifar10(root: Path, monkeypatch, each: int = 4) -> np.ndarray:
    """Five pickles and two more in the form of the published ones, and their own md5 in place of the published."""
    folder, cls = root / "cifar-10-batches-py", torchvision.datasets.CIFAR10
    folder.mkdir(parents=True)
    rng, stored = np.random.default_rng(1), []

    def save(name: str, content: dict) -> list[str]:
        raw = pickle.dumps(content)
        (folder / name).write_bytes(raw)
        return [name, hashlib.md5(raw).hexdigest()]

    def batch(name: str) -> list[str]:
        stored.append(rng.integers(0, 256, (each, 3072), dtype=np.uint8))
        return save(name, {"data": stored[-1], "labels": [index % 10 for index in range(each)]})

    monkeypatch.setattr(cls, "train_list", [batch(f"data_batch_{number}") for number in range(1, 6)])
    monkeypatch.setattr(cls, "test_list", [batch("test_batch")])
    names = [f"class {number}" for number in range(10)]
    md5 = save("batches.meta", {"label_names": names})[1]
    monkeypatch.setattr(cls, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5})
    return np.concatenate(stored[:5]).reshape(-1, 3, 32, 32)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("place", ["FashionMNIST/raw", ""])
def test_idx__is_read_as_it_is(tmp_path, zipped, place):
    written = write_set(tmp_path / place, zipped=zipped)
    data = prepared(tmp_path)
    assert (len(data.train), len(data.held_out), data.num_classes) == (40, 20, 10)
    assert data.classes[:2] == ["T-shirt/top", "Trouser"]
    for part, images in (("train", data.bank), ("t10k", data.held_out)):
        for index in (0, 7):
            assert np.array_equal(np.asarray(images.image(index)), written[f"{part}-images-idx3-ubyte"][index])
            assert images[Draw(0, index)]["label"] == written[f"{part}-labels-idx1-ubyte"][index]


def test_system_place__comes_after_the_root(tmp_path, monkeypatch):
    write_set(tmp_path / "system", train=30)
    monkeypatch.setattr(sets, "SYSTEM_PLACES", {"FashionMNIST": (tmp_path / "system",)})
    assert len(prepared(tmp_path / "root").train) == 30
    write_set(tmp_path / "root" / "FashionMNIST" / "raw", train=50)
    assert len(prepared(tmp_path / "root").train) == 50
    assert "no MNIST" in problem("MNIST", tmp_path / "other")


def test_labels__choose_a_fraction_and_a_part_to_choose_settings_on(tmp_path):
    write_set(tmp_path, train=100)
    data = prepared(tmp_path, fraction=0.25, choice_split=0.2)
    assert np.bincount(data.train.labels).tolist() == [2] * 10
    assert np.bincount(data.held_out.labels).tolist() == [2] * 10
    assert len(prepared(tmp_path).held_out) == 20


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"color_jitter": 0.4},
        {"random_erasing": 0.5},
        {"flip": False, "scale": (1.0, 1.0)},
        {"device_augment": True},
    ],
    ids=["crops", "colours", "erasing", "whole", "device"],
)
@pytest.mark.parametrize("views", [0, 2])
def test_batch__is_what_its_samples_are_one_at_a_time(tmp_path, options, views):
    write_set(tmp_path)
    data = prepared(tmp_path, **options)
    data.repeat(views)
    draws = [Draw(epoch, index) for epoch in (0, 3) for index in range(12)]
    for images in (data.train, data.held_out):
        assert_same(default_collate(images.__getitems__(draws)), default_collate([images[draw] for draw in draws]))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        if isinstance(values, dict):
            assert_same(values, other[name])
        else:
            assert values.dtype == other[name].dtype, name
            assert torch.equal(values, other[name]), name


def test_batch__of_a_size_without_shortcut(tmp_path):
    write_set(tmp_path, side=20)
    for options in ({"image_size": 600}, {"rand_augment": "rand-m9-mstd0.5-inc1"}):
        data = prepared(tmp_path, **options)
        draws = [Draw(0, index) for index in range(3)]
        assert_same(default_collate(data.train.__getitems__(draws)), default_collate([data.train[d] for d in draws]))


def test_workers__change_nothing(tmp_path):
    write_set(tmp_path)
    batches = []
    for workers in (0, 2):
        data = prepared(tmp_path, num_workers=workers)
        batches.append([batch["image"] for batch in data.train_dataloader()])
    assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))


def test_cifar__pickles_are_read_where_they_are_the_published_ones(tmp_path, monkeypatch):
    pixels = write_cifar10(tmp_path, monkeypatch)
    data = prepared(tmp_path, "CIFAR10")
    assert (len(data.train), len(data.held_out), data.classes[9]) == (20, 4, "class 9")
    assert np.array_equal(np.asarray(data.bank.image(3)).transpose(2, 0, 1), pixels[3])
    assert data.train[Draw(0, 0)]["image"].shape == (3, 32, 32)


def test_cifar__another_pickle_is_not_opened(tmp_path, monkeypatch):
    write_cifar10(tmp_path, monkeypatch)
    target = tmp_path / "opened"

    class Evil:
        def __reduce__(self):
            return Path.touch, (target,)

    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(pickle.dumps({"data": Evil()}))
    line = problem("CIFAR10", tmp_path)
    assert line.startswith(f"data.root: {path} is damaged, or not the published file: its md5 is not")
    assert not target.exists()
    path.unlink()
    assert f"{path} is missing" in problem("CIFAR10", tmp_path)


def test_stl10__has_images_without_labels(tmp_path, monkeypatch):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    rng, files = np.random.default_rng(0), {}
    for name, count in (("train", 20), ("unlabeled", 30), ("test", 10)):
        files[f"{name}_X.bin"] = rng.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8).tobytes()
        files[f"{name}_y.bin"] = bytes(index % 10 + 1 for index in range(count))
    del files["unlabeled_y.bin"]
    for name, content in files.items():
        (folder / name).write_bytes(content)
    lists = {"train_list": ["train_X.bin", "train_y.bin", "unlabeled_X.bin"], "test_list": ["test_X.bin", "test_y.bin"]}
    for attribute, names in lists.items():
        md5 = [[name, hashlib.md5(files[name]).hexdigest()] for name in names]
        monkeypatch.setattr(torchvision.datasets.STL10, attribute, md5)
    data = prepared(tmp_path, "STL10")
    assert (len(data.train), data.num_classes, data.held_out[Draw(0, 3)]["label"]) == (20, 10, 3)
    column = np.frombuffer(files["train_X.bin"], np.uint8).reshape(20, 3, 96, 96)[5].transpose(2, 1, 0)
    assert np.array_equal(np.asarray(data.bank.image(5)), column), "columns come before rows in its files"
    for split, count in (("unlabeled", 30), ("train+unlabeled", 50)):
        data = prepared(tmp_path, "STL10", train_split=split)
        assert (len(data.train), data.num_classes, data.bank, data.held_out.labels) == (count, None, None, None)


@pytest.fixture
def eurosat(tmp_path):
    """A set of files in class folders, without splits."""
    for number, name in enumerate(("Forest", "River")):
        (tmp_path / "eurosat" / "2750" / name).mkdir(parents=True)
        for index in range(10):
            image = Image.fromarray(np.full((64, 64, 3), 20 * index + number, dtype=np.uint8))
            image.save(tmp_path / "eurosat" / "2750" / name / f"{name}_{index}.png")
    return tmp_path


def test_files__are_read_when_they_are_asked_for(eurosat):
    data = prepared(eurosat, "EuroSAT", held_out=0.2)
    assert (len(data.train), len(data.held_out), data.classes) == (16, 4, ["Forest", "River"])
    image = data.held_out.image(0)
    assert image.size == (64, 64)
    assert np.asarray(image)[0, 0, 0] % 20 == data.held_out.labels[0]
    Path(data.train.name(0)).write_bytes(b"broken")
    assert data.train[Draw(0, 0)]["image"].shape == (3, 32, 32), "its neighbour is shown"


def test_parts__one_behind_the_other(tmp_path):
    for split in ("train", "val", "test"):
        folder = tmp_path / "dtd" / "dtd"
        (folder / "labels").mkdir(parents=True, exist_ok=True)
        lines = []
        for name in ("dotted", "woven"):
            (folder / "images" / name).mkdir(parents=True, exist_ok=True)
            for index in range(3):
                file = f"{name}/{split}{index}.png"
                Image.fromarray(np.full((40, 40), index, dtype=np.uint8)).save(folder / "images" / file)
                lines.append(file)
        (folder / "labels" / f"{split}1.txt").write_text("\n".join(lines))
    data = prepared(tmp_path, "DTD", train_split="train+val", val_split="test", arguments={"partition": 1})
    assert (len(data.train), len(data.held_out), data.classes) == (12, 6, ["dotted", "woven"])
    assert len(prepared(tmp_path, "DTD").held_out) == 6
    assert "DTD refuses {'partition': 'x'}: " in problem("DTD", tmp_path, arguments={"partition": "x"})


class Many:
    """A data set of three images with a label each."""

    def __init__(self, labels, /, **attributes):
        self.items = [
            (Image.fromarray(np.full((9, 7, 3), index, np.uint8)), label) for index, label in enumerate(labels)
        ]
        vars(self).update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.mark.parametrize(
    ("opened", "labels"),
    [
        (Many([0, 1, 2]), [0, 1, 2]),
        (Many([0, 0, 0], targets=torch.tensor([4, 5, 6])), [4, 5, 6]),
        (Many([0, 0, 0], targets=torch.tensor([[4, 9], [5, 9], [6, 9]]), compat=True), [4, 5, 6]),
        (Many([torch.tensor([1, 0])] * 3), None),
        (Many([None] * 3), None),
        (Many([0, 1, 2], labels=np.array([0, -1, 1])), None),
        (Many(["a cat", "a dog", "two dogs"]), None),
        (Many([0.5, 1.5, 2.5]), None),
    ],
    ids=["items", "targets", "qmnist", "attributes", "none", "partly", "captions", "numbers"],
)
def test_labels__are_single_whole_numbers(tmp_path, monkeypatch, opened, labels):
    monkeypatch.setattr(torchvision_images, "construct", lambda *_: opened)
    split = torchvision_images.open_split(sets.find("GTSRB"), tmp_path, "train", {}, None)
    assert (split.labels if labels is None else split.labels.tolist()) == labels
    assert np.asarray(split.images.image(2))[0, 0, 0] == 2


def test_identity__is_that_of_the_pixels(tmp_path):
    write_set(tmp_path / "a")
    write_set(tmp_path / "b", zipped=True)
    written = write_set(tmp_path / "c")["train-images-idx3-ubyte"].copy()
    written[3, 5, 5] ^= 1
    (tmp_path / "c" / "train-images-idx3-ubyte").write_bytes(idx(written))
    a, b, c = (prepared(tmp_path / name).train.identity() for name in "abc")
    assert a == b != c


def test_sets__of_this_torchvision_are_all_known():
    """Each is a set with splits that its class takes, or refused for its kind."""
    others = {*sets.NOT_READ, *(name for names in sets.OTHER_KINDS.values() for name in names)}
    for name in torchvision.datasets.__all__:
        if name in others or "Stereo" in name or not name[0].isupper():
            with pytest.raises(TinymimError, match=name):
                sets.find(name)
        else:
            of = sets.find(name)
            assert of.splits
            assert of.argument is None or of.takes(of.argument), name
    assert others <= {*torchvision.datasets.__all__}
    assert sets.find("EMNIST").options == ["split"]
