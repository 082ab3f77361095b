import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymim.ops import relation_kl

SHAPES = {
    "batch": st.integers(1, 3),
    "heads": st.integers(1, 4),
    "tokens": st.integers(1, 17),
    "teacher_width": st.integers(1, 40),
    "student_width": st.integers(1, 24),
    "seed": st.integers(0, 1000),
}


def draw(batch, heads, tokens, teacher_width, student_width, seed, dtype=torch.float32):
    """A teacher's A and B and a student's, ``(B, H, N, D)`` each."""
    generator = torch.Generator().manual_seed(seed)
    widths = (teacher_width, teacher_width, student_width, student_width)
    return [torch.randn(batch, heads, tokens, width, generator=generator, dtype=dtype) for width in widths]


def softmax(a, b):
    logits = np.einsum("bhnd,bhmd->bhnm", a, b) / math.sqrt(a.shape[-1])
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def by_hand(*tokens):
    """The formula in NumPy's float64: the loss, and the mean of its terms' sizes before they cancel."""
    tq, tk, sq, sk = (t.detach().numpy().astype(np.float64) for t in tokens)
    p, q = softmax(tq, tk), softmax(sq, sk)
    loss = (p * (np.log(p) - np.log(q))).sum(-1).mean()
    return loss, (p * (np.abs(np.log(p)) + np.abs(np.log(q)))).sum(-1).mean()


@settings(max_examples=60, deadline=None)
@given(**SHAPES)
def test_relation_kl__equals_the_formula(**shape):
    tokens = draw(**shape)
    expected, size = by_hand(*tokens)
    loss = relation_kl(*tokens)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert abs(loss.item() - expected) <= 1e-6 * size
    exact = relation_kl(*(t.double() for t in tokens)).item()
    assert exact == pytest.approx(expected, rel=1e-12, abs=1e-13 * size)


def test_relation_kl__is_teacher_against_student_by_rows():
    """Two tokens of one channel, written out: the direction, the scale of each side and the axis of the softmax."""
    tq, tk = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    sq, sk = torch.zeros(4), torch.zeros(4)
    loss = relation_kl(*(t.view(1, 1, 2, -1) for t in (tq, tk, sq, sk)))
    p = 1 / (1 + math.e)  # the first row's softmax of (0, 1); the second row is (0, 0)
    expected = (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(**SHAPES)
def test_relation_kl__is_not_negative(**shape):
    assert relation_kl(*draw(**shape)).item() >= -1e-6


@pytest.mark.parametrize("width", [1, 3, 12, 64])
def test_relation_kl__is_zero_for_equal_relations(width):
    a, b, *_ = draw(2, 3, 9, width, 1, seed=0)
    sa, sb = a.clone().requires_grad_(), b.clone().requires_grad_()
    loss = relation_kl(a, b, sa, sb)
    loss.backward()
    assert abs(loss.item()) <= 1e-7
    assert sa.grad.abs().max() <= 1e-7
    assert sb.grad.abs().max() <= 1e-7


@pytest.mark.parametrize(("heads", "tokens", "width"), [(2, 4, 3), (1, 5, 2), (3, 1, 2)])
def test_relation_kl__gradients_of_the_student(heads, tokens, width):
    tq, tk, sq, sk = draw(2, heads, tokens, 5, width, seed=1, dtype=torch.float64)
    given_q, given_k = sq.requires_grad_(), sk.requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k: relation_kl(tq, tk, q, k), (given_q, given_k))


def test_relation_kl__gradients_where_a_and_b_are_one_tensor():
    tv, _, sv, _ = draw(2, 2, 4, 5, 3, seed=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: relation_kl(tv, tv, v, v), (sv.requires_grad_(),))


@pytest.mark.parametrize("which", ["teacher", "student", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relation_kl__finite_with_logits_of_ten_thousand(which, dtype):
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]).view(1, 1, 5, 1)
    large = (100 * signs).repeat(2, 3, 1, 4) * 4**-0.25  # A Bᵀ / sqrt(4) is +-1e4
    calm = draw(2, 3, 5, 4, 4, seed=3)
    tq, tk = (large, large) if which != "student" else calm[:2]
    sq, sk = (large, -large) if which != "teacher" else calm[2:]
    tq, tk, sq, sk = (t.to(dtype) for t in (tq, tk, sq, sk))
    sq, sk = sq.clone().requires_grad_(), sk.clone().requires_grad_()
    loss = relation_kl(tq, tk, sq, sk)
    loss.backward()
    assert loss.isfinite()
    assert sq.grad.isfinite().all()
    assert sk.grad.isfinite().all()
    if which == "both":  # opposed certainty costs the whole distance of the logits
        assert loss.item() == pytest.approx(2e4, rel=1e-2)


def test_relation_kl__bfloat16_under_autocast_stays_near_float64():
    tokens = draw(2, 3, 17, 24, 12, seed=4)
    expected, _ = by_hand(*tokens)
    halves = [t.bfloat16() for t in tokens]
    halves[2].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = relation_kl(*halves)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=2e-2)
    assert halves[2].grad.dtype == torch.bfloat16
    assert halves[2].grad.isfinite().all()
