import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data import images
from tinymim.data import SegmentationFolderData, segmentation_folder
from tinymim.data.sampler import Draw
from tinymim.data.segmentation_folder import Masks, SegmentationFiles
from tinymim.data.segmentation_views import UNLABELLED, CropView, WholeView, distorted, fitted
from tinymim.errors import TinymimError, own_words
from tinymim.seeds import stream


def coordinates(width: int = 120, height: int = 80) -> tuple[Image.Image, np.ndarray]:
    """An image whose red and green are twice x and y, and whose mask has a class for each 20x20 square."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    image = np.stack([2 * x, 2 * y, np.full_like(x, 7)], axis=-1)
    return Image.fromarray(image), (x // 20 + 10 * (y // 20)).astype(np.uint8)


def write(root: Path, training: int = 3, validation: int = 2) -> Path:
    """A folder in ADE20K's layout: classes 1 to 4 in quarters, and 0 in a corner."""
    for part, count in (("training", training), ("validation", validation)):
        for folder in ("images", "annotations"):
            (root / folder / part).mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng(10 * len(part) + i)
            width, height = int(rng.integers(30, 60)), int(rng.integers(30, 60))
            mask = np.kron([[1, 2], [3, 4]], np.ones((height, width), int))[::2, ::2].astype(np.uint8)
            mask[:5, :5] = 0
            image = np.stack([40 * mask] * 3, axis=-1)
            Image.fromarray(image).save(root / "images" / part / f"ADE_{part[:3]}_{i}.jpg")
            Image.fromarray(mask).save(root / "annotations" / part / f"ADE_{part[:3]}_{i}.png")
    return root


def folder_data(root: Path, **options) -> SegmentationFolderData:
    given = {"image_size": 32, "batch_size": 2, "num_workers": 0, "classes": 4, "scale": (64, 32)}
    return SegmentationFolderData(root=str(root), **{**given, **options})


def prepared(root: Path, **options) -> SegmentationFolderData:
    data = folder_data(root, **options)
    assert data.problems() == []
    data.setup("fit")
    return data


# Views


