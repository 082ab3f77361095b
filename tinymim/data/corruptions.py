"""Corruptions made on the fly: the families of ImageNet-C (Hendrycks & Dietterich, arXiv 1903.12261), and occlusion.

A corrupted image is a function of (name, severity, index) and the image. The strengths are the published ones of
CIFAR-10-C at 32 pixels and of ImageNet-C at 224 where nothing else is said, and geometric between and beyond. Some
follow the idea with another algorithm, so figures are not comparable with those on the published files.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from tinymim.seeds import stream

SEVERITIES = (1, 2, 3, 4, 5)

Table = tuple[tuple[float, ...], tuple[float, ...]]
"""Strengths of the five severities at 32 pixels and at 224."""


def corrupt(image: Tensor, name: str, severity: int, index: int) -> Tensor:
    """One of :data:`CORRUPTIONS`.

    Args:
        image: ``(3, S, S)`` in [0, 1].
        name: of the corruption.
        severity: 1 to 5.
        index: of the image in its set, which anything random follows.

    Returns:
        ``(3, S, S)`` in [0, 1], rounded to the 256 values of a stored image.
    """
    rng = stream(zlib.crc32(name.encode()), severity, index)
    changed = CORRUPTIONS[name](image, severity, rng)
    return (changed.clamp(0, 1) * 255).round() / 255


def strength(table: Table, severity: int, size: int) -> float:
    """The strength at ``severity`` for images of ``size`` pixels."""
    small, large = (row[severity - 1] for row in table)
    along = math.log(size / 32) / math.log(224 / 32)
    return small * (large / small) ** along


def gaussian_noise(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Normal noise in each channel."""
    sigma = strength(((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)), severity, image.shape[-1])
    return image + sigma * _normal(rng, image.shape)


