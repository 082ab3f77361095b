import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from tinymim.data.folder import ImageFolderData, image_files
from tinymim.data.sampler import Draw, InTurn
from tinymim.data.transforms import PlainView, TrainView, read_rgb
from tinymim.errors import TinymimError
from tinymim.seeds import seeded

SIDE = 32


def noise(seed: int = 0, width: int = 48, height: int = 40) -> Image.Image:
    """A smooth random picture: its parts differ, and it survives JPEG."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def write(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(seed).save(path)
    return path


def class_folders(folder: Path, classes: str = "ab", each: int = 5) -> Path:
    for c, name in enumerate(classes):
        for i in range(each):
            write(folder / name / f"{i}.jpg", seed=100 * c + i)
    return folder


def prepared(root: Path, **options) -> ImageFolderData:
    options = {"image_size": SIDE, "batch_size": 4, "num_workers": 0} | options
    data = ImageFolderData(root=str(root), **options)
    assert data.problems() == []
    data.setup("fit")
    return data


def names(dataset) -> list[str]:
    return [name.decode() for name in dataset.names]


def likeness(a: Tensor, b: Tensor) -> float:
    return float(np.corrcoef(a.mean(0).flatten(), b.mean(0).flatten())[0, 1])


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
    with pytest.raises(TinymimError, match=r"val has 1 classes that train/ lacks, such as q"):
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


# Files


@pytest.mark.parametrize(("extension", "error"), [("jpg", 0.02), ("JPEG", 0.02), ("png", 0), ("webp", 0.04)])
def test_read__formats(tmp_path, extension, error):
    path = write(tmp_path / f"a.{extension}")
    difference = np.asarray(read_rgb(str(path)), float) - np.asarray(noise(), float)
    assert np.abs(difference).mean() / 255 <= error


def grey16(value: int) -> Image.Image:
    return Image.fromarray(np.full((20, 20), value, np.uint16))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("image", "extension", "expected"),
    [
        (Image.new("1", (20, 20), 1), "png", (255, 255, 255)),
        (Image.new("L", (20, 20), 90), "jpg", (90, 90, 90)),
        (Image.new("LA", (20, 20), (90, 128)), "png", (90, 90, 90)),
        (Image.new("RGBA", (20, 20), (200, 100, 50, 128)), "png", (200, 100, 50)),
        (Image.new("RGBA", (20, 20), (200, 100, 50, 255)), "webp", (200, 100, 50)),
        (Image.new("RGB", (20, 20), (200, 100, 50)).quantize(4), "png", (200, 100, 50)),
        (Image.new("RGBA", (20, 20), (200, 100, 50, 128)).quantize(4), "png", (200, 100, 50)),
        (Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "jpg", (255, 0, 0)),
        (grey16(257 * 90), "png", (90, 90, 90)),
        (grey16(65535), "png", (255, 255, 255)),
    ],
    ids=["bilevel", "grey", "grey-alpha", "rgba", "rgba-webp", "palette", "palette-alpha", "cmyk", "grey16", "white16"],
)
def test_read__modes(tmp_path, image, extension, expected):
    path = tmp_path / f"a.{extension}"
    image.save(path)
    rgb = read_rgb(str(path))
    assert (rgb.mode, rgb.size) == ("RGB", (20, 20))
    assert np.abs(np.asarray(rgb, float) - expected).max() <= 4


BROKEN = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2]),
    "text": lambda path: path.write_text("<html>404 Not Found</html>"),
    "empty": lambda path: path.write_bytes(b""),
    "dangling": lambda path: (path.unlink(), path.symlink_to("nowhere.jpg")),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken__named_once_and_replaced_by_the_next(tmp_path, caplog, kind):
    class_folders(tmp_path / "train", "ab", each=3), class_folders(tmp_path / "val", "a", each=1)
    BROKEN[kind](tmp_path / "train/a/2.jpg")
    data = prepared(tmp_path)
    for epoch in range(2):
        batches = list(data.train_dataloader()) + list(data.val_dataloader()[1])
        assert sum(len(batch["image"]) for batch in batches) == 4 + 6
        sample = data.train[Draw(epoch, 2)]
        assert (sample["index"], sample["label"]) == (2, 1)  # the label of what is shown: b/0.jpg
    assert torch.equal(data.bank[Draw(0, 2)]["image"], data.bank[Draw(0, 3)]["image"])
    (warning,) = [record for record in caplog.records if record.name.startswith("tinymim")]
    assert warning.levelno == logging.WARNING
    assert str(tmp_path / "train/a/2.jpg") in warning.getMessage()


def test_broken__the_last_is_replaced_by_the_first(tmp_path):
    class_folders(tmp_path / "train", "ab", each=2), class_folders(tmp_path / "val", "a", each=1)
    BROKEN["text"](tmp_path / "train/b/1.jpg")
    assert prepared(tmp_path).bank[Draw(0, 3)]["label"] == 0


def test_broken__two_workers(tmp_path):
    for i in range(12):
        write(tmp_path / f"images/train/{i:02}.jpg", i)
    write(tmp_path / "images/val/0.jpg")
    for i, kind in enumerate(BROKEN):
        BROKEN[kind](tmp_path / f"images/train/{i:02}.jpg")
    data = prepared(tmp_path / "images")
    logger, handler = logging.getLogger("tinymim"), logging.FileHandler(tmp_path / "log")
    logger.addHandler(handler)
    try:
        loader = DataLoader(
            data.train, 3, sampler=InTurn(12), num_workers=2, persistent_workers=True, multiprocessing_context="fork"
        )
        for _ in range(2):
            batches = list(loader)
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert [len(batch["image"]) for batch in batches] == [3, 3, 3, 3]
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(12))
    lines = (tmp_path / "log").read_text().splitlines()
    for i in range(len(BROKEN)):  # each worker that comes across it names it once
        assert 1 <= sum(f"{i:02}.jpg" in line for line in lines) <= 2
    assert not any("04.jpg" in line for line in lines)


def test_broken__too_large_to_decode(tmp_path, monkeypatch, caplog):
    for file in ["train/0.jpg", "train/1.jpg", "val/0.jpg"]:
        write(tmp_path / file)
    noise(width=400, height=400).save(tmp_path / "train/0.jpg")
    data = prepared(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50 * 50)
    assert data.train[Draw(0, 0)]["index"] == 0
    assert "0.jpg: DecompressionBombError" in caplog.text


def test_broken__a_held_out_set_without_a_readable_image_borrows_from_the_rest(tmp_path):
    for i in range(12):
        write(tmp_path / "ab"[i % 2] / f"{i}.jpg")
    data = prepared(tmp_path)
    assert len(data.held_out) == 1
    BROKEN["empty"](Path(data.held_out.folder) / os.fsdecode(data.held_out.names[0]))
    sample = data.held_out[Draw(0, 0)]
    assert sample["index"] == 0
    assert sample["image"].shape[0] == 3


def test_broken__all_of_them(tmp_path):
    for i in range(4):
        BROKEN["empty"](write(tmp_path / f"{i}.jpg"))
    data = prepared(tmp_path)
    with pytest.raises(TinymimError, match=r"4 images in a row that cannot be read") as caught:
        data.train[Draw(0, 0)]
    assert str(tmp_path) in str(caught.value)


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
    assert len(listed) == 2


# Augmentation


def epoch_of(data: ImageFolderData, epoch: int) -> dict[int, Tensor]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return {int(i): image for batch in loader for i, image in zip(batch["index"], batch["image"], strict=True)}


def test_augmentation__does_not_depend_on_workers(tmp_path):
    class_folders(tmp_path, "ab", each=9)
    options = {"held_out": 0.1, "color_jitter": 0.4, "rand_augment": "rand-m9-mstd0.5-inc1", "random_erasing": 0.5}
    alone = epoch_of(prepared(tmp_path, **options), 3)
    torch.rand(1)
    helped = epoch_of(prepared(tmp_path, num_workers=2, **options), 3)
    assert list(alone) == list(helped)
    assert len(alone) == 16
    assert all(torch.equal(alone[i], helped[i]) for i in alone)


def test_augmentation__differs_with_seed_epoch_and_index(tmp_path):
    for i in range(4):
        write(tmp_path / f"{i}.png", seed=0)  # one picture four times
    first = prepared(tmp_path).train
    image = first[Draw(1, 0)]["image"]
    assert torch.equal(prepared(tmp_path).train[Draw(1, 0)]["image"], image)
    others = [first[Draw(2, 0)], first[Draw(1, 1)], prepared(tmp_path, seed=1).train[Draw(1, 0)]]
    assert not any(torch.allclose(other["image"], image, atol=0.05) for other in others)


def test_loader__fewer_images_than_a_batch(tmp_path):
    class_folders(tmp_path, "ab", each=3)
    (batch,) = prepared(tmp_path, batch_size=128).train_dataloader()
    assert batch["image"].shape == (5, 3, SIDE, SIDE)
    assert batch["label"].dtype == batch["index"].dtype == torch.int64


@pytest.mark.parametrize("size", [(48, 40), (40, 48), (10, 10), (300, 3), (1, 1)])
@pytest.mark.parametrize("strong", [False, True])
def test_views__shape_type_and_range(size, strong):
    image = noise(1, *size)
    options = {"color_jitter": 0.9, "rand_augment": "rand-m9-mstd0.5-inc1", "random_erasing": 1.0} if strong else {}
    for view in (PlainView(SIDE), TrainView(SIDE, **options)):
        for tensor in view(image).values():
            assert tensor.shape == (3, SIDE, SIDE)
            assert tensor.dtype == torch.float32
            assert 0 <= tensor.min() <= tensor.max() <= 1


def test_jitter__shares_the_crop_and_leaves_image_alone():
    image = noise(2, 96, 80)
    for index in range(20):
        with seeded(0, 0, index):
            plain = TrainView(SIDE)(image)
        with seeded(0, 0, index):
            both = TrainView(SIDE, color_jitter=0.4)(image)
        assert plain.keys() == {"image"}
        assert torch.equal(plain["image"], both["image"])
        assert likeness(both["image"], both["jittered"]) > 0.75  # of two different crops: about 0
        assert not torch.allclose(both["image"], both["jittered"], atol=0.01)


def test_jitter__keeps_geometry_exactly():
    half = Image.new("RGB", (SIDE, SIDE), (60, 60, 60))
    half.paste((160, 160, 160), (0, 0, 11, 17))
    for index in range(10):
        with seeded(index):
            views = TrainView(SIDE, scale=(1, 1), flip=False, color_jitter=0.4)(half)
        bright = views["jittered"].mean(0)
        assert torch.equal(bright > (bright.min() + bright.max()) / 2, views["image"].mean(0) > 0.4)


def test_jitter__has_no_hue():
    image = noise(3)
    with seeded(0):
        views = TrainView(SIDE, color_jitter=0.4)(Image.new("RGB", image.size, (120, 90, 60)))
    red, green, blue = views["jittered"].mean((1, 2))
    assert red > green > blue


def test_flip__half_of_the_time_and_only_when_on():
    image = noise(4, SIDE, SIDE)
    whole = TrainView(SIDE, scale=(1, 1), flip=False)(image)["image"]

    def flipped(view: TrainView, index: int) -> bool:
        with seeded(index):
            seen = view(image)["image"]
        assert torch.equal(seen, whole) or torch.equal(seen, whole.flip(-1))
        return torch.equal(seen, whole.flip(-1))

    assert 10 < sum(flipped(TrainView(SIDE, scale=(1, 1)), i) for i in range(40)) < 30
    assert not any(flipped(TrainView(SIDE, scale=(1, 1), flip=False), i) for i in range(10))


def test_scale__bounds_the_crop():
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (256, 1))).convert("RGB")

    def width(scale: tuple[float, float], index: int) -> float:
        with seeded(index):
            row = TrainView(SIDE, scale=scale)(ramp)["image"][0].mean(0)
        return float(row.max() - row.min())

    assert max(width((0.2, 0.2), i) for i in range(20)) < 0.55  # sqrt(0.2 * 4 / 3) is 0.52
    assert min(width((0.9, 1.0), i) for i in range(20)) > 0.75


def test_erasing__one_box_for_both_views():
    image = Image.new("RGB", (SIDE, SIDE), (100, 150, 200))
    with seeded(1):
        views = TrainView(SIDE, color_jitter=0.4, random_erasing=1.0)(image)
    colour = torch.tensor([100, 150, 200]).view(3, 1, 1) / 255
    erased = ((views["image"] - colour).abs() > 1e-4).any(0)
    assert 0.015 < erased.float().mean() < 0.4
    other = views["jittered"]
    assert torch.allclose(other[:, erased], views["image"][:, erased], atol=1e-6)
    assert other[:, ~erased].std(1).max() < 1e-4


def test_rand_augment__changes_images_as_seeded():
    image, view = noise(5, SIDE, SIDE), TrainView(SIDE, (1, 1), False, rand_augment="rand-m9-mstd0.5-inc1")
    seen = []
    for index in [0, 0, 1, 2, 3]:
        with seeded(index):
            seen.append(view(image)["image"])
    assert torch.equal(seen[0], seen[1])
    assert len({tensor.numpy().tobytes() for tensor in seen}) >= 3


def test_plain__central_seven_eighths():
    image = np.zeros((64, 128, 3), np.uint8)
    image[4:60, 36:92] = 255  # 7/8 of the shorter side, in the middle
    view = PlainView(28)(Image.fromarray(image))["image"]
    assert view[:, 1:-1, 1:-1].min() > 0.95
    assert PlainView(32)(Image.fromarray(image[:, :64]))["image"].mean() < 0.95


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the old name works in all versions
def test_recipe__builds_the_class():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_subclass_arguments(ImageFolderData, "data")
    options = {"root": "~/images", "scale": [0.3, 1.0], "held_out": 0.1, "color_jitter": 0.4}
    config = {"data": {"class_path": "tinymim.data.ImageFolderData", "init_args": options}}
    data = parser.instantiate_classes(parser.parse_object(config)).data
    assert (tuple(data.scale), data.held_out_fraction, data.batch_size) == ((0.3, 1.0), 0.1, 128)
