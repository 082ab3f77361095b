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
        (torch.rand(4, 1, 8, 8), r"holds \(4, 1, 8, 8\) where images"),
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
