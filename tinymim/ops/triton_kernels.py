"""The relation loss on a GPU: Triton kernels that stream over keys, as FlashAttention does (arXiv 2307.08691).

Imported only where the ``triton`` form is taken. Logits are in units of log 2, so that the kernels raise 2 to powers.
"""

from __future__ import annotations

from math import log2
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tinymim.ops.blocked import refuse_second_derivatives

LEAST = tl.constexpr(-1e30)  # a logit that weighs nothing; unlike infinities, its differences are numbers
LN2 = tl.constexpr(0.6931471805599453)
PRECISION = tl.constexpr("tf32x3")  # float32 as three TF32 products: about 1e-6 from exact, on the matrix units
BOOST = tl.constexpr(1024.0)  # float16 holds differences of small probabilities only when enlarged


@triton.jit
def _place(H, N, ROWS: tl.constexpr):
    """The work of this program: a head counted over all images, its image and number in it, and its rows."""
    blocks = tl.cdiv(N, ROWS)
    head = (tl.program_id(0) // blocks).to(tl.int64)
    rows = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)
    return head, head // H, head % H, rows


@triton.jit
def _tile(head, tokens, stride_n, stride_d, N, D: tl.constexpr, PAD: tl.constexpr):
    """Tokens of one head, ``(tokens, PAD)``: zero beyond N and D."""
    channels = tl.arange(0, PAD)
    inside = (tokens[:, None] < N) & (channels[None, :] < D)
    return tl.load(head + tokens[:, None] * stride_n + channels[None, :] * stride_d, mask=inside, other=0.0)


