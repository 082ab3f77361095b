"""Tokens to relate, and the relation loss and its gradients by hand in NumPy's float64."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

SHAPES = {
    "batch": st.integers(1, 3),
    "heads": st.integers(1, 4),
    "tokens": st.integers(1, 17),
    "teacher_width": st.integers(1, 40),
    "student_width": st.integers(1, 24),
    "seed": st.integers(0, 1000),
}


def draw(batch, heads, tokens, teacher_width, student_width, seed, dtype=torch.float32, spread=1.0):
    """A teacher's A and B and a student's, ``(B, H, N, D)`` each, laid out as in a network; logits' deviation."""
    generator = torch.Generator().manual_seed(seed)
    widths = (teacher_width, teacher_width, student_width, student_width)
    return [
        (torch.randn(batch, tokens, heads, width, generator=generator, dtype=dtype) * spread**0.5).transpose(1, 2)
        for width in widths
    ]


def softmax(a, b, temperature):
    logits = np.einsum("bhnd,bhmd->bhnm", a, b) / (np.sqrt(a.shape[-1]) * temperature)
    logits = logits - logits.max(-1, keepdims=True)
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.exp(log), log


def by_hand(tq, tk, sq, sk, temperature=1.0):
    """The loss and its gradients to ``sq`` and ``sk``, and the mean size of each one's terms before they cancel."""
    tq, tk, sq, sk = (t.detach().double().numpy() for t in (tq, tk, sq, sk))
    p, log_p = softmax(tq, tk, temperature)
    q, log_q = softmax(sq, sk, temperature)
    scale = 1 / (np.sqrt(sq.shape[-1]) * temperature * np.prod(sq.shape[:3]))

    def products(difference, a, b):
        dq = scale * np.einsum("bhnm,bhmd->bhnd", difference, b)
        return dq, scale * np.einsum("bhnm,bhnd->bhmd", difference, a)

    values = (p * (log_p - log_q)).sum(-1).mean(), *products(q - p, sq, sk)
    sizes = (p * (np.abs(log_p) + np.abs(log_q))).sum(-1).mean(), *products(q + p, np.abs(sq), np.abs(sk))
    return values, sizes


def check_against_hand(loss_of, tokens, tolerance, temperature=1.0):
    """Loss and gradients of ``loss_of(tq, tk, sq, sk, temperature)``, relative to theirs, and to 1e-6 of their terms.

    The second part is float32's: near a student equal to its teacher, what is left is the terms' rounding.
    """
    tq, tk, sq, sk = tokens
    sq, sk = sq.detach().requires_grad_(), sk.detach().requires_grad_()
    loss = loss_of(tq, tk, sq, sk, temperature)
    results = loss, *torch.autograd.grad(loss, (sq, sk))
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert results[1].dtype == sq.dtype
    for result, value, size in zip(results, *by_hand(tq, tk, sq, sk, temperature), strict=True):
        error = np.linalg.norm(result.detach().double().numpy() - value)
        assert error <= tolerance * np.linalg.norm(value) + 1e-6 * np.linalg.norm(size)


def certain(dtype=torch.float32, width=4):
    """``(2, 3, 5, D)`` tokens whose logits with themselves are ±1e4."""
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]).view(1, 1, 5, 1)
    return ((100 * signs).repeat(2, 3, 1, width) * width**-0.25).to(dtype)
