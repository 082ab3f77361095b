"""Mixup and cutmix that do not depend on how processes share the images of a step."""

from __future__ import annotations

import torch
from timm.data import Mixup
from torch import Tensor


def mixed(mix: Mixup, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """timm's mixup and cutmix of images 1 and 2, 3 and 4, and so on, which stay together however processes share the
    images of a step; timm mixes a batch with its reverse.

    Args:
        mix: changes its batch in place; it gets a copy.
        images: ``(B, 3, H, W)``, B even.
        target: ``(B,)`` classes.

    Returns:
        Images, and soft targets ``(B, classes)``, in the order they came in.
    """
    order = torch.tensor([*range(0, len(images), 2), *range(len(images) - 1, 0, -2)], device=images.device)
    images, target = mix(images[order], target[order])
    back = order.argsort()
    return images[back], target[back]