@pytest.mark.parametrize("seed", range(12))
def test_crop__image_and_mask_stay_together(seed):
    image, mask = coordinates()
    view = CropView(48, scale=(150, 100), ratio=(0.3, 1.6), distort=False)
    sample = view((image, mask), np.random.default_rng(seed))
    assert sample["image"].shape == (3, 48, 48)
    assert (sample["mask"].shape, sample["mask"].dtype) == ((48, 48), torch.int64)
    red, green, blue = sample["image"].float().numpy()
    labels = sample["mask"].numpy()
    inside = labels != UNLABELLED
    assert inside.sum() > 300
    assert (abs(blue[inside] - 7) < 1).all()
    np.testing.assert_allclose(red[~inside], 124)  # ImageNet's mean
    x, y = red / 2, green / 2
    # a pixel's class is that of the square it shows, or of the next one where the square's edge is within a pixel
    for found, place in ((labels % 10, x), (labels // 10, y)):
        near = [np.floor((place + by) / 20) for by in (-2.5, 2.5)]
        assert ((found == near[0]) | (found == near[1]))[inside].all()
    assert len(np.unique(labels[inside])) > 3


def test_crop__flips_and_sizes_vary_and_are_functions_of_the_generator():
    image, mask = coordinates()
    view = CropView(32, scale=(120, 80), distort=False)
    samples = [view((image, mask), np.random.default_rng(seed)) for seed in range(40)]
    again = [view((image, mask), np.random.default_rng(seed)) for seed in range(40)]
    for one, other in zip(samples, again, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["mask"], other["mask"])
    steps = torch.stack([s["image"][0, 5].float().diff()[4:20].mean() for s in samples])  # of red, per pixel
    assert 10 < int((steps < 0).sum()) < 30, "half of them are mirrored"
    factors = 2 / steps.abs()
    assert 0.45 < factors.min() < 0.75
    assert 1.4 < factors.max() < 2.2


def test_crop__of_one_class_is_tried_again():
    image = Image.new("RGB", (200, 40))
    mask = np.zeros((40, 200), np.uint8)
    mask[:, 100:] = 1
    mask[:20] = UNLABELLED  # has no share
    mixed, balanced = 39 / 161, 19 / 161  # of the 161 places: two classes, and neither with 3/4 or more
    for most, one_try, right in ((0.75, balanced, 1.0), (1.0, mixed, balanced / mixed)):
        view = CropView(40, scale=(200, 40), ratio=(1, 1), most=most, distort=False)
        found = [view((image, mask), np.random.default_rng(seed))["mask"] for seed in range(200)]
        shares = [float((m == 1).sum() / (m != UNLABELLED).sum()) for m in found]
        expected = right * (1 - (1 - one_try) ** 10)
        assert np.mean([0.25 < share < 0.75 for share in shares]) == pytest.approx(expected, abs=0.1)


def test_whole__keeps_its_shape_and_the_masks_size():
    image, mask = coordinates(120, 80)
    sample = WholeView((2048, 40))((image, mask), np.random.default_rng(0))
    assert sample["image"].shape == (3, 40, 60)
    assert torch.equal(sample["mask"], torch.from_numpy(mask))


@pytest.mark.parametrize(
    ("size", "expected"), [((683, 512), (683, 512)), ((300, 200), (768, 512)), ((200, 300), (512, 768))]
)
def test_fitted__short_side_512(size, expected):
    assert fitted(size, (2048, 512)) == expected


def test_fitted__a_long_image_by_its_long_side():
    assert fitted((4096, 256), (2048, 512)) == (2048, 128)


def test_distortion__changes_colours_within_its_bounds_and_not_places():
    pixels = np.full((4, 4, 3), (120, 100, 90), np.uint8)
    pixels[1, 2] = 0
    values = np.stack([distorted(pixels, np.random.default_rng(seed)) for seed in range(300)]).astype(int)
    assert (values[:, 0, 0] == values[:, 3, 3]).all()
    brightness = values[:, 0, 0].max(-1)
    assert brightness.min() < 60
    assert brightness.max() > 190
    assert (values[:, 1, 2].max(-1) <= 0.5 * 32 + 32).all()  # black has no colour to change
    unchanged = (values[:, 0, 0] == (120, 100, 90)).all(-1).mean()
    assert unchanged == pytest.approx(1 / 16, abs=0.04)


# Folders


def test_folder__classes_count_from_zero_and_zero_is_unlabelled(tmp_path):
    data = prepared(write(tmp_path))
    assert (len(data.train), len(data.held_out), data.mask_classes, data.num_classes) == (3, 2, 4, None)
    sample = data.held_out[Draw(0, 1)]
    stored = np.asarray(Image.open(tmp_path / "annotations/validation/ADE_val_1.png")).astype(int)
    assert np.array_equal(sample["mask"].numpy(), np.where(stored == 0, 255, stored - 1))
    assert sample["index"] == 1
    assert data.name_of(1) == "ADE_val_1"
    kept = prepared(tmp_path, zero_unlabelled=False, classes=5).held_out[Draw(0, 1)]["mask"]
    assert np.array_equal(kept.numpy(), stored)


def test_folder__loaders(tmp_path):
    data = prepared(write(tmp_path))
    (batch,) = data.train_dataloader()
    assert batch["image"].shape == (2, 3, 32, 32)
    assert batch["mask"].shape == (2, 32, 32)
    (loader,) = data.val_dataloader()
    whole = list(loader)
    assert [len(one["image"]) for one in whole] == [1, 1], "each in its own size"
    assert all(min(one["image"].shape[-2:]) == 32 for one in whole)


def test_folder__a_sample_is_a_function_of_seed_epoch_and_index(tmp_path):
    write(tmp_path)
    data, again, other = prepared(tmp_path), prepared(tmp_path), prepared(tmp_path, seed=1)
    sample = data.train[Draw(3, 1)]
    data.train[Draw(0, 0)]
    assert torch.equal(sample["image"], again.train[Draw(3, 1)]["image"])
    for changed in (again.train[Draw(4, 1)], other.train[Draw(3, 1)]):
        assert not torch.equal(sample["image"], changed["image"])
    image, mask = data.train.image(1)
    expected = data.train.view((image, mask), stream(0, 3, 1))
    assert torch.equal(sample["mask"], expected["mask"])


def test_folder__palettes_are_indices(tmp_path):
    write(tmp_path)
    path = tmp_path / "annotations/training/ADE_tra_0.png"
    stored = np.asarray(Image.open(path))
    coloured = Image.fromarray(stored, "P")
    coloured.putpalette([value for i in range(256) for value in (255 - i, i, 7 * i % 256)])
    coloured.save(path)
    _, mask = prepared(tmp_path).train.image(0)
    assert np.array_equal(mask, np.where(stored == 0, 255, stored - 1))


@pytest.mark.parametrize("value", [0, 255])
def test_folder__masks_without_a_labelled_pixel_are_refused(tmp_path, value):
    write(tmp_path)
    for path in (tmp_path / "annotations/validation").iterdir():
        Image.new("L", Image.open(path).size, value).save(path)
    data = folder_data(tmp_path)
    with pytest.raises(TinymimError, match=r"no pixel has a class in 2 masks of .*annotations/validation, such as ADE"):
        data.setup("fit")
    folder_data(tmp_path, zero_unlabelled=False, classes=5).setup("fit") if value == 0 else None


def test_folder__names_what_it_passes_over(tmp_path, capsys):
    write(tmp_path)
    (tmp_path / "images/training/1.tif").touch(), (tmp_path / "annotations/training/info.txt").touch()
    prepared(tmp_path)
    line = capsys.readouterr().err
    assert f"1 image of other kinds in {tmp_path}/images/training is not read (1 .tif)" in line
    assert f"1 other file in {tmp_path}/annotations/training is not read (1 .txt)" in line


def test_folder__a_broken_pair_gives_way_to_the_next_and_is_named_once(tmp_path, caplog):
    write(tmp_path, training=5)
    (tmp_path / "images/training/ADE_tra_0.jpg").write_bytes(b"no image")
    Image.new("L", (3, 3)).save(tmp_path / "annotations/training/ADE_tra_1.png")
    data = prepared(tmp_path)
    views = [data.train._read(index, lambda pair, _: {"pair": pair})[0]["pair"] for index in (0, 0, 1, 2)]
    assert all(view[0] == views[-1][0] and (view[1] == views[-1][1]).all() for view in views)
    assert len(caplog.records) == 2
    assert "cannot identify" in caplog.records[0].message
    assert "its mask has 3x3 pixels" in caplog.records[1].message


MISTAKES = {
    "image alone": ("images/training/extra.jpg", "", "1 file in .*images/training without a PNG .* such as extra"),
    "mask alone": (
        "annotations/validation/b.png",
        "",
        "1 file in .*annotations/validation without an image .* such as b",
    ),
    "jpeg mask": ("annotations/training/ADE_tra_0.jpg", "ADE_tra_0.png", "a PNG of the same name.*such as ADE_tra_0"),
}


@pytest.mark.parametrize(("added", "removed", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_folder__names_that_do_not_match_are_named(added, removed, words, tmp_path):
    write(tmp_path)
    (tmp_path / added).write_bytes(b"")
    if removed:
        (tmp_path / added).with_name(removed).unlink()
    (found,) = folder_data(tmp_path).problems()
    assert re.search(words, found)
    with pytest.raises(TinymimError, match="such as"):
        folder_data(tmp_path).setup("fit")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": 256}, r"data\.classes: 256"),
        ({"ratio": (2.0, 0.5)}, r"data\.ratio"),
        ({"most": 0.0}, r"data\.most: 0.0"),
        ({"scale": (64, 0)}, r"data\.scale"),
        ({"image_size": 0}, r"data\.image_size: 0"),
        ({"batch_size": 0}, r"data\.batch_size: 0"),
    ],
)
def test_problems__values_out_of_range(options, words, tmp_path):
    (found,) = folder_data(write(tmp_path), **options).problems()
    assert found.startswith(words.replace("\\", ""))


def test_problems__no_folder(tmp_path):
    assert "data.root is not set" in SegmentationFolderData().problems()[0]
    (tmp_path / "images/training").mkdir(parents=True)
    first, second = folder_data(tmp_path).problems()
    assert f"there is no {tmp_path}/annotations/training" in first
    assert f"there is no {tmp_path}/images/validation and no {tmp_path}/annotations/validation" in second


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (Image.new("RGB", (40, 40)), "mode RGB; a mask is a PNG with one number a pixel"),
        (Image.new("L", (40, 40), 5), "has a pixel of 5, and 4 classes are 1 to 4; see data.classes"),
    ],
)
def test_mask__that_holds_no_classes_is_an_error_and_not_passed_over(mask, words, tmp_path):
    write(tmp_path)
    size = Image.open(tmp_path / "images/training/ADE_tra_1.jpg").size
    mask.resize(size).save(tmp_path / "annotations/training/ADE_tra_1.png")
    data = prepared(tmp_path)
    with pytest.raises(TinymimError, match=words):
        data.train[Draw(0, 1)]


