"""Corruptions made on the fly."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.data.images import noise
from tinymim.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, strength

RANDOM = {"gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "fog", "elastic", "occlusion"}


def picture(size: int, seed: int = 0) -> Tensor:
    pixels = np.asarray(noise(seed, size, size), dtype=np.float32).transpose(2, 0, 1) / 255
    return torch.from_numpy(pixels)


@pytest.fixture(scope="module")
def image() -> Tensor:
    return picture(32)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupt__is_a_function_of_name_severity_and_index(name: str, image: Tensor) -> None:
    before = image.clone()
    first = corrupt(image, name, 3, 5)
    torch.manual_seed(1), np.random.seed(1)
    assert torch.equal(corrupt(image, name, 3, 5), first)
    assert torch.equal(image, before), "the image is left as it was"
    assert torch.equal(corrupt(image, name, 3, 6), first) == (name not in RANDOM)
    assert not torch.equal(corrupt(image, name, 4, 5), first)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [16, 32, 224])
def test_corrupt__gives_an_image_of_256_values(name: str, size: int) -> None:
    out = corrupt(picture(size), name, 5, 0)
    assert (out.shape, out.dtype) == ((3, size, size), torch.float32)
    assert 0 <= float(out.min()) <= float(out.max()) <= 1
    torch.testing.assert_close(out * 255, (out * 255).round())


# saturate takes colour away, then adds it; a thicker fog may be a smoother one
@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"saturate", "fog"}))
@pytest.mark.parametrize("size", [32, 224])
def test_corrupt__changes_more_with_severity(name: str, size: int) -> None:
    images = [picture(size, seed) for seed in range(3 if size == 32 else 1)]
    distances = [
        sum(float((corrupt(one, name, severity, 0) - one).square().mean()) for one in images) for severity in SEVERITIES
    ]
    assert distances[0] > 0
    assert distances == sorted(distances)


def test_strength__is_the_published_one_at_both_sizes() -> None:
    table = ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38))
    for row, size in zip(table, (32, 224), strict=True):
        assert [strength(table, severity, size) for severity in SEVERITIES] == pytest.approx(row)
    assert 0.08 < strength(table, 3, 64) < strength(table, 3, 128) < 0.18


def noise_of(name: str, severity: int) -> Tensor:
    grey = torch.full((3, 224, 224), 0.5)
    return corrupt(grey, name, severity, 0) - grey


def test_noises__have_the_published_strength() -> None:
    assert float(noise_of("gaussian_noise", 1).std()) == pytest.approx(0.08, rel=0.02)
    assert float(noise_of("shot_noise", 2).std()) == pytest.approx((0.5 / 25) ** 0.5, rel=0.02)  # of Poisson's variance
    hit = noise_of("impulse_noise", 4).abs() > 0.4
    assert float(hit.float().mean()) == pytest.approx(0.17, rel=0.03)


@pytest.mark.parametrize("name", ["defocus_blur", "gaussian_blur", "motion_blur"])
def test_blurs__keep_the_mean_and_lose_detail(name: str) -> None:
    image = torch.zeros(3, 64, 64)
    image[:, 31:33, 31:33] = 1
    out = CORRUPTIONS[name](image, 5, np.random.default_rng(0))
    assert float(out.sum()) == pytest.approx(float(image.sum()), rel=0.02)
    assert float(out.max()) < 0.9
    assert not torch.equal(out[:, 30], image[:, 30])


def pixels(image: Tensor) -> list[tuple[float, ...]]:
    return [tuple(column) for column in image.flatten(1).T.tolist()]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_and_saturate__as_hsv_has_them(severity: int) -> None:
    image = picture(224)[:, ::37, ::37].clone()
    image[:, 0, 0] = 0.5  # grey
    wide = torch.nn.functional.interpolate(image[None], size=[224, 224])[0]  # the strengths are of 224 pixels
    more = (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]
    factor, added = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
    bright, vivid = (corrupt(wide, name, severity, 0)[:, ::32, ::32] for name in ("brightness", "saturate"))
    old = pixels(wide[:, ::32, ::32])
    for (r, g, b), raised, coloured in zip(old, pixels(bright), pixels(vivid), strict=True):
        h, s, v = colorsys.rgb_to_hsv(r, g, b)
        assert raised == pytest.approx(colorsys.hsv_to_rgb(h, s, min(v + more, 1)), abs=0.003)
        assert coloured == pytest.approx(colorsys.hsv_to_rgb(h, min(s * factor + added, 1), v), abs=0.003)


def test_contrast_pixelate_and_jpeg__by_hand() -> None:
    image = picture(224)
    mean = image.mean((1, 2), keepdim=True)
    torch.testing.assert_close(corrupt(image, "contrast", 2, 0), mean + 0.3 * (image - mean), atol=0.003, rtol=0)
    shown = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
    small = shown.resize((67, 67), Image.Resampling.BOX).resize((224, 224), Image.Resampling.BOX)  # 0.3 of 224
    assert np.array_equal(small, (corrupt(image, "pixelate", 4, 0) * 255).round().permute(1, 2, 0).numpy())
    with io.BytesIO() as stored:
        shown.save(stored, "JPEG", quality=18)
        expected = np.asarray(Image.open(stored))
    assert np.array_equal(expected, (corrupt(image, "jpeg", 2, 0) * 255).round().permute(1, 2, 0).numpy())


def test_occlusion__covers_its_share(image: Tensor) -> None:
    dark = torch.zeros(3, 100, 100)
    assert float((corrupt(dark, "occlusion", 5, 0) > 0).float().mean()) == pytest.approx(0.3, abs=0.01)
