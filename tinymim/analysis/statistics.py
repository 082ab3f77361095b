"""Mean and standard deviation of numbers that come in batches."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Mean and standard deviation over images, in float64, whatever the batches (Chan, Golub and LeVeque 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.zeros(())
        self._squares = torch.zeros(())

    def add(self, values: Tensor) -> None:
        """``(B, ...)``, one row an image; the rest as in every batch."""
        values = values.double().cpu()
        mean, before = values.mean(0), self.count
        self.count += len(values)
        step = mean - self._mean
        self._mean = self._mean + step * (len(values) / self.count)
        self._squares = self._squares + (values - mean).square().sum(0) + step**2 * (before * len(values) / self.count)

    @property
    def mean(self) -> Tensor:
        """Mean over all images, in the shape of one image's values."""
        return self._mean

    @property
    def sd(self) -> Tensor:
        """Standard deviation over all images, with n - 1 in the denominator: nan for one image."""
        return (self._squares / (self.count - 1 or torch.nan)).sqrt()
