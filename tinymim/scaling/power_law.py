"""Power laws L = a·x^-b + c: least-squares fits by variable projection, and their bootstrap.

For a given exponent the best a and c are a linear least-squares problem; so all exponents of a fine grid are tried, for
all resampled data at once. That needs no starting values and ends in no local minimum, unlike SciPy's curve_fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinymim.seeds import stream

Array = NDArray[np.float64]

EXPONENTS = np.geomspace(1e-3, 10, 1001)
"""Exponents that are tried, 0.9 % apart."""

PARAMETERS = 3


@dataclass(frozen=True)
class Curves:
    """R curves L = excess·(x / x0)^-b + c.

    Args:
        excess: ``(R,)`` over the floor at ``x0``; at least 0.
        b: ``(R,)`` exponents.
        c: ``(R,)`` floors, from 0 to the least loss.
        x0: the least place.
    """

    excess: Array
    b: Array
    c: Array
    x0: float

    @property
    def a(self) -> Array:
        """``(R,)`` factors of L = a·x^-b + c."""
        return self.excess * self.x0**self.b

    def at(self, x: Array) -> Array:
        """Losses at ``(n,)`` places, ``(R, n)``."""
        return self.excess[:, None] * (x / self.x0) ** -self.b[:, None] + self.c[:, None]


def fit(x: Array, losses: Array, exponents: Array = EXPONENTS) -> Curves:
    """The curve of least squares through each row of losses, among a >= 0, 0.001 <= b <= 10, 0 <= c <= the row's least.

    Args:
        x: ``(n,)`` places above 0, at least three of them different.
        losses: ``(R, n)``.
        exponents: ``(G,)`` that are tried.
    """
    z, excess, c = _linear(x, losses, exponents)
    along = losses @ z.T - c * z.sum(1)
    error = ((losses**2).sum(1, keepdims=True) - 2 * c * losses.sum(1, keepdims=True) + x.size * c**2) - excess * along
    rows, best = np.arange(len(losses)), error.argmin(1)
    return Curves(excess[rows, best], exponents[best], c[rows, best], float(x.min()))


def fit_finely(x: Array, losses: Array) -> Curves:
    """:func:`fit` of one row, ``(n,)``, with the exponent to 1e-5 of itself."""
    b = float(fit(x, losses[None]).b[0])
    step = np.log(EXPONENTS[1] / EXPONENTS[0])
    closer = (b * np.exp(np.linspace(-step, step, 2001))).clip(EXPONENTS[0], EXPONENTS[-1])
    z, excess, c = _linear(x, losses[None], closer)
    # Between neighbours this fine, fit's sums differ by less than their rounding, which is the processor's.
    best = ((losses - excess[0, :, None] * z - c[0, :, None]) ** 2).sum(1).argmin()
    return Curves(excess[:, best], closer[[best]], c[:, best], float(x.min()))


def _linear(x: Array, losses: Array, exponents: Array) -> tuple[Array, Array, Array]:
    """``(G, n)`` powers of the places, in (0, 1], and the best ``(R, G)`` excesses and floors of each exponent."""
    z = (x / x.min()) ** -exponents[:, None]
    mean, centred = z.mean(1), z - z.mean(1, keepdims=True)
    free = losses.mean(1, keepdims=True) - losses @ centred.T / (centred**2).sum(1) * mean
    c = np.minimum(free.clip(min=0), losses.min(1, keepdims=True))  # the error is convex in it
    return z, (losses @ z.T - c * z.sum(1)) / (z**2).sum(1), c


def resample(curve: Curves, x: Array, losses: Array, count: int, seed: int = 0) -> Curves:
    """Fits to ``count`` sets of losses: those of ``curve``, each with a residual of it drawn with replacement.

    Residuals, and not pairs of place and loss, because places are chosen and few: many draws of five pairs have too few
    places for a fit. They are made larger by sqrt(n / (n - 3)), since three numbers were fitted to them. ``curve`` is
    :func:`fit_finely`'s of places ``x`` and ``losses``, ``(n,)`` each.
    """
    fitted = curve.at(x)[0]
    residuals = (losses - fitted) * np.sqrt(x.size / max(x.size - PARAMETERS, 1))
    drawn = stream(seed).choice(residuals - residuals.mean(), (count, x.size))
    exponents = np.append(EXPONENTS, curve.b)  # without its own, no draw could be the curve itself
    return fit(x, (fitted + drawn).clip(min=0), exponents)
