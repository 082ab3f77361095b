import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.tokens import SHAPES, by_hand, certain, check_against_hand, draw
from tinymim.errors import TinymimError
from tinymim.ops import relation_kl

FORMS = ["reference", "blocked"]  # Triton's: test_triton_kernels.py

pytestmark = pytest.mark.parametrize("form", FORMS)


@settings(max_examples=60, deadline=None)
@given(**SHAPES, temperature=st.sampled_from([0.5, 1.0, 3.0]), spread=st.sampled_from([0.1, 1.0, 10.0]))
def test_relation_kl__equals_the_formula(form, temperature, **shape):
    check_against_hand(lambda *given: relation_kl(*given, form=form), draw(**shape), 1e-5, temperature)


@settings(max_examples=30, deadline=None)
@given(**SHAPES, spread=st.sampled_from([1.0, 10.0]))
def test_relation_kl__bfloat16_is_near_the_formula(form, **shape):
    tokens = [t.bfloat16() for t in draw(**shape)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check_against_hand(lambda *given: relation_kl(*given, form=form), tokens, 2e-2)


@pytest.mark.parametrize(
    ("teacher", "student"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float16), (torch.float32, torch.bfloat16)],
)
def test_relation_kl__takes_other_types_for_teacher_and_student(form, teacher, student):
    tq, tk, sq, sk = draw(2, 3, 17, 24, 12, seed=4)
    tokens = [tq.to(teacher), tk.to(teacher), sq.to(student), sk.to(student)]
    tolerance = 1e-5 if student == torch.float32 else 2e-2
    check_against_hand(lambda *given: relation_kl(*given, form=form), tokens, tolerance)


@settings(max_examples=20, deadline=None)
@given(**SHAPES)
def test_relation_kl__is_exact_in_float64(form, **shape):
    tokens = [t.double() for t in draw(**shape)]
    (expected, *_), (size, *_) = by_hand(*tokens)
    assert relation_kl(*tokens, form=form).item() == pytest.approx(expected, rel=1e-12, abs=1e-13 * size)


def test_relation_kl__is_teacher_against_student_by_rows(form):
    """Two tokens of one channel, written out: the direction, the scale of each side and the axis of the softmax."""
    tq, tk = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    sq, sk = torch.zeros(4), torch.zeros(4)
    loss = relation_kl(*(t.view(1, 1, 2, -1) for t in (tq, tk, sq, sk)), form=form)
    p = 1 / (1 + math.e)  # the first row's softmax of (0, 1); the second row is (0, 0)
    expected = (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(**SHAPES)
def test_relation_kl__is_not_negative(form, **shape):
    assert relation_kl(*draw(**shape), form=form).item() >= -1e-6


@pytest.mark.parametrize("width", [1, 3, 12, 64])
def test_relation_kl__is_zero_for_equal_relations(form, width):
    a, b, *_ = draw(2, 3, 9, width, 1, seed=0)
    sa, sb = a.clone().requires_grad_(), b.clone().requires_grad_()
    loss = relation_kl(a, b, sa, sb, form=form)
    loss.backward()
    assert abs(loss.item()) <= 1e-7
    assert sa.grad.abs().max() <= 1e-7
    assert sb.grad.abs().max() <= 1e-7


@pytest.mark.parametrize(("heads", "tokens", "width"), [(2, 4, 3), (1, 5, 2), (3, 1, 2)])
def test_relation_kl__gradients_of_the_student(form, heads, tokens, width):
    tq, tk, sq, sk = draw(2, heads, tokens, 5, width, seed=1, dtype=torch.float64)
    given_q, given_k = sq.requires_grad_(), sk.requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k: relation_kl(tq, tk, q, k, 0.7, form), (given_q, given_k))


def test_relation_kl__gradients_where_a_and_b_are_one_tensor(form):
    tv, _, sv, _ = draw(2, 2, 4, 5, 3, seed=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: relation_kl(tv, tv, v, v, form=form), (sv.requires_grad_(),))


def test_relation_kl__gives_the_teacher_no_gradient(form):
    tq, tk, sq, sk = (t.requires_grad_() for t in draw(1, 2, 5, 4, 3, seed=3))
    relation_kl(tq, tk, sq, sk, form=form).backward()
    assert tq.grad is None
    assert tk.grad is None
    assert sq.grad.abs().sum() > 0


