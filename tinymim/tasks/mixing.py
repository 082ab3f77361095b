"""Mixup and cutmix that do not depend on how processes share the images of a step."""

from __future__ import annotations

import torch
from timm.data import Mixup
from timm.data.mixup import mixup_target
from torch import Tensor


def mixed(mix: Mixup, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """timm's mixup and cutmix of images 1 and 2, 3 and 4, and so on, which stay together however processes share the
    images of a step; timm mixes a batch with its reverse.

    Args:
        mix: changes its batch in place; it gets a copy.
        images: ``(B, 3, H, W)``; the last of an odd number stays as it is.
        target: ``(B,)`` classes.

    Returns:
        Images, and soft targets ``(B, classes)``, in the order they came in.
    """
    if len(images) % 2:
        alone = mixup_target(target[-1:], mix.num_classes, smoothing=mix.label_smoothing)[:1]
        if len(images) == 1:
            return images, alone
        others, targets = mixed(mix, images[:-1], target[:-1])
        return torch.cat([others, images[-1:]]), torch.cat([targets, alone])
    order = torch.tensor([*range(0, len(images), 2), *range(len(images) - 1, 0, -2)], device=images.device)
    images, target = mix(images[order], target[order])
    back = order.argsort()
    return images[back], target[back]
