"""Dense predictions on images of any size by a network that takes one: a window slides over the image."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def slide(
    predict: Callable[[Tensor], Tensor], images: Tensor, window: int, stride: int, fill: Tensor | float = 0.0
) -> Tensor:
    """The mean of what ``predict`` says of each pixel in the windows that show it.

    As mmsegmentation has it: windows begin ``stride`` apart, and the last ones end at the image's edge.

    Args:
        predict: from ``(B, 3, window, window)`` to ``(B, C, window, window)``.
        images: ``(B, 3, H, W)``; sides shorter than the window are lengthened, to the right and below.
        window: side, in pixels.
        stride: in pixels.
        fill: the colour of what is added, ``(3, 1, 1)``; nothing is returned of it.

    Returns:
        ``(B, C, H, W)``.
    """
    height, width = images.shape[-2:]
    lack = (0, max(window - width, 0), 0, max(window - height, 0))
    images = F.pad(images - fill, lack) + fill if any(lack) else images
    rows, columns = (_starts(side, window, stride) for side in images.shape[-2:])
    total: Tensor | None = None
    for top in rows:
        for left in columns:
            box = (..., slice(top, top + window), slice(left, left + window))
            seen = predict(images[box]).float()
            if total is None:
                total = seen.new_zeros(*seen.shape[:2], *images.shape[-2:])
                count = seen.new_zeros(images.shape[-2:])
            total[box] += seen
            count[box] += 1
    assert total is not None
    return (total / count)[..., :height, :width]


def _starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side."""
    last = side - window
    return sorted({min(start, last) for start in range(0, last + stride, stride)})