def test_relation_kl__takes_inference_tensors_of_a_teacher(form):
    tq, tk, sq, sk = draw(1, 2, 5, 4, 3, seed=3)
    with torch.inference_mode():
        teacher = tq.clone(), tk.clone()
    check_against_hand(lambda *given: relation_kl(*given, form=form), [*teacher, sq, sk], 1e-5)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_relation_kl__without_gradients(form, mode):
    tokens = draw(2, 3, 9, 6, 4, seed=5)
    (expected, *_), _ = by_hand(*tokens)
    with mode():
        loss = relation_kl(*tokens[:2], *(t.requires_grad_() for t in tokens[2:]), form=form)
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("which", ["teacher", "student", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_relation_kl__finite_with_logits_of_ten_thousand(form, which, dtype):
    large, calm = certain(dtype), [t.to(dtype) for t in draw(2, 3, 5, 4, 4, seed=3)]
    tq, tk = (large, large) if which != "student" else calm[:2]
    sq, sk = (large, -large) if which != "teacher" else calm[2:]
    sq, sk = sq.clone().requires_grad_(), sk.clone().requires_grad_()
    loss = relation_kl(tq, tk, sq, sk, form=form)
    loss.backward()
    assert loss.isfinite()
    assert sq.grad.isfinite().all()
    assert sk.grad.isfinite().all()
    if which == "both":  # opposed certainty costs the whole distance of the logits
        assert loss.item() == pytest.approx(2e4, rel=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tq": (3, 2, 5, 4), "tk": (3, 2, 5, 4)}, r"relation_kl.sq: \(B, H, N\) of the student is \(1, 2, 5\)"),
        ({"tk": (1, 2, 6, 4)}, r"relation_kl.tk: \(1, 2, 6, 4\) .* must be as tq: \(1, 2, 5, 4\)"),
        ({"sk": (1, 2, 5, 7)}, r"relation_kl.sk: \(1, 2, 5, 7\) .* must be as sq: \(1, 2, 5, 3\)"),
        ({"sq": (2, 5, 3)}, r"relation_kl.sq: shape \(2, 5, 3\) is not \(B, H, N, D\)"),
        ({"tq": (1, 2, 0, 4), "tk": (1, 2, 0, 4)}, r"relation_kl.tq: shape \(1, 2, 0, 4\) .* at least 1"),
    ],
)
def test_relation_kl__names_the_tensor_that_does_not_fit(form, change, message):
    shapes = {"tq": (1, 2, 5, 4), "tk": (1, 2, 5, 4), "sq": (1, 2, 5, 3), "sk": (1, 2, 5, 3), **change}
    with pytest.raises(TinymimError, match=message):
        relation_kl(*(torch.zeros(shape) for shape in shapes.values()), form=form)


def test_relation_kl__names_the_option_that_is_wrong(form):
    tokens = draw(1, 2, 5, 4, 3, seed=0)
    for temperature in (0, -1.0, math.nan, math.inf):
        with pytest.raises(TinymimError, match=r"relation_kl.temperature: .* must be a number above 0"):
            relation_kl(*tokens, temperature, form)
    with pytest.raises(TinymimError, match=r"relation_kl.tq: int is no tensor; give \(B, H, N, D\)"):
        relation_kl(1, 2, 3, 4)  # type: ignore[arg-type]
    with pytest.raises(TinymimError, match=rf"relation_kl.form: '{form}s' is none of auto, reference"):
        relation_kl(*tokens, form=form + "s")
    with pytest.raises(TinymimError, match=r"relation_kl.sq: torch.int64 is no floating-point type"):
        relation_kl(*tokens[:2], tokens[2].long(), tokens[3].long(), form=form)
    with pytest.raises(TinymimError, match=r"relation_kl.tk: .*float32 must be as tq: .*float64"):
        relation_kl(tokens[0].double(), *tokens[1:], form=form)
    with pytest.raises(TinymimError, match=r"relation_kl.tk: on meta, but tq is on cpu"):
        relation_kl(tokens[0], tokens[1].to("meta"), *tokens[2:], form=form)


def test_relation_kl__compiles_without_graph_breaks(form):
    tokens = [t.requires_grad_() for t in draw(2, 3, 9, 6, 4, seed=6)]

    def loss_of(*tokens):
        return 2 * relation_kl(*tokens, form=form if form == "reference" else "auto")

    assert torch._dynamo.explain(loss_of)(*tokens).graph_break_count == 0
    compiled = torch.compile(loss_of, fullgraph=True, backend="aot_eager")(*tokens)
    plain = loss_of(*tokens)
    assert compiled.item() == pytest.approx(plain.item(), rel=1e-6)
    for one, other in zip(*(torch.autograd.grad(x, tokens[2:]) for x in (compiled, plain)), strict=True):
        torch.testing.assert_close(one, other)
