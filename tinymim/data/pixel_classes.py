"""Classes of pixels: the mark of those without one, and the loss of predicting the others."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

UNLABELLED = 255
"""In a mask, a pixel without class: no loss, no figure."""


def pixel_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy summed over the labelled pixels and divided by the number of all, as mmsegmentation has it.

    So images weigh the same in whatever batches they come, and a batch without labelled pixels has no loss.

    Args:
        logits: ``(B, classes, H, W)``.
        mask: ``(B, H, W)`` classes, :data:`UNLABELLED` where there is none.
    """
    return F.cross_entropy(logits.float(), mask, ignore_index=UNLABELLED, reduction="sum") / mask.numel()
