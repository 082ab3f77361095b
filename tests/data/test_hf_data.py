import io
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.images import SIDE, class_folders, noise
from tests.data.images import prepared as prepared_folder
from tinymim.data.hf import HFData
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    """Nothing is written to the user's own cache, and no bars are drawn."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


def encoded(seed: int, kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    noise(seed).save(stream, kind)
    return stream.getvalue()


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def table(count: int = 10, first: int = 0, names: tuple[str, ...] = ("cat", "dog"), **columns):
    """Rows with ``noise(i)`` and labels in turn."""
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))}
    rows = range(first, first + count)
    content = {"image": [{"bytes": encoded(i), "path": None} for i in rows], "label": [i % len(names) for i in rows]}
    features |= {name: datasets.Value(kind) for name, (kind, _) in columns.items()}
    content |= {name: values for name, (_, values) in columns.items()}
    return datasets.Dataset.from_dict(content, features=datasets.Features(features))


def saved(folder: Path, **splits) -> Path:
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return folder


def prepared(dataset: Path, **options) -> HFData:
    options = {"image_size": SIDE, "batch_size": 4, "num_workers": 0, "held_out": 0.2} | options
    data = HFData(str(dataset), **options)
    assert data.problems() == []
    data.setup("fit")
    return data


@pytest.mark.parametrize("validation", ["validation", "dev"])
def test_saved__splits_labels_and_images(tmp_path, validation):
    data = prepared(saved(tmp_path / "d", **{"train": table(), validation: table(4, first=10), "test": table(1)}))
    assert (data.classes, data.num_classes) == (["cat", "dog"], 2)
    assert (len(data.train), len(data.held_out), len(data.bank)) == (10, 4, 10)
    assert [data.held_out[Draw(0, i)]["label"] for i in range(4)] == [0, 1, 0, 1]
    assert np.array_equal(np.asarray(data.bank.image(3)), decoded(encoded(3)))
    assert np.array_equal(np.asarray(data.held_out.image(1)), decoded(encoded(11)))


def test_saved__a_single_table_is_split(tmp_path):
    table().save_to_disk(str(tmp_path / "d"))
    data = prepared(tmp_path / "d")
    assert (len(data.train), len(data.held_out)) == (8, 2)
    assert sorted([*data.train.rows, *data.held_out.rows]) == list(range(10))


def test_saved__chosen_splits_and_columns(tmp_path):
    one = table(6, kind=("string", list("xyzxyz"))).rename_column("image", "picture")
    path = saved(tmp_path / "d", small=one, rest=one.select(range(3)), validation=one.select(range(1)))
    options = {"train_split": "small", "val_split": "rest", "image_key": "picture"}
    data = prepared(path, label_key="kind", **options)
    assert data.classes == ["x", "y", "z"]
    assert (len(data.train), len(data.held_out)) == (6, 3)
    assert data.bank[Draw(0, 4)]["label"] == 1
    assert prepared(path, **options).classes == ["cat", "dog"]


def test_files__parquet_and_a_folder_of_it(tmp_path):
    (tmp_path / "d").mkdir()
    table().to_parquet(tmp_path / "d/train.parquet")
    for path in (tmp_path / "d/train.parquet", tmp_path / "d"):
        data = prepared(path)
        assert (data.classes, len(data.train)) == (["cat", "dog"], 8)
        assert data.train[Draw(0, 0)]["image"].shape == (3, SIDE, SIDE)


def test_files__an_image_folder_is_seen_as_our_own_reader_sees_it(tmp_path):
    class_folders(tmp_path / "d/train", "ab", each=4), class_folders(tmp_path / "d/val", "ab", each=2)
    data, folder = prepared(tmp_path / "d", seed=3), prepared_folder(tmp_path / "d", seed=3)
    assert data.classes == folder.classes == ["a", "b"]
    assert len(data.train) == len(folder.train) == 8
    for index in range(8):
        sample, expected = data.train[Draw(2, index)], folder.train[Draw(2, index)]
        assert sample["label"] == expected["label"]
        assert torch.equal(sample["image"], expected["image"])


LABELS = {
    "whole numbers": (datasets.Value("int64"), [0, 3], ["0", "1", "2", "3"]),
    "names": (datasets.Value("string"), ["dog", "cat"], ["cat", "dog"]),
    "one": (datasets.Value("int64"), [4, 4], None),
    "a gap": (datasets.Value("int64"), [4, None], None),
    "hidden, as in many test splits": (datasets.ClassLabel(names=["a", "b"]), [-1, -1], None),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels(tmp_path, kind, capsys):
    feature, (a, b), classes = LABELS[kind]
    without = table().remove_columns("label")
    path = saved(tmp_path / "d", train=without.add_column("label", [a, b] * 5, feature=feature))
    data = prepared(path)
    assert data.classes == classes
    assert ("label" in data.train[Draw(0, 0)]) == (classes is not None)
    assert ("no labels (" in capsys.readouterr().err) == (classes is None)
    if classes:
        assert [data.bank[Draw(0, i)]["label"] for i in range(len(data.bank))].count(classes.index(str(a))) == 4


def test_labels__no_such_column(tmp_path, capsys):
    data = prepared(saved(tmp_path / "d", train=table().remove_columns("label")))
    assert data.bank is None
    assert "10 of 10 rows have none in 'label'" in capsys.readouterr().err


def test_labels__of_the_held_out_rows_that_the_others_lack(tmp_path):
    path = saved(tmp_path / "d", train=table(), validation=table(names=("cat", "bird")))
    with pytest.raises(TinymimError, match=r"\(validation\) has 1 class that the training images lack, such as 'bird'"):
        prepared(path)


def test_broken__is_named_once_and_the_next_one_shown(tmp_path, caplog):
    one = table().cast_column("image", datasets.Image(decode=False)).to_dict()
    one["image"][2]["bytes"] = b"no image"
    one["image"][3] = None
    features = table().features
    path = saved(tmp_path / "d", train=datasets.Dataset.from_dict(one, features=features), validation=table(1))
    data = prepared(path)
    with caplog.at_level(logging.WARNING):
        labels = [[data.bank[Draw(epoch, i)]["label"] for i in (2, 3)] for epoch in range(2)]
    assert labels == [[0, 0], [0, 0]]  # of the row after both
    names = [record.getMessage() for record in caplog.records if record.name.startswith("tinymim")]
    assert len(names) == 2
    assert "(train): row 2: " in names[0]
    assert "(train): row 3: " in names[1]


def test_loading__same_batches_with_any_workers(tmp_path):
    data = prepared(saved(tmp_path / "d", train=table(20), validation=table(1)), seed=1)
    seen = []
    for workers in (0, 2):
        data.num_workers = workers
        batches = list(data.train_dataloader())
        seen.append({name: torch.cat([batch[name] for batch in batches]) for name in batches[0]})
    assert all(torch.equal(seen[0][name], seen[1][name]) for name in seen[0])
    assert sorted(seen[0]["index"].tolist()) == list(range(20))


def test_problems(tmp_path):
    assert HFData().problems()[0].startswith("data.dataset is not set: give --data.dataset PATH")
    (problem,) = HFData(f"{tmp_path}/nowhere").problems()
    assert problem.startswith(f"data.dataset: {tmp_path}/nowhere does not exist")
    assert HFData("owner/name").problems() == []  # that is the hub's to say


MISTAKES = {
    "split": ({"train_split": "training"}, r"no split 'training'; it has train, validation"),
    "val_split": ({"val_split": "dev"}, r"no split 'dev'; it has train, validation"),
    "image_key": ({"image_key": "img"}, r"data.image_key: .* no column 'img'; it has image, label"),
    "label_key": (
        {"label_key": "image"},
        r"data.label_key: image holds PIL.Image.Image, and a label is a number or a name",
    ),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes__name_what_there_is(tmp_path, kind):
    options, words = MISTAKES[kind]
    path = saved(tmp_path / "d", train=table(), validation=table(2))
    with pytest.raises(TinymimError, match=words):
        prepared(path, **options)


def test_a_folder_that_is_no_dataset(tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(TinymimError, match=r"data.dataset: .*/d cannot be read: ") as caught:
        prepared(tmp_path / "d")
    assert "\n" not in str(caught.value)


def test_hub__without_network_is_one_line_at_once(monkeypatch):
    asked = []

    def unreachable(*args, **options):
        asked.append(options["timeout"])
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    before = datasets.config.HF_HUB_OFFLINE
    with pytest.raises(
        TinymimError, match=r"data.dataset: nobody/nothing cannot be read: .* is there a network"
    ) as caught:
        HFData("nobody/nothing").setup("fit")
    assert "\n" not in str(caught.value)
    assert asked == [5]  # once, and the library does not try again
    assert before == datasets.config.HF_HUB_OFFLINE
