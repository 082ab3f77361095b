"""Batches of loaders that are not the project's, in its form."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tinymim.data.own_batches import as_samples
from tinymim.errors import TinymimError

IMAGES = torch.rand(4, 3, 8, 8)
LABELS = torch.arange(4)


@pytest.mark.parametrize(
    ("batch", "keys"),
    [
        (IMAGES, {"image", "index"}),
        ((IMAGES,), {"image", "index"}),
        ([IMAGES, LABELS], {"image", "index", "label"}),
        ((IMAGES, torch.rand(4, 3, 8, 8)), {"image", "index"}),  # a second view is no label
        ({"image": IMAGES, "label": LABELS, "index": LABELS + 7}, {"image", "index", "label"}),
        ({"pixel_values": IMAGES}, {"image", "index"}),
    ],
)
def test_batch__has_images_first_or_named(batch: Any, keys: set[str]) -> None:
    sample = as_samples(batch)
    assert sample.keys() == keys
    assert sample["image"] is IMAGES
    assert sample["index"].tolist() == ([7, 8, 9, 10] if isinstance(batch, dict) and "label" in batch else [0, 1, 2, 3])


def test_bytes__become_floats() -> None:
    image = as_samples(torch.full((1, 3, 2, 2), 51, dtype=torch.uint8))["image"]
    assert torch.allclose(image, torch.tensor(0.2))


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (IMAGES * 4 - 2, r"values from -\d.* leave Normalize out"),
        (LABELS, r"holds \(4,\) where images"),
        (IMAGES * 255, r"^data: images: values from .* divide by 255$"),
        (IMAGES / 0, r"^data: images: 768 of 768 values are NaN or infinite; give floats in \[0, 1\]$"),
        (
            torch.rand(4, 1, 8, 8),
            r"holds \(4, 1, 8, 8\) .* belong; grey .* images.expand\(-1, 3, -1, -1\)$",
        ),
        (torch.rand(4, 8, 8, 3), r"belong; channels that come last come second by images.movedim\(-1, 1\)$"),
        (IMAGES[0], r"belong; one image is a batch as images\[None\]$"),
        (torch.rand(4, 4, 8, 8), r"belong: give them alone, first in a tuple"),
        ({"pixels": IMAGES}, "holds dict where images"),
        ((["a", "b"], LABELS), "holds list where images"),
        (IMAGES.numpy(), r"holds ndarray where images \(B, 3, H, W\) belong: torch.from_numpy makes a tensor of"),
        ([*IMAGES.numpy()], "holds ndarray where images .* the default collate_fn a batch of all of them"),
        ([IMAGES.numpy(), LABELS.numpy()], "holds ndarray where"),
        ({"image": IMAGES.numpy()}, "holds ndarray where"),
        ({"pixels": IMAGES.numpy()}, "holds dict where images .* under 'image'"),
    ],
)
def test_other_batches__are_refused(batch: Any, says: str) -> None:
    with pytest.raises(TinymimError, match=says):
        as_samples(batch)
