"""Images that no network can take are refused in a line that says what would be right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tinymim.errors import TinymimError
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone

SIZES = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
NETWORK = Backbone(Architecture(options=SIZES)).eval()


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.rand(2, 1, 16, 16), r"\(2, 1, 16, 16\) has 1 channel; .* grey .* images.expand\(-1, 3, -1, -1\)"),
        (torch.rand(2, 4, 16, 16), r"^images: \(2, 4, .* has 4 channels; give \(B, 3, H, W\) of floats in \[0, 1\]$"),
        (torch.rand(2, 16, 16, 3), r"has 16 channels; .* images.movedim\(-1, 1\)"),
        (torch.rand(3, 16, 16), r"images: \(3, 16, 16\) has 3 dimensions; .* images\[None\]"),
        (torch.rand(16), r"images: \(16,\) has 1 dimension; give \(B, 3, H, W\) of floats in \[0, 1\]$"),
        (torch.zeros(2, 3, 16, 16).byte(), "images: uint8 are no floats; .* images / 255"),
        (torch.zeros(2, 3, 16, 16).long(), "images: int64 are no floats; .*1]$"),
        (torch.zeros(2, 3, 16, 16).double(), r"float64, and the network has float32; give images.to\(torch.float32"),
        (np.zeros((2, 3, 16, 16), np.float32), r"numpy.ndarray is no tensor; give torch.from_numpy\(images\), \(B, 3"),
        (255 * torch.rand(2, 3, 16, 16), r"^images: values from .*, and they are to be in \[0, 1\]; divide by 255$"),
        (torch.rand(2, 3, 16, 16) - 1, "; leave Normalize out of the transforms, as each network normalises by"),
        (torch.full((1, 3, 16, 16), torch.nan), r"^images: 768 of 768 values are NaN or infinite; give floats"),
        ([0.0], "builtins.list is no tensor; give a torch.Tensor"),
    ],
)  # fmt: skip
def test_images__of_other_forms_are_refused(images: Any, says: str) -> None:
    with pytest.raises(TinymimError, match=says):
        NETWORK.features(images)


@torch.no_grad()
def test_images__of_any_size_and_number_are_read() -> None:
    for images in (torch.rand(2, 3, 15, 33), torch.rand(0, 3, 16, 16), torch.rand(1, 3, 16, 16).half()):
        assert NETWORK.features(images).shape == (len(images), 8)
    assert NETWORK.double().features(torch.rand(1, 3, 16, 16).double()).dtype == torch.float64
    NETWORK.float()


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_images__that_are_traced_or_mapped_have_no_values_to_look_at() -> None:
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected = NETWORK(images)
        exported = torch.export.export(NETWORK, (images,)).module()
        torch.testing.assert_close(exported(images), expected)
        one_by_one = torch.vmap(lambda image: NETWORK(image[None])[0])(images)
        torch.testing.assert_close(one_by_one, expected)
