"""Tests of Triton's kernels in Triton's interpreter; test_triton_kernels.py runs them with ``TRITON_INTERPRET=1``."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from triton.runtime import interpreter

from tests.ops.tokens import SHAPES, certain, check_against_hand, draw
from tinymim.ops import relation_kl

multiply = interpreter.InterpreterBuilder.create_dot


def multiply_bfloat16(builder, a, b, *others):
    """The interpreter keeps bfloat16 as the bits in a uint16 and would multiply those (triton-lang/triton#11584)."""

    def widened(x):
        if x.data.dtype != np.uint16:
            return x
        return interpreter.TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), interpreter.tl.float32)

    return multiply(builder, widened(a), widened(b), *others)


interpreter.InterpreterBuilder.create_dot = multiply_bfloat16
convert = interpreter._convert_float


def convert_as_a_gpu(value, source, target, rounding):
    """The interpreter cuts float32 off where a GPU rounds to the nearest bfloat16, and to the even one of two as near;
    and it makes numbers below 1e-38 ten times larger, both ways."""
    if (source, target) == (interpreter.tl.bfloat16, interpreter.tl.float32):
        return (value.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if (source, target) != (interpreter.tl.float32, interpreter.tl.bfloat16):
        return convert(value, source, target, rounding)
    bits = np.ascontiguousarray(value).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(value), (bits >> 16) | 0x40, rounded).astype(np.uint16)


interpreter._convert_float = convert_as_a_gpu

SMALL = {**SHAPES, "batch": st.integers(1, 2), "heads": st.integers(1, 2), "tokens": st.integers(1, 70)}


@pytest.mark.parametrize("scale", [1.0, 1e-39, 1e38])
def test_conversion__is_torchs_both_ways(scale):
    builder, types = interpreter.InterpreterBuilder(), interpreter.tl
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0)) * scale
    values = torch.cat([values, torch.tensor([0.0, -0.0, math.inf, -math.inf, 1 + 2**-8, 1 + 3 * 2**-8])])
    rounded = builder.create_fp_trunc(interpreter.TensorHandle(values.numpy(), types.float32), types.bfloat16)
    assert np.array_equal(rounded.data, values.bfloat16().view(torch.uint16).numpy())
    widened = builder.create_fp_ext(rounded, types.float32)
    assert np.array_equal(widened.data, values.bfloat16().float().numpy())


def streamed(*tokens):
    return relation_kl(*tokens, form="triton")


@settings(max_examples=12, deadline=None)
@given(**SMALL, temperature=st.sampled_from([0.5, 1.0, 3.0]), spread=st.sampled_from([0.1, 1.0, 10.0]))
def test_triton__equals_the_formula(temperature, **shape):
    check_against_hand(streamed, draw(**shape), 1e-5, temperature)


@settings(max_examples=8, deadline=None)
@given(**SMALL, spread=st.sampled_from([1.0, 10.0]), dtype=st.sampled_from([torch.bfloat16, torch.float16]))
def test_triton__half_precision_is_near_the_formula(dtype, **shape):
    check_against_hand(streamed, [t.to(dtype) for t in draw(**shape)], 2e-2)


