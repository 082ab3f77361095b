import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.data.images import class_folders, noise, prepared, write
from tinymim.data.open_image import read_rgb
from tinymim.data.sampler import Draw, InTurn
from tinymim.errors import TinymimError


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
    assert sorted(line.split(":")[0][-6:] for line in lines) == [f"{i:02}.jpg" for i in range(len(BROKEN))]
    assert [path[-6:] for path in data.train.unreadable()] == [f"{i:02}.jpg" for i in range(len(BROKEN))]


def test_broken__larger_than_max_pixels(tmp_path, monkeypatch, caplog):
    for file in ["train/0.jpg", "train/1.jpg", "val/0.jpg"]:
        write(tmp_path / file)
    noise(width=400, height=400).save(tmp_path / "train/0.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50 * 50)  # Pillow's own limit decides nothing
    small, large = prepared(tmp_path, max_pixels=50 * 50), prepared(tmp_path)
    assert small.train[Draw(0, 0)]["index"] == 0
    assert "400 x 400 pixels are more than max_pixels, 2500: raise it" in caplog.text
    caplog.clear()
    assert large.train[Draw(0, 0)]["index"] == 0
    assert caplog.text == ""


def test_broken__a_held_out_set_without_a_readable_image_borrows_from_the_rest(tmp_path):
    for i in range(12):
        write(tmp_path / "ab"[i % 2] / f"{i}.jpg")
    data = prepared(tmp_path)
    assert len(data.held_out) == 1
    BROKEN["empty"](Path(data.held_out.source) / os.fsdecode(data.held_out.rows[0]))
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


def test_import__of_the_check_of_a_folder_is_light():
    code = "import sys, tinymim.data.folder_check; assert not {'torch', 'timm', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_broken__more_than_half_end_a_run(tmp_path):
    for i in range(20):
        write(tmp_path / f"{i}.jpg")
    for i in range(19):
        BROKEN["empty"](tmp_path / f"{i}.jpg")
    data = prepared(tmp_path)
    with pytest.raises(TinymimError, match=r"more than half of the 20 images of .* 11 so far, the last"):
        list(data.train_dataloader())
