"""The relation loss block by block, for CPUs and wherever Triton is not: no ``(B, H, N, N)`` tensor lives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tinymim.precision import cpu_ratio

ELEMENTS = 2**18  # of one block; measured with AVX2 and AVX-512: less pays for calls, more for cache misses
LEAST = 1e-12  # of a probability whose logarithm gives a row's normaliser
ELEMENTS_CUDA = 2**24  # a GPU wants fewer and larger calls


def blocked(tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor, temperature: float) -> Tensor:
    """:func:`tinymim.ops.relation_kl` in memory O(B·H·N·D) plus one block.

    The gradients are computed in the forward pass, while a block's distributions are at hand, and only where the
    student needs them. Logits and softmaxes are at least float32; with a bfloat16 student the two products that make
    its gradients are bfloat16's, unless this is a processor that multiplies it slower than float32.
    """
    gradients = torch.is_grad_enabled() and (sq.requires_grad or sk.requires_grad)
    loss: Tensor = _blocked(tq, tk, sq, sk, temperature, gradients)[0]
    return loss


@torch.library.custom_op("tinymim::relation_kl_blocked", mutates_args=())
def _blocked(
    tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor, temperature: float, gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss and its gradients to ``sq`` and ``sk``, at least in float32. An operator: one node to Dynamo."""
    B, H, N, _ = sq.shape
    exact = _exact(tq, sq)
    scales = tuple(x.shape[-1] ** -0.5 / temperature for x in (tq, sq))
    half = sq.dtype == torch.bfloat16 and (sq.device.type != "cpu" or cpu_ratio(torch.bfloat16) < 1)
    product = torch.bfloat16 if half else exact  # float16 is no faster here and holds less
    dq, dk = (sq.new_zeros(sq.shape if gradients else 0, dtype=exact) for _ in range(2))

    tokens, space = (tq, tk, sq, sk), _Space(sq, exact)
    with torch.autocast(sq.device.type, enabled=False):
        terms, least = _sweep(tokens, (dq, dk) if gradients else (), scales, space, product, _late(sq))
        if least and bool(torch.stack(least).min() < LEAST):  # gradients do not depend on it
            terms, _ = _sweep(tokens, (), scales, space, product, False)
    loss = torch.stack(terms).sum() / (B * H * N)
    return loss, dq.mul_(scales[1] / (B * H * N)), dk.mul_(scales[1] / (B * H * N))


def _late(x: Tensor) -> bool:
    """Whether a look at a number waits for a device, so that blocks had better be asked all at once."""
    return x.is_cuda