@pytest.mark.parametrize(("tokens", "widths"), [(64, (8, 16)), (65, (88, 44)), (130, (128, 128)), (197, (64, 16))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_triton__streams_over_several_blocks(tokens, widths, dtype):
    given = [t.to(dtype) for t in draw(1, 2, tokens, *widths, seed=1)]
    check_against_hand(streamed, given, 1e-5 if dtype == torch.float32 else 2e-2)


def test_triton__takes_a_teacher_in_bfloat16_and_a_student_in_float32():
    tq, tk, sq, sk = draw(2, 3, 33, 24, 12, seed=4)
    check_against_hand(streamed, [tq.bfloat16(), tk.bfloat16(), sq, sk], 1e-5)


def test_triton__takes_tensors_as_they_lie():
    """Another layout for each tensor, even with channels apart."""
    tq, _, sq, _ = draw(2, 3, 20, 8, 6, seed=5)
    apart = torch.randn(2, 3, 20, 8, 2)[..., 0]
    turned = torch.randn(6, 20, 3, 2).permute(3, 2, 1, 0)
    check_against_hand(streamed, [tq.contiguous(), apart, sq, turned], 1e-5)
    check_against_hand(streamed, [tq, tq, sq.expand(2, 3, 20, 6), sq], 1e-5)


def test_triton__is_zero_for_equal_relations():
    a, b, *_ = draw(2, 3, 70, 12, 1, seed=0)
    sa, sb = a.clone().requires_grad_(), b.clone().requires_grad_()
    loss = streamed(a, b, sa, sb)
    loss.backward()
    assert abs(loss.item()) <= 1e-6
    assert sa.grad.abs().max() <= 1e-7
    assert sb.grad.abs().max() <= 1e-7


@pytest.mark.parametrize("which", ["teacher", "student", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_triton__finite_with_logits_of_ten_thousand(which, dtype):
    large, calm = certain(dtype), [t.to(dtype) for t in draw(2, 3, 5, 4, 4, seed=3)]
    tq, tk = (large, large) if which != "student" else calm[:2]
    sq, sk = (large, -large) if which != "teacher" else calm[2:]
    sq, sk = sq.clone().requires_grad_(), sk.clone().requires_grad_()
    loss = streamed(tq, tk, sq, sk)
    loss.backward()
    assert loss.isfinite()
    assert sq.grad.isfinite().all()
    assert sk.grad.isfinite().all()
    if which == "both":
        assert loss.item() == pytest.approx(2e4, rel=1e-2)


def test_triton__takes_inference_tensors_of_a_teacher_and_the_loss_of_a_scaler():
    tq, tk, sq, sk = draw(1, 2, 5, 4, 3, seed=3)
    with torch.inference_mode():
        teacher = tq.clone(), tk.clone()
    check_against_hand(streamed, [*teacher, sq, sk], 1e-5)
    sq.requires_grad_()
    (one,) = torch.autograd.grad(streamed(*teacher, sq, sk), sq)
    (scaled,) = torch.autograd.grad(streamed(*teacher, sq, sk) * 2.0**16, sq)
    torch.testing.assert_close(scaled, one * 2.0**16)
    with pytest.raises(NotImplementedError, match="differentiable once"):
        torch.autograd.grad(streamed(*teacher, sq, sk), sq, create_graph=True)


def test_triton__is_the_choice_of_auto_and_compiles_without_graph_breaks():
    tokens = [t.requires_grad_() for t in draw(2, 3, 9, 6, 4, seed=6)]
    loss = relation_kl(*tokens)
    assert "relation_kl_triton" in type(loss.grad_fn).__name__
    assert torch._dynamo.explain(relation_kl)(*tokens).graph_break_count == 0
    compiled = torch.compile(relation_kl, fullgraph=True, backend="aot_eager")(*tokens)
    for one, other in zip(*(torch.autograd.grad(x, tokens[2:]) for x in (compiled, loss)), strict=True):
        torch.testing.assert_close(one, other)


def test_triton__are_operators_as_pytorch_wants_them():
    tq, tk, sq, sk = draw(1, 2, 5, 4, 3, seed=0)
    relation_kl(tq, tk, sq, sk, form="triton")
    operators = torch.ops.tinymim
    _, lse_t, lse_s = operators.relation_kl_triton(tq, tk, sq, sk, 1.0)
    torch.library.opcheck(
        operators.relation_kl_triton_backward.default, (torch.ones(()), tq, tk, sq, sk, lse_t, lse_s, 1.0)
    )
    torch.library.opcheck(operators.relation_kl_triton.default, (tq, tk, sq.requires_grad_(), sk.requires_grad_(), 1.0))
