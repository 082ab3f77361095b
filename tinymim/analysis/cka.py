"""Linear CKA between blocks, of one network or of two: the unbiased estimator, averaged over minibatches.

CKA (Kornblith et al., arXiv 1905.00414) compares two representations of the same images by how alike they find the
images among each other, that is, by the ``(B, B)`` Gram matrices of a batch; so widths, depths and patch grids may
differ. The estimator is that of Nguyen et al. (arXiv 2010.15327, eq. 2-3): with HSIC_1, unbiased (Song et al., JMLR 13,
2012), of the Gram matrices K and L,

    CKA = mean HSIC_1(K, L) / sqrt(mean HSIC_1(K, K) · mean HSIC_1(L, L)),   means over minibatches,

so that a batch need not be large, and nothing grows with the data. Of unrelated representations it is 0 in the mean,
hence now and then slightly negative; it never leaves [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Literal

import torch
from torch import Tensor

from tinymim.errors import TinymimError

Which = Literal["mean", "cls", "all"]
"""Representations of an image: the mean of its patch tokens, its CLS token, or all its patch tokens side by side."""

LEAST = 4
"""Images that a batch needs: HSIC_1 divides by B - 3."""

ROUNDING = 1e-12
"""Share of a Gram matrix that is rounding: what float32 features differ by at 1e-6 of their length, squared."""


def gram(tokens: Tensor, prefix: int, which: Which = "mean") -> Tensor:
    """Products of the images' representations with each other, ``(B, B)`` in float64.

    Args:
        tokens: ``(B, prefix + N, D)``, CLS first.
        prefix: tokens before the patches; whether the first is a CLS token is the network's to say.
        which: see :data:`Which`.
    """
    patches = tokens[:, prefix:]
    if which == "mean":
        images = patches.mean(1, dtype=torch.float64)
    else:
        images = (tokens[:, 0] if which == "cls" else patches.flatten(1)).double()
    return images @ images.T


class CKA:
    """Every block against every block, of all networks that see the same images.

    Batches count by their images, so that a shorter last one weighs less; for batches of one size that is the papers'
    mean. All that is kept is one float64 sum for each pair of blocks. ``names`` are the networks'.
    """

    def __init__(self, names: Iterable[str]):
        self.names = list(names)
        self.batches = 0
        self.images = 0
        self._blocks: dict[str, slice] = {}
        self._hsic = torch.zeros((), dtype=torch.float64)

    def add(self, grams: Mapping[str, Sequence[Tensor]]) -> None:
        """Take in a batch.

        Args:
            grams: the ``(B, B)`` matrix of each block of each network, by its name (see :func:`gram`).

        Raises:
            TinymimError: fewer images than the estimator can do with; nothing is taken in.
        """
        stacked = torch.stack([matrix.to("cpu", torch.float64) for name in self.names for matrix in grams[name]])
        count = stacked.shape[-1]
        if count < LEAST:
            raise TinymimError(
                f"cka: a batch of {count} images; the unbiased estimator needs {LEAST} or more, so take larger batches"
            )
        centred = _centred(stacked).flatten(1)
        self._hsic = self._hsic + count * (centred @ centred.T) / (count * (count - 3))
        ends = accumulate((len(grams[name]) for name in self.names), initial=0)
        self._blocks = {name: slice(*range_) for name, range_ in zip(self.names, pairwise(ends), strict=True)}
        self.batches += 1
        self.images += count

    def matrix(self, a: str, b: str) -> Tensor:
        """CKA of the blocks of network ``a`` with those of ``b``, ``(blocks of a, blocks of b)`` in float64.

        NaN where either block tells no two images apart (see :meth:`undefined`): 0 / 0, which is neither likeness nor
        its absence.

        Raises:
            TinymimError: no batch was taken in.
        """
        if not self.batches:
            raise TinymimError(f"cka: there was no batch of {LEAST} or more images; give more images or larger batches")
        lengths = self._hsic.diagonal().sqrt()  # HSIC of a block with itself is a sum of squares: 0 at least
        across = self._hsic[self._blocks[a], self._blocks[b]]
        return across / (lengths[self._blocks[a], None] * lengths[self._blocks[b]])

    def undefined(self, name: str) -> list[int]:
        """Blocks (from 1) of a network whose CKA is NaN, as they give all images the same features up to rounding (or
        features all equally unlike each other), or some that are not finite."""
        squares = self._hsic.diagonal()[self._blocks[name]]
        return [block for block, square in enumerate(squares.tolist(), start=1) if not square > 0]


def _centred(grams: Tensor) -> Tensor:
    """Gram matrices ``(..., B, B)`` such that HSIC_1(K, L) is the sum of their products over B (B - 3).

    Song et al.'s three terms, gathered in the two factors (the U-centring of Székely and Rizzo, Ann. Statist. 42,
    2014): so all pairs of blocks are one matrix product, what all images share is gone before it is squared, and
    HSIC_1(K, K) cannot come out negative.
    """
    count = grams.shape[-1]
    others = 1 - torch.eye(count, dtype=grams.dtype)
    products = grams * others
    rows = products.sum(-1, keepdim=True) / (count - 2)
    centred = (products - rows - rows.mT + rows.sum(-2, keepdim=True) / (count - 1)) * others
    rounding = centred.abs().amax((-2, -1), keepdim=True) <= ROUNDING * grams.abs().amax((-2, -1), keepdim=True)
    return centred.masked_fill(rounding, 0)
