import functools
import gzip
import http.server
import io
import logging
import os
import pickle
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from torch.utils.data import DataLoader

from tests.data.images import SIDE, class_folders, noise
from tests.data.images import prepared as prepared_folder
from tinymim.data import remote, tar_index
from tinymim.data.image_data import class_names
from tinymim.data.sampler import Draw, EpochSampler, in_windows
from tinymim.data.shards import ShardsData, expanded
from tinymim.data.transforms import PlainView
from tinymim.errors import TinymimError
from tinymim.seeds import stream


def jpeg(seed: int, folder: Path) -> bytes:
    path = folder / f".{seed}.jpg"
    noise(seed).save(path)
    content = path.read_bytes()
    path.unlink()
    return content


def write_shards(folder: Path, shards: int = 4, each: int = 6, **fields) -> str:
    """Shards written by WebDataset itself; sample ``i`` shows ``noise(i)``, and is of class ``i % 3``."""
    folder.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(f"{folder}/train-%06d.tar", maxcount=each, verbose=0) as writer:
        for i in range(shards * each):
            fields_of = {name: value(i) for name, value in (fields or {"cls": lambda i: i % 3}).items()}
            writer.write({"__key__": f"part/{i:06}", "jpg": jpeg(i, folder), **fields_of})
    return f"{folder}/train-{{000000..{shards - 1:06}}}.tar"


def prepared(train, cache: Path, **options) -> ShardsData:
    options = {"image_size": SIDE, "batch_size": 4, "num_workers": 0, "held_out": 0.1} | options
    data = ShardsData(train, cache=str(cache), **options)
    assert data.problems() == []
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"))


def seen(data: ShardsData, epoch: int, workers: int = 0, begun: int = 0) -> dict[str, torch.Tensor]:
    """All batches of an epoch, one after another."""
    data.num_workers = workers
    data.begin(epoch, begun)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    batches = list(loader)
    return {name: torch.cat([batch[name] for batch in batches]) for name in ("image", "index", "label")}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], start: int = 0) -> bool:
    return all(torch.equal(a[name][start:], b[name]) for name in a)


# What is in them


def test_samples__are_those_that_webdataset_reads(shards, tmp_path):
    data = prepared(shards, tmp_path, held_out=0.2, bank_size=100)
    assert (data.num_classes, len(data.train), len(data.held_out)) == (3, 19, 5)
    read = list(webdataset.WebDataset(expanded(shards), shardshuffle=False))
    expected = {sample["jpg"]: int(sample["cls"]) for sample in read}
    found = {}
    for dataset in (data.bank, data.held_out):
        for index, (shard, offset, length) in enumerate(dataset.rows.tolist()):
            content = dataset.shards[shard].read_bytes()[offset : offset + length]
            found[content] = int(dataset.labels[index])
            assert dataset[Draw(0, index)]["label"] == found[content]
    assert found == expected
    assert len(expected) == 24


def test_samples__are_seen_as_the_same_files_in_a_folder(tmp_path):
    class_folders(tmp_path / "images/train", "ab", each=5), class_folders(tmp_path / "images/val", "ab", each=2)
    for part in ("train", "val"):
        with webdataset.TarWriter(f"{tmp_path}/{part}.tar") as writer:
            for path in sorted((tmp_path / "images" / part).glob("*/*.jpg")):
                key = f"{path.parent.name}{path.stem}"
                writer.write({"__key__": key, "jpg": path.read_bytes(), "cls": path.parent.name.encode()})
    options = {"color_jitter": 0.4, "seed": 3, "bank_size": 3}
    folder = prepared_folder(tmp_path / "images", **options)
    data = prepared(f"{tmp_path}/train.tar", tmp_path / "cache", val=f"{tmp_path}/val.tar", **options)
    assert data.classes == folder.classes == ["a", "b"]
    for ours, theirs in ((data.train, folder.train), (data.held_out, folder.held_out), (data.bank, folder.bank)):
        assert len(ours) == len(theirs)
        for index in range(len(ours)):
            sample, expected = ours[Draw(2, index)], theirs[Draw(2, index)]
            assert sample.keys() == expected.keys()
            assert all(np.array_equal(sample[name], expected[name]) for name in sample)


