import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinymim.teacher_cache.forms import Form, dequantise, encoded, forms_of, quantise
from tinymim.vit.taps import LOGITS, NORMED, Tap

shapes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9))


@given(shapes, st.integers(0, 2**31), st.integers(-30, 30))
def test_quantise__no_channel_is_off_by_more_than_half_a_step(shape, seed, exponent):
    tokens = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    codes, scales = quantise(tokens)
    expected = np.abs(tokens.numpy()).max(-1) / 127
    assert codes.dtype == torch.int8
    np.testing.assert_allclose(scales.numpy(), expected, rtol=1e-6)
    off = (dequantise(codes, scales) - tokens).abs().amax(-1).numpy()
    assert (off <= expected * 0.5 * (1 + 1e-5)).all()


@given(shapes, st.integers(0, 2**31))
def test_form__reads_back_what_quantising_makes_and_nothing_else(shape, seed):
    batch, count, width = shape
    tokens = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    form = Form(Tap(1, NORMED), count, width)
    records = form.encode(tokens)
    assert records.shape == (batch, form.size)
    assert torch.equal(form.decode(records), dequantise(*quantise(tokens)))
    alone = torch.cat([form.encode(one[None]) for one in tokens])  # a record depends on its image alone
    assert torch.equal(records, alone)


def test_quantise__a_token_of_zeros_stays_one():
    codes, scales = quantise(torch.zeros(2, 3, 4))
    assert not codes.any()
    assert not dequantise(codes, scales).any()


def test_form__small_things_are_exact():
    logits, tokens = torch.randn(3, 10), torch.randn(3, 5, 8)
    forms = forms_of([Tap(2, LOGITS), Tap(1, "ffn_post")], [Tap(1, "ffn_post")], 5, 8, 10)
    records = encoded(forms, {Tap(2, LOGITS): logits, Tap(1, "ffn_post"): tokens})
    first, last = forms
    assert torch.equal(first.decode(records["block1_ffn_post_cls"]), tokens[:, :1])
    assert torch.equal(last.decode(records["block2_logits"]), logits)
    assert (first.size, last.size) == (32, 40)


def test_forms__q_k_and_v_are_one_and_each_thing_is_stored_once():
    taps = [Tap(12, "q"), Tap(12, "k"), Tap(12, "v"), Tap(12, "q"), Tap(9, "ffn_post")]
    forms = forms_of(taps, [], 197, 768, 0)
    assert [form.name for form in forms] == ["block9_ffn_post", "block12_normed"]
    assert forms[1].size == 197 * (768 + 4) == 152_084