def shot_noise(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Poisson noise of so many photons at white."""
    photons = strength(((500, 250, 100, 75, 50), (60, 25, 12, 5, 3)), severity, image.shape[-1])
    return torch.from_numpy(rng.poisson(image.numpy() * photons) / photons).float()


def impulse_noise(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Salt and pepper on a share of the values."""
    share = strength(((0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)), severity, image.shape[-1])
    dice = torch.from_numpy(rng.random(image.shape))
    return torch.where(dice < share / 2, 0.0, torch.where(dice < share, 1.0, image))


def defocus_blur(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """A disc of a lens out of focus."""
    size = image.shape[-1]
    radius = strength(((0.7, 0.9, 1.1, 1.4, 1.8), (3, 4, 6, 8, 10)), severity, size)  # at 32 with the published blur
    return _convolve(image, _kernel(radius + 1, lambda x, y: np.hypot(x, y) <= radius))


def gaussian_blur(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """A Gaussian."""
    sigma = strength(((0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6)), severity, image.shape[-1])
    return V.gaussian_blur(image, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma])


def motion_blur(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """A streak in a random direction within 45 degrees of the horizontal."""
    length = strength(((2.5, 3.5, 4.5, 5.5, 7), (10, 15, 20, 27, 36)), severity, image.shape[-1])  # ours, by eye
    angle = rng.uniform(-math.pi / 4, math.pi / 4)
    cos, sin = math.cos(angle), math.sin(angle)

    def inside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (np.abs(cos * x + sin * y) <= length / 2) & (np.abs(cos * y - sin * x) <= 0.5)

    return _convolve(image, _kernel(length / 2 + 1, inside))


def zoom_blur(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """The mean of ever larger views of the middle."""
    most = strength(((0.05, 0.10, 0.15, 0.20, 0.25), (0.10, 0.15, 0.20, 0.25, 0.30)), severity, image.shape[-1])
    zooms = torch.linspace(1, 1 + most, 11)
    maps = torch.zeros(len(zooms), 2, 3)
    maps[:, 0, 0] = maps[:, 1, 1] = 1 / zooms
    views = image.expand(len(zooms), -1, -1, -1)
    grid = F.affine_grid(maps, list(views.shape), align_corners=False)
    return F.grid_sample(views, grid, padding_mode="border", align_corners=False).mean(0)


def fog(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """A bright cloud of all sizes over the image, which is dimmed to its old maximum."""
    thick = strength(((0.2, 0.5, 0.75, 1.0, 1.5), (1.5, 2.0, 2.5, 2.5, 3.0)), severity, image.shape[-1])
    rough = strength(((3, 3, 2.5, 2, 1.75), (2, 2, 1.7, 1.5, 1.4)), severity, image.shape[-1])
    white = float(image.max())
    return (image + thick * _cloud(image.shape[-1], rough, rng)) * white / (white + thick)


def brightness(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """More value, of hue, saturation and value."""
    more = strength(((0.05, 0.10, 0.15, 0.20, 0.30), (0.1, 0.2, 0.3, 0.4, 0.5)), severity, image.shape[-1])
    value = image.amax(0, keepdim=True)
    raised = (value + more).clamp(max=1)
    return torch.where(value > 0, image * raised / value.clamp(min=1e-6), raised)


def contrast(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Less of it, around the mean of each channel."""
    kept = strength(((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)), severity, image.shape[-1])
    mean = image.mean((1, 2), keepdim=True)
    return (image - mean) * kept + mean


def saturate(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Less saturation (severities 1 and 2), or more; grey stays grey but for a tint at 4 and 5."""
    factor = strength(((0.3, 0.1, 1.5, 2.0, 2.5), (0.3, 0.1, 2.0, 5.0, 20.0)), severity, image.shape[-1])
    added = (0, 0, 0, 0.1, 0.2)[severity - 1]
    value, least = image.amax(0, keepdim=True), image.amin(0, keepdim=True)
    spread = value - least
    wanted = (spread / value.clamp(min=1e-6) * factor + added).clamp(max=1)
    grey = spread < 1e-6
    below = torch.where(grey, torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1), (value - image) / spread.clamp(min=1e-6))
    return value * (1 - wanted * below)  # a grey pixel counts as red, whose hue is 0


def elastic(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Every place moves a little its own way, and neighbours together."""
    size = image.shape[-1]
    shift = (0.008, 0.014, 0.02, 0.026, 0.032)[severity - 1]  # of the side, in standard deviations; ours, by eye
    field = F.interpolate(_normal(rng, (1, 2, 6, 6)), size=[size, size], mode="bicubic", align_corners=False)
    grid = F.affine_grid(torch.eye(2, 3)[None], [1, 3, size, size], align_corners=False)  # its side is 2
    grid = grid + field.permute(0, 2, 3, 1) * (2 * shift)
    return F.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]


def pixelate(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Fewer pixels, blown up."""
    size = image.shape[-1]
    share = strength(((0.8, 0.65, 0.5, 0.4, 0.3), (0.6, 0.5, 0.4, 0.3, 0.25)), severity, size)  # at 32 ours, by eye
    small = _picture(image).resize([max(1, round(size * share))] * 2, Image.Resampling.BOX)
    return _tensor(small.resize((size, size), Image.Resampling.BOX))


def jpeg(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Compressed at a low quality."""
    quality = strength(((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)), severity, image.shape[-1])
    with io.BytesIO() as stored:
        _picture(image).save(stored, "JPEG", quality=max(1, round(quality)))
        return _tensor(Image.open(stored))


def occlusion(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """A grey square somewhere, of a twentieth to three tenths of the area; not of ImageNet-C."""
    size = image.shape[-1]
    side = round(size * math.sqrt((0.05, 0.1, 0.15, 0.22, 0.3)[severity - 1]))
    top, left = rng.integers(0, size - side + 1, size=2)
    changed = image.clone()
    changed[:, top : top + side, left : left + side] = 0.5
    return changed


CORRUPTIONS: dict[str, Callable[[Tensor, int, np.random.Generator], Tensor]] = {
    function.__name__: function
    for function in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        defocus_blur,
        gaussian_blur,
        motion_blur,
        zoom_blur,
        fog,
        brightness,
        contrast,
        saturate,
        elastic,
        pixelate,
        jpeg,
        occlusion,
    )
}
"""By name."""


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def _kernel(reach: float, inside: Callable[[np.ndarray, np.ndarray], np.ndarray], fine: int = 8) -> Tensor:
    """A form that ends within ``reach`` pixels, as weights ``(K, K)`` that sum to 1; each pixel is looked at in
    ``fine`` x ``fine`` places, so that sizes between whole pixels differ."""
    half = math.ceil(reach)
    places = (np.arange((2 * half + 1) * fine) + 0.5) / fine - half - 0.5
    form = inside(places[None, :], places[:, None]).astype(np.float32)
    weights = form.reshape(2 * half + 1, fine, 2 * half + 1, fine).mean((1, 3))
    return torch.from_numpy(weights / weights.sum())


def _convolve(image: Tensor, kernel: Tensor) -> Tensor:
    half = len(kernel) // 2
    mode = "reflect" if half < image.shape[-1] else "replicate"
    padded = F.pad(image[None], [half] * 4, mode=mode)
    return F.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)[0]


def _cloud(size: int, rough: float, rng: np.random.Generator) -> Tensor:
    """``(1, size, size)`` in [0, 1]: noise of all scales, each ``rough`` times weaker than the one twice as coarse."""
    cloud, weight, cells = torch.zeros(1, 1, size, size), 1.0, 2
    while cells <= size:
        cloud += weight * F.interpolate(_normal(rng, (1, 1, cells, cells)), size=[size, size], mode="bicubic")
        weight, cells = weight / rough, cells * 2
    cloud -= cloud.min()
    return (cloud / cloud.max())[0]


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / 255)


@dataclass
class Corruptions:
    """Corruptions under which `tinymim test` shows the held-out images, beside showing them as they are.

    Args:
        names: of the corruptions in :data:`CORRUPTIONS`; ``None`` is all of them.
        severities: from 1 to 5.
        baseline: a fine-tuned checkpoint whose errors the classifier's are divided by.
    """

    names: list[str] | None = None
    severities: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    baseline: str | None = None

    def problems(self) -> list[str]:
        """Unknown names and severities."""
        choices: dict[str, tuple[list[Any] | None, list[Any]]] = {
            "names": (self.names, list(CORRUPTIONS)),
            "severities": (self.severities, list(SEVERITIES)),
        }
        return [
            f"corruptions.{key}: {value} is not a list of some of {', '.join(map(str, known))}"
            for key, (value, known) in choices.items()
            if value is not None and (not value or not set(value) <= set(known))
        ]