LABELS = {
    "numbers": ({"cls": lambda i: i % 3}, ["0", "1", "2"]),
    "numbers with a gap": ({"cls": lambda i: i % 2 * 4}, ["0", "1", "2", "3", "4"]),
    "names": ({"cls": lambda i: b"cat" if i % 2 else b"ant"}, ["ant", "cat"]),
    "json": ({"json": lambda i: {"label": i % 3, "other": "x"}}, ["0", "1", "2"]),
    "cls before json": ({"cls": lambda i: i % 2, "json": lambda i: {"label": 7}}, ["0", "1"]),
    "none": ({"txt": lambda i: "words"}, None),
    "json without it": ({"json": lambda i: {"other": 3}}, None),
    "one class": ({"cls": lambda i: 5}, None),
    "some": ({"json": lambda i: {"label": i % 2} if i else {}}, None),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels(tmp_path, kind, capsys):
    fields, classes = LABELS[kind]
    data = prepared(write_shards(tmp_path / "shards", shards=1, **fields), tmp_path)
    assert data.classes == classes
    assert data.num_classes == (classes and len(classes))
    assert (data.bank is None) == (classes is None)
    assert ("label" in data.train[Draw(0, 0)]) == (classes is not None)
    assert ("no labels (" in capsys.readouterr().err) == (classes is None)


def test_labels__another_field_of_the_json(tmp_path):
    pattern = write_shards(tmp_path / "shards", shards=1, json=lambda i: {"label": 0, "kind": "ab"[i % 2]})
    assert prepared(pattern, tmp_path).classes is None
    assert prepared(pattern, tmp_path, label_key="kind").classes == ["a", "b"]  # its index is another


def test_labels__of_val_that_train_lacks(tmp_path):
    train = write_shards(tmp_path / "a", shards=1)
    val = write_shards(tmp_path / "b", shards=1, cls=lambda i: i)
    with pytest.raises(TinymimError, match=r"data.val: .* 3 classes that the training images lack, such as '3'"):
        prepared(train, tmp_path, val=val)


def test_samples__other_names_and_kinds_of_members(tmp_path):
    picture, long = jpeg(1, tmp_path), "d" * 120
    with webdataset.TarWriter(f"{tmp_path}/a.tar") as writer:
        writer.write({"__key__": long, "JPEG": picture})  # a name that takes two headers
        writer.write({"__key__": "words", "txt": "no image"})
        writer.write({"__key__": "two.parts/x", "mask.png": picture, "jpg": picture, "cls": 1})
    index = tar_index.read_index(tmp_path / "a.tar", "label")
    content = (tmp_path / "a.tar").read_bytes()
    shown = [content[o : o + n] for o, n in zip(index.offset, index.length, strict=True)]
    assert shown == [picture, picture]
    assert index.label.tolist() == [b"", b"1"]


# Order


@pytest.mark.parametrize(("groups", "window"), [(7, 1), (7, 3), (7, 7), (7, 50), (1, 4)])
def test_order__every_sample_once_and_a_window_of_shards_at_a_time(groups, window):
    shard = np.sort(np.arange(70) % groups)
    order = in_windows(shard, window, stream(0, 1))
    assert sorted(order.tolist()) == list(range(70))
    places = [np.flatnonzero(shard[order] == group) for group in range(groups)]
    begun = [(np.array([place[0] for place in places]) <= at) for at in range(70)]
    unfinished = [(np.array([place[-1] for place in places]) >= at) for at in range(70)]
    at_once = [int((a & b).sum()) for a, b in zip(begun, unfinished, strict=True)]
    assert max(at_once) == min(window, groups)
    assert all(np.any(np.diff(order[place]) < 0) for place in places)  # shuffled within
    if groups > window:
        assert np.any(np.diff([place[0] for place in places]) < 0)  # and shards among each other
    assert not np.array_equal(order, in_windows(shard, window, stream(0, 2)))


def test_order__is_that_of_the_data(shards, tmp_path):
    data = prepared(shards, tmp_path, window=2, bank_size=100)
    data.begin(5, 0)
    indices = [draw.index for draw in data.train_dataloader().sampler]
    of = data.train.rows["shard"][indices]
    halves = {*of[:8]}, {*of[-8:]}
    assert all(len(half) <= 2 for half in halves)
    assert not halves[0] & halves[1]


def test_order__same_batches_with_any_workers_and_from_any_place(shards, tmp_path):
    data = prepared(shards, tmp_path, window=2)
    for epoch in (0, 3):
        whole = seen(data, epoch)
        assert len(set(whole["index"].tolist())) == len(whole["index"]) == 20
        assert same(whole, seen(data, epoch, workers=1))
        assert same(whole, seen(data, epoch, workers=2, begun=2), start=8)
        again = prepared(shards, tmp_path / "another cache", window=2)
        assert same(whole, seen(again, epoch, begun=3), start=12)
    assert not torch.equal(seen(data, 0)["index"], seen(data, 1)["index"])


def test_order__two_processes_take_the_steps_of_one(shards, tmp_path):
    data = prepared(shards, tmp_path, window=2)
    length = len(data.train)

    def batches(rank: int, world: int, size: int) -> list[dict]:
        sampler = EpochSampler(length, data.seed, rank, world, size, order=data.order)
        sampler.set_epoch(2)
        return list(DataLoader(data.train, size, sampler=sampler))

    one, two = batches(0, 1, 4), [batches(rank, 2, 2) for rank in range(2)]
    assert len(one) == len(two[0]) == len(two[1]) == length // 4
    for step, (a, b) in zip(one, zip(*two, strict=True), strict=True):
        for name in ("image", "index", "label"):
            assert torch.equal(step[name], torch.cat([a[name], b[name]]))
    assert len({int(i) for step in one for i in step["index"]}) == length // 4 * 4


def test_spawned_workers__open_shards_of_their_own(shards, tmp_path):
    data = prepared(shards, tmp_path)
    expected = data.held_out[Draw(0, 0)]["image"]
    assert torch.equal(pickle.loads(pickle.dumps(data.held_out))[Draw(0, 0)]["image"], expected)


def test_many_shards__few_are_open_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("tinymim.data.shards.OPEN", 2)
    data = prepared(write_shards(tmp_path / "shards", shards=6, each=2), tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else None
    assert len(seen(data, 0)["index"]) == 8
    if before is not None:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


# What can be wrong


def truncate(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def at_a_members_end(path: Path) -> None:
    index = tar_index.read_index(path, "label")
    os.truncate(path, int(index.offset[2]) - 512)


def flip_a_header(path: Path) -> None:
    index = tar_index.read_index(path, "label")
    with path.open("r+b") as stream:
        stream.seek(int(index.offset[2]) - 400)
        stream.write(b"\xff" * 8)


DAMAGE = {
    "half": lambda path: truncate(path, 0.5),
    "first header": lambda path: os.truncate(path, 100),
    "empty": lambda path: os.truncate(path, 0),
    "at a member's end": at_a_members_end,
    "header": flip_a_header,
    "page": lambda path: path.write_text("<html>404 Not Found</html>" * 100),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage__is_found_and_named_before_training(tmp_path, kind):
    pattern = write_shards(tmp_path / "shards")
    shard = tmp_path / "shards/train-000002.tar"
    DAMAGE[kind](shard)
    with pytest.raises(TinymimError, match=r"train-000002\.tar is (damaged, or )?no plain tar file: ") as caught:
        prepared(pattern, tmp_path)
    assert "\n" not in str(caught.value)
    assert "delete" not in str(caught.value)


def write_tar(path: Path, members: dict[str, bytes]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("000.json", b"{broken", r"000\.json is not JSON: "),
        ("000.cls", b"\xe9t\xe9", r"000\.cls is not text: byte 0 is no UTF-8"),
        ("000.cls", b"x" * 5000, r"000\.cls has 5000 bytes, more than the 1000"),
        ("000.json", b'{"label": "' + b"x" * 5000 + b'"}', r"000: a label of 5,000 bytes, and 1,000 are taken"),
    ],
)
def test_damage__of_one_label_names_its_file(tmp_path, name, content, words):
    shard = write_tar(tmp_path / "shards/a.tar", {"000.jpg": jpeg(0, tmp_path), name: content})
    with pytest.raises(TinymimError, match=words) as caught:
        prepared(shard, tmp_path)
    assert "damaged" not in str(caught.value)


def test_samples__without_an_image_are_named(tmp_path, capsys):
    images = {f"{i:03}.jpg": jpeg(i, tmp_path) for i in range(3)}
    shard = write_tar(tmp_path / "shards/a.tar", {**images, "100.bmp": b"x", "101.0.jpg": b"x"})
    for _ in range(2):  # read, and from the index that was kept
        prepared(shard, tmp_path)
        assert "2 samples without jpg, jpeg, png, webp are not read, such as 100.bmp" in capsys.readouterr().err
    shard = write_tar(tmp_path / "shards/b.tar", {"im.0.jpg": b"x"})
    with pytest.raises(TinymimError, match=r"the first are im\.0\.jpg \(an ending begins at the first dot\)"):
        prepared(shard, tmp_path)


def test_damage__a_gzipped_shard_is_named_as_one(tmp_path):
    shard = Path(write_tar(tmp_path / "shards/a.tar", {"000.jpg": jpeg(0, tmp_path)}))
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    with pytest.raises(TinymimError, match=r"a\.tar is no plain tar file: it is compressed with gzip; unpack it"):
        prepared(str(shard), tmp_path)


def test_index__is_made_once_and_again_when_the_shard_changes(tmp_path, monkeypatch):
    pattern = write_shards(tmp_path / "shards", shards=2)
    read, real = [], tar_index.read_index
    monkeypatch.setattr(tar_index, "read_index", lambda shard, key: read.append(shard.name) or real(shard, key))
    first = prepared(pattern, tmp_path)
    assert read == ["train-000000.tar", "train-000001.tar"]
    assert np.array_equal(prepared(pattern, tmp_path).train.rows, first.train.rows)
    assert len(read) == 2
    write_shards(tmp_path / "shards", shards=1, each=9)
    assert len(prepared(pattern, tmp_path).train) + 2 == 15
    assert read[2:] == ["train-000000.tar"]
    for kept in (tmp_path / "indexes").iterdir():
        kept.write_bytes(b"PK\x03\x04 cut short")
    assert len(prepared(pattern, tmp_path).train) + 2 == 15
    assert len(read) == 5


def header(shape: str, kind: str = "<i8") -> bytes:
    """The beginning of an array in NumPy's own form, of which nothing follows."""
    said = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(said).to_bytes(2, "little") + said


def zipped(path: Path, content: bytes, change: Callable[[bytearray], None] = lambda _: None) -> None:
    """A file of arrays with one that is ``content``, some bytes of which are changed."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("shard.npy", content)
    changed = bytearray(path.read_bytes())
    change(changed)
    path.write_bytes(changed)


def set_flag(zipped: bytearray) -> None:
    zipped[6] |= 1
    zipped[zipped.find(b"PK\x01\x02") + 8] |= 1


@pytest.mark.parametrize(
    "write",
    [
        lambda path: os.mkfifo(path),
        lambda path: path.write_bytes(header("(0,)")),
        lambda path: zipped(path, header("(1000000000000000,)")),
        lambda path: zipped(path, header("(99999999999999999999999,)")),
        lambda path: zipped(path, header("(" * 9000)),
        lambda path: zipped(path, header("(1,)", "|O") + b"cposix\nsystem\n(S'touch MARK'\ntR."),
        lambda path: zipped(path, header("(0,)"), set_flag),
        lambda path: np.savez_compressed(path.open("wb"), shard=np.zeros(10**6)),
    ],
    ids=["pipe", "array", "petabytes", "overflow", "deep", "pickle", "encrypted", "compressed"],
)
def test_index__that_is_none_is_made_anew(write, tmp_path):
    write_shards(tmp_path, shards=1)
    (shard,) = tmp_path.glob("*.tar")
    own = tar_index.index(shard, "label", tmp_path / "indexes")
    (kept,) = (tmp_path / "indexes").iterdir()
    kept.unlink()
    write(kept)
    found = tar_index.index(shard, "label", tmp_path / "indexes")
    assert all(np.array_equal(*pair) for pair in zip(found, own, strict=True))
    with np.load(kept) as stored:
        assert np.array_equal(stored["offset"], own.offset)


@pytest.mark.parametrize("fields", [{"cls": "x" * 1001}, {"json": '{"label": "' + "é" * 501 + '"}'}, {"cls": b"\xff"}])
def test_labels__are_short_texts(fields, tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for extension, content in {"png": "x", **fields}.items():
            member = tarfile.TarInfo(f"a.{extension}")
            data = content if isinstance(content, bytes) else content.encode()
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(
        TinymimError,
        match=r"has 1001 bytes|a label of 1,002 bytes, and 1,000 are taken|is not text",
    ):
        tar_index.read_index(tmp_path / "x.tar", "label")


def test_index__a_cache_that_cannot_be_written_is_done_without(tmp_path):
    pattern = write_shards(tmp_path / "shards", shards=1)
    (tmp_path / "file").write_text("in the way")
    assert len(prepared(pattern, tmp_path / "file").train) == 5


def test_broken_image__is_named_once_and_the_next_one_shown(tmp_path, caplog):
    pattern = write_shards(tmp_path / "shards", shards=2)
    index = tar_index.read_index(tmp_path / "shards/train-000001.tar", "label")
    with (tmp_path / "shards/train-000001.tar").open("r+b") as stream:
        stream.seek(int(index.offset[3]))
        stream.write(bytes(int(index.length[3])))
    data = prepared(pattern, tmp_path, val=pattern)
    with caplog.at_level(logging.WARNING):
        for epoch in range(2):
            sample = data.held_out[Draw(epoch, 9)]
            assert (sample["index"], sample["label"]) == (9, 10 % 3)
    assert torch.equal(sample["image"], PlainView(SIDE)(data.held_out.image(10))["image"])
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("tinymim")]
    name = f"{tmp_path}/shards/train-000001.tar: part/000009.jpg"
    assert name in warning
    parts = prepared(pattern, tmp_path, held_out=0.5)
    assert all(part[Draw(0, i)] for part in (parts.train, parts.held_out) for i in range(len(part)))
    assert parts.train.unreadable() == parts.held_out.unreadable() == [name]


PROBLEMS = {
    "unset": (None, "data.train is not set"),
    "nothing matches": ("{folder}/nothing-*.tar", "matches no file"),
    "missing": (
        "{folder}/train-{{000002..000009}}.tar",
        "6 of 8 shards are not there, such as {folder}/train-000004.tar",
    ),
    "folder": ("{folder}", "is a folder; name its shards, such as '{folder}/*.tar'"),
    "braces": ("{folder}/train-{{000..", "Unbalanced braces"),
    "empty list": ([], "data.train is not set"),
}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_problems(shards, tmp_path, kind):
    folder = Path(expanded(shards)[0]).parent
    pattern, words = PROBLEMS[kind]
    pattern = pattern.format(folder=folder) if isinstance(pattern, str) else pattern
    (problem,) = ShardsData(pattern, cache=str(tmp_path)).problems()
    assert problem.startswith("data.train")
    assert words.format(folder=folder) in problem


def test_problems__of_val_and_of_values(shards, tmp_path):
    found = ShardsData(shards, val=f"{tmp_path}/no.tar", window=0, held_out=2.0, batch_size=0).problems()
    assert sorted(line.split(":")[0] for line in found) == [
        "data.batch_size",
        "data.held_out",
        "data.val",
        "data.window",
    ]


def test_patterns__lists_globs_and_braces_name_each_shard_once(shards, monkeypatch):
    folder = Path(expanded(shards)[0]).parent
    every = [f"{folder}/train-00000{i}.tar" for i in range(4)]
    assert expanded(shards) == expanded(f"{folder}/*.tar") == expanded([f"{folder}/train-*.tar", every[2]]) == every
    monkeypatch.chdir(folder)
    assert expanded("train-00000[12].tar") == ["train-000001.tar", "train-000002.tar"]
    monkeypatch.setenv("HOME", str(folder))
    assert expanded("~/train-{000000..000003}.tar") == expanded("~/*.tar") == every
    assert expanded("s3://b/a-{1..2}.tar") == ["s3://b/a-1.tar", "s3://b/a-2.tar"]


def test_no_images_in_them(tmp_path):
    with webdataset.TarWriter(f"{tmp_path}/a.tar") as writer:
        writer.write({"__key__": "a", "txt": "words"})
    with pytest.raises(TinymimError, match=r"data.train: no images in .*a.tar: looked for .*webp"):
        prepared(f"{tmp_path}/a.tar", tmp_path)


# By URL


class _Quiet(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.extra = 10 if "cut" in self.path else 0
        super().do_GET()

    def send_header(self, keyword: str, value: str) -> None:
        more = self.extra if keyword == "Content-Length" else 0
        super().send_header(keyword, str(int(value) + more) if more else value)

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.replace("cut/", ""))

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server(shards):
    folder = Path(expanded(shards)[0]).parent
    _Quiet.asked = []
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder))
    threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def test_url__is_fetched_once_and_read_as_local_shards_are(shards, server, tmp_path):
    url = f"{server}/train-{{000000..000003}}.tar"
    assert same(seen(prepared(url, tmp_path / "a"), 1), seen(prepared(shards, tmp_path / "b"), 1))
    assert len(_Quiet.asked) == 4
    prepared(url, tmp_path / "a")
    assert len(_Quiet.asked) == 4
    assert len(list((tmp_path / "a/shards").iterdir())) == 4


@pytest.mark.parametrize("path", ["train-000007.tar", "cut/train-000001.tar"])
def test_url__that_is_not_there_or_ends_too_soon_leaves_nothing(server, tmp_path, path):
    with pytest.raises(TinymimError, match=rf"{server}/{path} cannot be fetched"):
        prepared(f"{server}/{path}", tmp_path)
    assert list((tmp_path / "shards").iterdir()) == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:9/a.tar", "is there a network"),
        ("http://nowhere.invalid/a.tar", "is there a network"),
        ("nosuch://x/a.tar", "needs a package"),
    ],
)
def test_url__without_network_or_protocol_is_one_line_at_once(tmp_path, url, why):
    with pytest.raises(TinymimError, match=rf"^{url} cannot be fetched .*{why}") as caught:
        prepared(url, tmp_path)
    assert "\n" not in str(caught.value)


def test_url__a_signed_one_is_no_file_name(tmp_path):
    url = "https://host/bucket/train-000000.tar?X-Amz-Signature=" + "a" * 400
    name = remote.local(url, tmp_path).name
    assert name.endswith("-train-000000.tar")
    assert "Amz" not in name
    assert name != remote.local(url + "b", tmp_path).name


def test_labels__with_zeros_before_them_are_names():
    assert class_names(["000", "010", "001"]) == ["000", "001", "010"]
    assert class_names(["2", "0"]) == ["0", "1", "2"]
