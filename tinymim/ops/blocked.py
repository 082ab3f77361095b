"""The relation loss block by block, for CPUs and wherever Triton is not: no ``(B, H, N, N)`` tensor lives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

ELEMENTS = 2**20  # of one block; measured on two cores: less pays for calls, more for cache misses
ELEMENTS_CUDA = 2**24  # a GPU wants fewer and larger calls


def blocked(tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor, temperature: float) -> Tensor:
    """:func:`tinymim.ops.relation_kl` in memory O(B·H·N·D) plus one block.

    The gradients are computed in the forward pass, while a block's distributions are at hand, and only where the
    student needs them. Logits and softmaxes are at least float32; with a bfloat16 student the two products that make
    its gradients are bfloat16's.
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
    scale_t, scale_s = (x.shape[-1] ** -0.5 / temperature for x in (tq, sq))
    product = sq.dtype if sq.dtype == torch.bfloat16 else exact  # float16 is no faster here and holds less
    dq, dk = (sq.new_zeros(sq.shape if gradients else 0, dtype=exact) for _ in range(2))

    blocks = list(map_blocks(B, H, N, ELEMENTS_CUDA if sq.is_cuda else ELEMENTS))
    size = max((b.stop - b.start) * (h.stop - h.start) * (n.stop - n.start) * N for b, h, n in blocks)
    spaces = [sq.new_empty(size, dtype=exact) for _ in range(3)]
    rounded = sq.new_empty(size if gradients and product != exact else 0, dtype=product)
    terms = []
    with torch.autocast(sq.device.type, enabled=False):
        for *heads, rows in blocks:
            t_queries, t_keys, queries, keys = (x[*heads].flatten(0, 1) for x in (tq, tk, sq, sk))
            t_queries, queries = t_queries[:, rows], queries[:, rows]
            shape = (*queries.shape[:2], N)
            t, s, p = (space[: math.prod(shape)].view(shape) for space in spaces)
            _logits(t_queries, t_keys, scale_t, out=t)
            _logits(queries, keys, scale_s, out=s)
            # log p = t - max t + log max p, likewise q: maxima are cheaper than exponentials, and do not underflow.
            torch.softmax(t, -1, out=p)
            peaks = t.amax(-1, keepdim=True).sub_(s.amax(-1, keepdim=True))
            terms.append(torch.dot(p.view(-1), t.sub_(s).sub_(peaks).view(-1)))
            q = torch.softmax(s, -1, out=t)
            terms.append((p.amax(-1) / q.amax(-1)).log_().sum())
            if not gradients:
                continue
            difference = q.sub_(p)
            if product != exact:
                difference = rounded[: difference.numel()].view(shape).copy_(difference)
            dq[*heads].view(keys.shape)[:, rows] = torch.bmm(difference, keys.to(product))
            dk[*heads].view(keys.shape).add_(torch.bmm(difference.transpose(1, 2), queries.to(product)))
    loss = torch.stack(terms).sum() / (B * H * N)
    return loss, dq.mul_(scale_s / (B * H * N)), dk.mul_(scale_s / (B * H * N))


def map_blocks(B: int, H: int, N: int, elements: int) -> Iterator[tuple[slice, slice, slice]]:
    """Slices of batch, heads and queries whose maps hold at most ``elements``, or one query's.

    A block is whole images, else heads of one image, else queries of one head, so that its heads lie in a row.
    """
    images = max(1, elements // (H * N * N))
    heads = max(1, min(H, elements // (N * N)))
    queries = max(1, min(N, elements // N))
    for b in range(0, B, images):
        for h in range(0, H, heads):
            for n in range(0, N, queries):
                yield slice(b, min(b + images, B)), slice(h, min(h + heads, H)), slice(n, min(n + queries, N))


def _exact(*tensors: Tensor) -> torch.dtype:
    dtype = torch.float32
    for x in tensors:
        dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def _logits(a: Tensor, b: Tensor, scale: float, out: Tensor) -> None:
    """``scale · A Bᵀ`` of ``(G, n, D)`` and ``(G, N, D)``; ``out``'s type is too wide to overflow."""
    torch.baddbmm(out, a.to(out.dtype), b.to(out.dtype).transpose(1, 2), beta=0, alpha=scale, out=out)


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
