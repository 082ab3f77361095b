import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from tests.ops.tokens import SHAPES, check_against_hand, draw
from tinymim.ops import relation_kl
from tinymim.ops.blocked import map_blocks


def blocked(*tokens):
    return relation_kl(*tokens, form="blocked")


@settings(max_examples=60, deadline=None)
@given(**SHAPES, elements=st.integers(1, 600))
def test_blocked__equals_the_formula_for_any_size_of_block(elements, **shape):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinymim.ops.blocked.ELEMENTS", elements)
        check_against_hand(blocked, draw(**shape), 1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 9), st.integers(1, 500))
def test_blocks__cover_every_query_once(images, heads, tokens, elements):
    seen = torch.zeros(images, heads, tokens, dtype=torch.int)
    for block in map_blocks(images, heads, tokens, elements):
        part = seen[block]
        assert part.numel() * tokens <= max(elements, tokens)
        assert part.shape[2] == tokens or part.shape[:2] == (1, 1)  # some queries of one head
        assert part.shape[1] == heads or part.shape[0] == 1  # some heads of one image
        part += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("tokens", [[t.bfloat16() for t in draw(2, 3, 64, 8, 4, 0)], draw(2, 3, 64, 8, 4, 0)])
def test_blocked__holds_no_whole_map(monkeypatch, tokens):
    monkeypatch.setattr("tinymim.ops.blocked.ELEMENTS", 16 * 64)  # 16 queries of one head

    blocked(*tokens)  # the processor is measured once

    def largest(form):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            relation_kl(*tokens[:2], *(t.requires_grad_() for t in tokens[2:]), form=form).backward()
        return max(event.self_cpu_memory_usage for event in profiled.events())

    assert largest("reference") >= 4 * 2 * 3 * 64 * 64
    assert largest("blocked") <= 4 * 2 * 3 * 64 * 8  # a tensor of tokens


def together(tokens, monkeypatch, late):
    """Loss, gradients, and how often a number was looked at."""
    looks = []
    asked = torch.Tensor.__bool__
    with monkeypatch.context() as patch:
        patch.setattr("tinymim.ops.blocked._late", lambda x: late)
        patch.setattr(torch.Tensor, "__bool__", lambda x: looks.append(1) or asked(x))
        tq, tk, *student = (x.clone() for x in tokens)
        loss = blocked(tq, tk, *(x.requires_grad_() for x in student))
    loss.backward()
    return [loss.detach(), *(x.grad for x in student)], len(looks)


@pytest.mark.parametrize("spread", [1.0, 40.0], ids=["plain", "underflow"])
def test_blocked__asked_once_for_all_blocks_it_is_the_same(monkeypatch, spread):
    monkeypatch.setattr("tinymim.ops.blocked.ELEMENTS", 300)
    tokens = [spread * x for x in draw(2, 3, 16, 8, 4, 0)]
    each, looks = together(tokens, monkeypatch, False)
    once, look = together(tokens, monkeypatch, True)
    assert all(torch.equal(a, b) for a, b in zip(each, once, strict=True))
    assert each[0].isfinite()
    assert looks == 6
    assert look == (1 if spread == 1 else 1 + looks)


def test_blocked__computes_no_gradients_where_nobody_asks(monkeypatch):
    tokens = draw(1, 2, 5, 4, 3, seed=0)
    products = []
    bmm = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *given: products.append(1) or bmm(*given))
    blocked(*tokens)
    with torch.no_grad():
        blocked(*tokens[:2], *(t.requires_grad_() for t in tokens[2:]))
    assert not products
    blocked(*tokens)
    assert products


def test_blocked__refuses_a_second_derivative():
    tq, tk, sq, sk = draw(1, 2, 5, 4, 3, seed=0)
    loss = blocked(tq, tk, sq.requires_grad_(), sk)
    with pytest.raises(NotImplementedError, match=r"differentiable once; .* form='reference'"):
        torch.autograd.grad(loss, sq, create_graph=True)


@pytest.mark.parametrize("gradients", [True, False])
def test_blocked__is_an_operator_as_pytorch_wants_them(gradients):
    tq, tk, sq, sk = draw(1, 2, 5, 4, 3, seed=0)
    tokens = [tq, tk, sq.requires_grad_(gradients), sk.requires_grad_(gradients)]
    torch.library.opcheck(torch.ops.tinymim.relation_kl_blocked.default, (*tokens, 1.0, gradients))