def _sweep(
    tokens: tuple[Tensor, ...],
    gradients: tuple[Tensor, ...],
    scales: tuple[float, ...],
    space: _Space,
    product: torch.dtype,
    late: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """The terms of the loss, block by block, and with ``late`` the least probability that each took a normaliser from:
    below :data:`LEAST` its terms are of no use. Without it such a block takes others at once."""
    terms, least = [], []
    exact, N = space.dtype, tokens[0].shape[2]
    for block in _blocks(tokens, gradients, exact):
        t_queries, t_keys, queries, keys, *d = block
        t, s, p, q = space.of(len(queries), queries.shape[1], N)
        _logits(t_queries, t_keys, scales[0], out=t)
        _logits(queries, keys, scales[1], out=s)
        torch.softmax(t, -1, out=p)
        torch.softmax(s, -1, out=q)
        p_one, q_one = p[..., 0], q[..., 0]
        smallest = torch.minimum(p_one, q_one).min()
        if late:
            least.append(smallest)
        elif bool(smallest < LEAST):
            # log p = t - max t + log max p, likewise q: the largest does not underflow
            p_one, q_one = p.amax(-1), q.amax(-1)
            s.add_(t.amax(-1, keepdim=True).sub_(s.amax(-1, keepdim=True)))
        terms += [torch.dot(p.view(-1), t.sub_(s).view(-1)), (p_one / q_one).log_().sum()]
        if not gradients:
            continue
        difference = q.sub_(p)
        if product == exact:
            d[0].copy_(torch.bmm(difference, keys))
            torch.baddbmm(d[1], difference.transpose(1, 2), queries, out=d[1])
        else:
            difference = difference.to(product)
            d[0].copy_(torch.bmm(difference, keys.to(product)))
            d[1].add_(torch.bmm(difference.transpose(1, 2), queries.to(product)))
    return terms, least


def map_blocks(B: int, H: int, N: int, elements: int) -> Iterator[tuple[slice, slice, slice]]:
    """Slices of batch, heads and queries whose maps hold at most ``elements``, or one query's.

    A block is whole images, else heads of one image, else queries of one head, so that its heads lie in a row.
    """
    images, heads, queries = _most(H, N, elements)
    for b in _even(B, images):
        for h in _even(H, heads):
            for n in _even(N, queries):
                yield b, h, n


def _most(H: int, N: int, elements: int) -> tuple[int, int, int]:
    """The most images, heads of one image and queries of one head that a block has."""
    return max(1, elements // (H * N * N)), max(1, min(H, elements // (N * N))), max(1, min(N, elements // N))


def _lengths(length: int, most: int) -> list[int]:
    return [part.stop - part.start for part in _even(length, most)]


def _even(length: int, most: int) -> Iterator[slice]:
    """Slices of at most ``most``, as few as possible, of sizes that differ by one at most: short
    ones do not pay for calls."""
    count = -(-length // most)
    for number in range(count):
        yield slice(number * length // count, (number + 1) * length // count)


def _together(x: Tensor) -> Tensor:
    """``(b, h, N, D)`` as ``(b·h, N, D)``, without a copy where it is one image."""
    return x[0] if len(x) == 1 else x.flatten(0, 1)


def _blocks(tokens: tuple[Tensor, ...], gradients: tuple[Tensor, ...], exact: torch.dtype) -> Iterator[list[Tensor]]:
    """The parts of :func:`map_blocks`, of A, B, A, B and the gradients to A and B: ``(G, n, D)`` of a block's queries
    and ``(G, N, D)`` of all keys of its heads. Gradients are views.

    Views are made many in a call: one by one they would take as long as the products of a small block.
    """
    B, H, N, _ = tokens[0].shape
    images, heads, queries = _most(H, N, ELEMENTS_CUDA if tokens[0].is_cuda else ELEMENTS)
    rows = _lengths(N, queries)
    for some in _even(B, images):
        whole = [_together(x[some]).to(exact) for x in tokens] + [x[some].flatten(0, 1) for x in gradients]
        lengths = _lengths(len(whole[0]), max(heads, len(whole[0]) if images > 1 else 1))
        for of_heads in zip(*(x.split(lengths) for x in whole), strict=True):
            if len(rows) == 1:
                yield list(of_heads)
                continue
            parts = (x.split(rows, 1) if place % 2 == 0 else (x,) * len(rows) for place, x in enumerate(of_heads))
            yield from map(list, zip(*parts, strict=True))


class _Space:
    """Four maps of one block, in memory that all blocks share."""

    def __init__(self, like: Tensor, dtype: torch.dtype):
        self.like, self.dtype = like, dtype
        self._views: dict[tuple[int, ...], list[Tensor]] = {}
        self._memory: list[Tensor] = []

    def of(self, *shape: int) -> list[Tensor]:
        """The maps of a block of that shape."""
        if shape not in self._views:
            size = math.prod(shape)
            if not self._memory or len(self._memory[0]) < size:
                self._memory = [self.like.new_empty(size, dtype=self.dtype) for _ in range(4)]
                self._views.clear()
            self._views[shape] = [memory[:size].view(shape) for memory in self._memory]
        return self._views[shape]


def _exact(*tensors: Tensor) -> torch.dtype:
    dtype = torch.float32
    for x in tensors:
        dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def _logits(a: Tensor, b: Tensor, scale: float, out: Tensor) -> None:
    """Logits ``scale · A Bᵀ`` of ``(G, n, D)`` and ``(G, N, D)``, each row less its first.

    The softmax is the same, and the logarithm of its first column is the row's normaliser, so no pass looks for maxima.
    """
    torch.baddbmm(out, a, (b - b[:, :1]).transpose(1, 2), beta=0, alpha=scale, out=out)


@_blocked.register_fake
def _(tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor, temperature: float, gradients: bool) -> Any:
    loss = sq.new_empty((), dtype=_exact(tq, sq))
    dq, dk = (sq.new_empty(sq.shape if gradients else (0,), dtype=loss.dtype) for _ in range(2))
    return loss, dq, dk


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, dq, dk = output
    ctx.mark_non_differentiable(dq, dk)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(dq, dk)
    ctx.dtypes = inputs[2].dtype, inputs[3].dtype


def _backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    refuse_second_derivatives()
    if grad is None:
        return (None,) * 6
    dq, dk = ((saved * grad).to(dtype) for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True))
    return None, None, dq, dk, None, None


def refuse_second_derivatives() -> None:
    """To be called in a backward pass whose graph would lack the saved tensors' own derivatives."""
    if torch.is_grad_enabled():  # create_graph=True
        raise NotImplementedError("relation_kl is differentiable once; second derivatives need form='reference'")


_blocked.register_autograd(_backward, setup_context=_keep)
