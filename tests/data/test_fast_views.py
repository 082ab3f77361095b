"""The fast way from file to view shows what torchvision's ImageFolder pipeline shows."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from tinymim.data import decode
from tinymim.data.decode import decoded, resized_crop
from tinymim.data.device_augment import colours, crop_box, erased_box
from tinymim.data.open_image import open_image
from tinymim.data.transforms import PlainView
from tinymim.seeds import stream


def picture(width: int, height: int, grain: float, seed: int = 0) -> Image.Image:
    """Smooth colours, two edges, and a film's grain of so many grey levels."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    values = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), float)
    values[height // 3 :, width // 2 :] += 50
    return Image.fromarray((values + rng.normal(0, grain, (height, width, 1))).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **({"quality": 90} | options))
    return file.getvalue()


def reference(data: bytes, box: decode.Box, size: int) -> np.ndarray:
    """What torchvision makes of a PIL image: a crop, then Pillow's bicubic."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.crop(box).resize((size, size), Image.Resampling.BICUBIC), float)


def off(data: bytes, box: decode.Box, size: int, scale: int = 1) -> float:
    """Mean absolute difference in grey levels, of the box with its edges rounded as by a decoding at 1/scale."""
    view = resized_crop(open_image(data), box, size)
    assert (view.shape, view.dtype) == ((3, size, size), torch.uint8)
    left, top, right, bottom = (scale * round(edge / scale) for edge in box)
    expected = reference(data, (left, top, right, bottom), size)
    return float(np.abs(view.permute(1, 2, 0).numpy() - expected).mean())


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": "4:4:4"}, {"progressive": True}, {"quality": 30}, {"restart_marker_rows": 1}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_decoded__equals_pillow_bit_for_bit(options, mode):
    data = encoded(picture(101, 67, 30).convert(mode), **options)
    shown, scale = decoded(open_image(data))
    assert scale == 1
    assert np.array_equal(shown.permute(1, 2, 0), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_decoded__is_the_same_without_torchvisions_decoder(monkeypatch):
    data = encoded(picture(101, 67, 30))
    one = decoded(open_image(data))[0]
    monkeypatch.setattr(decode, "decode_jpeg", None)
    assert torch.equal(decoded(open_image(data))[0], one)


@pytest.mark.parametrize("grain", [0, 40])
@pytest.mark.parametrize("box", [(0, 0, 150, 120), (31, 17, 140, 101), (5, 5, 45, 30)])
def test_view__without_scaling_is_pillows_but_for_rounding(grain, box):
    assert off(encoded(picture(150, 120, grain)), box, 64) < 0.02


# what libjpeg's scaled DCT may change, in grey levels of 255
@pytest.mark.parametrize(("grain", "most"), [(0, 0.5), (4, 0.6), (10, 1.2)])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_view__of_a_large_image_is_decoded_smaller_without_visible_loss(grain, most, scale, monkeypatch):
    data = encoded(picture(720, 600, grain))
    scales = []
    monkeypatch.setattr(decode, "decoded", lambda *given: (out := decoded(*given), scales.append(out[1]))[0])
    size = 384 // scale
    assert off(data, (67, 21, 67 + 576, 21 + 577), size, scale) < most
    assert off(data, (67, 21, 67 + 575, 21 + 577), size, scale // 2) < most
    assert scales == [scale, scale // 2]


def test_view__of_other_formats_and_of_an_image_in_memory():
    image = picture(150, 120, 10)
    file = io.BytesIO()
    image.convert("RGBA").save(file, "PNG")
    box = (10, 20, 120, 110)
    expected = np.asarray(image.crop(box).resize((32, 32), Image.Resampling.BICUBIC), int)
    for source in (open_image(file.getvalue()), image):
        shown = resized_crop(source, box, 32).permute(1, 2, 0).numpy().astype(int)
        assert np.abs(shown - expected).max() <= 1


@pytest.mark.parametrize("size", [(150, 120), (120, 150), (64, 64), (40, 30)])
def test_plain_view__is_torchvisions_resize_and_centre_crop(size):
    image = picture(*size, 20)
    steps = [v2.Resize(64, v2.InterpolationMode.BICUBIC), v2.CenterCrop(56)]
    expected = np.asarray(v2.Compose(steps)(image), int)
    shown = PlainView(56)(image)["image"].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(shown - expected).max() <= 1


def moments(rows: list) -> np.ndarray:
    """Means and standard deviations of each column, and its range."""
    table = np.array(rows, float)
    return np.concatenate([table.mean(0), table.std(0)])


@pytest.mark.parametrize("size", [(500, 400), (90, 400), (30, 30), (400, 90)])
def test_crop_box__has_torchvisions_distribution(size):
    image, count = Image.new("L", size), 3000
    torch.manual_seed(0)
    drawn = [v2.RandomResizedCrop(1, (0.2, 1.0)).make_params([image]) for _ in range(count)]
    theirs = [(d["left"], d["top"], d["left"] + d["width"], d["top"] + d["height"]) for d in drawn]
    ours = [crop_box(stream(0, i), size, (0.2, 1.0)) for i in range(count)]
    assert all(0 <= left < right <= size[0] and 0 <= top < bottom <= size[1] for left, top, right, bottom in ours)
    assert np.abs(moments(theirs) - moments(ours)).max() < 0.025 * max(size)  # four standard errors and more


def test_erased_box__has_torchvisions_distribution():
    count, size = 3000, 64
    torch.manual_seed(0)
    eraser, image = v2.RandomErasing(1.0), torch.zeros(3, size, size)
    drawn = [eraser.make_params([image]) for _ in range(count)]
    theirs = [(d["j"], d["i"], d["j"] + d["w"], d["i"] + d["h"]) for d in drawn if d["v"] is not None]
    ours = [erased_box(stream(0, i), size, 1.0)[:4] for i in range(count)]
    ours = [box for box in ours if box[2]]
    assert abs(len(ours) - len(theirs)) < 0.03 * count
    assert np.abs(moments(theirs) - moments(ours)).max() < 0.03 * size
    assert 0.2 < np.mean([erased_box(stream(1, i), size, 0.25)[2] > 0 for i in range(1000)]) < 0.3


def test_colours__are_three_changes_in_every_order():
    drawn = np.array([colours(stream(0, i), 0.4) for i in range(600)])
    orders, counts = np.unique(drawn[..., 0], axis=0, return_counts=True)
    assert sorted(map(tuple, orders)) == [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    assert counts.min() > 60
    assert 0.6 <= drawn[..., 1].min() < 0.62 < 1.38 < drawn[..., 1].max() <= 1.4
    assert colours(stream(0), 3.0)[:, 1].min() >= 0