def test_mask__that_a_loading_process_refuses_is_told_without_traceback(tmp_path):
    write(tmp_path)
    for path in (tmp_path / "annotations/training").iterdir():
        Image.new("L", (40, 40), 9).save(path)
    with pytest.raises(TinymimError) as caught:
        next(iter(prepared(tmp_path, num_workers=1).train_dataloader()))
    assert re.fullmatch(
        r"data\.root: .*ADE_tra_\d\.png has a pixel of 9.* data\.zero_unlabelled", own_words(caught.value)
    )


def test_mask__is_read_in_few_bytes_a_pixel(tmp_path, monkeypatch):
    monkeypatch.setattr(segmentation_folder, "BAND", 1 << 14)
    values = np.random.default_rng(0).integers(0, 4, (1500, 2000)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "mask.png")
    tracemalloc.start()
    read = Masks(3, zero_unlabelled=True).read(tmp_path / "mask.png")
    (_, peak), _ = tracemalloc.get_traced_memory(), tracemalloc.stop()
    assert peak < 5 * values.size
    assert np.array_equal(read, values - np.uint8(1))  # 0 is 255, without a class


def test_mask__of_another_size_is_not_decoded(tmp_path, monkeypatch):
    images.write(tmp_path / "image.png")
    Image.new("L", (4000, 3000)).save(tmp_path / "mask.png")
    rows = np.array([[b"image.png", b"mask.png"]])
    files = SegmentationFiles(str(tmp_path), rows, None, WholeView(), masks=tmp_path, reader=Masks(3, True))
    monkeypatch.setattr(Masks, "decoded", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="its mask has 4000x3000 pixels, it 48x40"):
        files.image(0)