@triton.jit
def forward_kernel(
    tq, tk, sq, sk, kl, lse_t, lse_s,
    tq_b, tq_h, tq_n, tq_d, tk_b, tk_h, tk_n, tk_d, sq_b, sq_h, sq_n, sq_d, sk_b, sk_h, sk_n, sk_d,
    H, N, scale_t, scale_s,
    DT: tl.constexpr, PT: tl.constexpr, DS: tl.constexpr, PS: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """KL of a block of queries, and both distributions' log-sum-exps (base 2) for the backward pass.

    With t and s from their running maxima, the KL of a row is ``Σ e^t (t - s) / Σ e^t - log Σ e^t + log Σ e^s``: only
    small numbers are subtracted. When a maximum moves, the sums and the cross term move with it.
    """
    head, b, h, rows = _place(H, N, ROWS)
    q_t = _tile(tq + b * tq_b + h * tq_h, rows, tq_n, tq_d, N, DT, PT)
    q_s = _tile(sq + b * sq_b + h * sq_h, rows, sq_n, sq_d, N, DS, PS)
    max_t = tl.full((ROWS,), LEAST, tl.float32)
    max_s = tl.full((ROWS,), LEAST, tl.float32)
    sum_t = tl.zeros((ROWS,), tl.float32)
    sum_s = tl.zeros((ROWS,), tl.float32)
    cross = tl.zeros((ROWS,), tl.float32)
    for start in range(0, N, COLS):
        cols = start + tl.arange(0, COLS)
        inside = cols[None, :] < N
        k_t = _tile(tk + b * tk_b + h * tk_h, cols, tk_n, tk_d, N, DT, PT)
        k_s = _tile(sk + b * sk_b + h * sk_h, cols, sk_n, sk_d, N, DS, PS)
        t = tl.dot(q_t, tl.trans(k_t), input_precision=PRECISION) * scale_t
        s = tl.dot(q_s, tl.trans(k_s), input_precision=PRECISION) * scale_s
        t = tl.where(inside, t, LEAST)
        s = tl.where(inside, s, LEAST)
        new_t = tl.maximum(max_t, tl.max(t, 1))
        new_s = tl.maximum(max_s, tl.max(s, 1))
        t -= new_t[:, None]
        s -= new_s[:, None]
        p = tl.exp2(t)
        move_t = max_t - new_t
        move_s = max_s - new_s
        shrink = tl.exp2(move_t)
        cross = shrink * (cross + sum_t * (move_t - move_s)) + tl.sum(p * (t - s), 1)
        sum_t = sum_t * shrink + tl.sum(p, 1)
        sum_s = sum_s * tl.exp2(move_s) + tl.sum(tl.exp2(s), 1)
        max_t, max_s = new_t, new_s
    log_t = tl.log2(sum_t)
    log_s = tl.log2(sum_s)
    place = head * N + rows
    tl.store(kl + place, (cross / sum_t - log_t + log_s) * LN2, mask=rows < N)
    tl.store(lse_t + place, max_t + log_t, mask=rows < N)
    tl.store(lse_s + place, max_s + log_s, mask=rows < N)


@triton.jit
def gradient_kernel(
    grad, rt, ct, rs, cs, out, lse_t, lse_s,
    rt_b, rt_h, rt_n, rt_d, ct_b, ct_h, ct_n, ct_d, rs_b, rs_h, rs_n, rs_d, cs_b, cs_h, cs_n, cs_d,
    out_b, out_h, out_n, out_d,
    H, N, scale_t, scale_s, factor,
    DT: tl.constexpr, PT: tl.constexpr, DS: tl.constexpr, PS: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    """Gradient of a block of the student's queries (rows are queries, keys stream) or keys (the other way round).

    ``dS = p_s - p_t`` is made anew from the logits and their log-sum-exps, in float32, and rounded once to the
    student's type for the product.
    """
    head, b, h, rows = _place(H, N, ROWS)
    r_t = _tile(rt + b * rt_b + h * rt_h, rows, rt_n, rt_d, N, DT, PT)
    r_s = _tile(rs + b * rs_b + h * rs_h, rows, rs_n, rs_d, N, DS, PS)
    if QUERIES:
        log_t = tl.load(lse_t + head * N + rows, mask=rows < N, other=0.0)[:, None]
        log_s = tl.load(lse_s + head * N + rows, mask=rows < N, other=0.0)[:, None]
    total = tl.zeros((ROWS, PS), tl.float32)
    for start in range(0, N, COLS):
        cols = start + tl.arange(0, COLS)
        c_t = _tile(ct + b * ct_b + h * ct_h, cols, ct_n, ct_d, N, DT, PT)
        c_s = _tile(cs + b * cs_b + h * cs_h, cols, cs_n, cs_d, N, DS, PS)
        t = tl.dot(r_t, tl.trans(c_t), input_precision=PRECISION) * scale_t
        s = tl.dot(r_s, tl.trans(c_s), input_precision=PRECISION) * scale_s
        if not QUERIES:
            log_t = tl.load(lse_t + head * N + cols, mask=cols < N, other=0.0)[None, :]
            log_s = tl.load(lse_s + head * N + cols, mask=cols < N, other=0.0)[None, :]
        difference = tl.exp2(s - log_s) - tl.exp2(t - log_t)
        difference = tl.where(cols[None, :] < N, difference * BOOST, 0.0)  # 0 · inf would be NaN
        total += tl.dot(difference.to(c_s.dtype), c_s, input_precision=PRECISION)
    total *= tl.load(grad) * (factor / BOOST)
    channels = tl.arange(0, PS)
    place = out + b * out_b + h * out_h + rows[:, None] * out_n + channels[None, :] * out_d
    tl.store(place, total.to(out.dtype.element_ty), mask=(rows[:, None] < N) & (channels[None, :] < DS))


def triton_relation_kl(tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor, temperature: float) -> Tensor:
    """:func:`tinymim.ops.relation_kl` in memory O(B·H·N·D). Head widths up to 128, any N and strides.

    The forward pass streams over keys once and keeps two numbers a query; the backward pass recomputes the logits.
    Accumulators are float32; products take the inputs' type.
    """
    loss: Tensor = _forward(tq, tk, sq, sk, temperature)[0]
    return loss


@torch.library.custom_op("tinymim::relation_kl_triton", mutates_args=())
def _forward(tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and the log-sum-exps of the teacher's and the student's logits, ``(B, H, N)`` in base 2."""
    B, H, N, _ = sq.shape
    kl, lse_t, lse_s = (torch.empty(B, H, N, device=sq.device, dtype=torch.float32) for _ in range(3))
    launch = _launch(tq, sq)
    with torch.cuda.device_of(sq):
        forward_kernel[(B * H * triton.cdiv(N, launch["ROWS"]),)](
            tq, tk, sq, sk, kl, lse_t, lse_s, *_strides(tq, tk, sq, sk),
            H, N, *_scales(tq, sq, temperature), **launch,
        )  # fmt: skip
    return kl.mean(), lse_t, lse_s


@torch.library.custom_op("tinymim::relation_kl_triton_backward", mutates_args=())
def _gradients(
    grad: Tensor, tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor, lse_t: Tensor, lse_s: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Gradients of ``sq`` and ``sk``, times the loss's own."""
    B, H, N, DS = sq.shape
    launch = _launch(tq, sq)
    scales = _scales(tq, sq, temperature)
    factor = DS**-0.5 / temperature / (B * H * N)
    dq, dk = torch.empty_like(sq), torch.empty_like(sk)
    with torch.cuda.device_of(sq):
        for out, rt, ct, rs, cs in ((dq, tq, tk, sq, sk), (dk, tk, tq, sk, sq)):
            gradient_kernel[(B * H * triton.cdiv(N, launch["ROWS"]),)](
                grad, rt, ct, rs, cs, out, lse_t, lse_s, *_strides(rt, ct, rs, cs, out),
                H, N, *scales, factor, **launch, QUERIES=out is dq,
            )  # fmt: skip
    return dq, dk


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for x in tensors for stride in x.stride()]


def _scales(tq: Tensor, sq: Tensor, temperature: float) -> tuple[float, float]:
    return tuple(x.shape[-1] ** -0.5 / temperature * log2(torch.e) for x in (tq, sq))  # type: ignore[return-value]


def _launch(tq: Tensor, sq: Tensor) -> dict[str, int]:
    return configuration(tq.shape[-1], sq.shape[-1], max(tq.element_size(), sq.element_size()))


def configuration(DT: int, DS: int, element_size: int) -> dict[str, int]:
    """Constants of both kernels for two head widths and the bytes of an element.

    Widths are padded to powers of two, at least 16, which matrix units take. Blocks were chosen from what the compiler
    reports for compute capabilities 8.6 and 9.0: at most the 99 KiB of shared memory that 8.6 has, and few spills.
    """
    PT, PS = (max(16, triton.next_power_of_2(D)) for D in (DT, DS))
    widths = {"DT": DT, "PT": PT, "DS": DS, "PS": PS}
    if element_size == 2:
        return {**widths, "ROWS": 64, "COLS": 64 if PT + PS <= 192 else 32, "num_warps": 4, "num_stages": 2}
    if PT + PS <= 128:
        return {**widths, "ROWS": 64, "COLS": 32, "num_warps": 4, "num_stages": 2}
    return {**widths, "ROWS": 32, "COLS": 32, "num_warps": 8, "num_stages": 2 if PT + PS <= 192 else 1}


@_forward.register_fake
def _(tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor, temperature: float) -> Any:
    sums = (sq.new_empty(sq.shape[:3], dtype=torch.float32) for _ in range(2))
    return sq.new_empty((), dtype=torch.float32), *sums


@_gradients.register_fake
def _(
    grad: Tensor, tq: Tensor, tk: Tensor, sq: Tensor, sk: Tensor, lse_t: Tensor, lse_s: Tensor, temperature: float
) -> Any:
    return torch.empty_like(sq), torch.empty_like(sk)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tokens, ctx.temperature = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.teacher = tokens[:2]  # inference tensors cannot be saved in the usual way, and these need no gradient
    ctx.save_for_backward(*tokens[2:], *output[1:])


def _backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    refuse_second_derivatives()
    if grad is None:
        return (None,) * 5
    sq, sk, lse_t, lse_s = ctx.saved_tensors
    dq, dk = _gradients(grad.float(), *ctx.teacher, sq, sk, lse_t, lse_s, ctx.temperature)
    return None, None, dq, dk, None


_forward.register_autograd(_backward, setup_context=_keep)
