import dataclasses
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from tinymim.tasks.network import BackboneWithHead, pool_errors
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import skeleton
from tinymim.vit.classifier_head import Head, HeadForm, mean_prediction

STAR = Architecture("deit_tiny_distilled_patch16_224", heads=12, pos_embed="sincos")


def shaken(form, width=6, prefix=2):
    """A head none of whose weights are at the zeros and ones they start from."""
    torch.manual_seed(0)
    head = Head(width, prefix, form).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head


def tokens(prefix=2, width=6):
    return 2 * torch.randn(3, prefix + 5, width, generator=torch.Generator().manual_seed(1)) + 1


def normed(x, norm, eps):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    return x * value(norm.weight) + value(norm.bias)


def value(tensor):
    return tensor.detach().numpy().astype(np.float64)


def applied(x, linear):
    return x @ value(linear.weight).T + value(linear.bias)


def gelu(x):
    return torch.nn.functional.gelu(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("neck", [0, 8])
@pytest.mark.parametrize("norm", ["layer", "none"])
@pytest.mark.parametrize("pool", ["mean", "cls", "cls_dist"])
def test_head__by_hand(pool, norm, neck):
    head = shaken(HeadForm(4, pool, neck, norm))
    x = value(tokens())
    if neck:  # on every token, before pooling
        x = gelu(applied(normed(x, head.neck.norm, 1e-6), head.neck.linear))
    pooled = {"mean": [x[:, 2:].mean(1)], "cls": [x[:, 0]], "cls_dist": [x[:, 0], x[:, 1]]}[pool]
    if norm == "layer":
        pooled = [normed(one, head.norm, 1e-6) for one in pooled]
    expected = [applied(one, linear) for one, linear in zip(pooled, (head.head, head.head_dist), strict=False)]
    each = head.each(tokens())
    assert len(each) == len(expected)
    for found, wanted in zip(each, expected, strict=True):
        np.testing.assert_allclose(value(found), wanted, rtol=1e-4, atol=1e-5)


@given(
    st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), min_size=2, max_size=2),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_prediction__mean_of_both_softmaxes_and_never_nan(logits, dtype):
    both = [torch.tensor([row], dtype=dtype) for row in logits]
    found = mean_prediction(both)
    expected = torch.stack([one.double().softmax(-1) for one in both]).mean(0)
    torch.testing.assert_close(found.double().softmax(-1), expected, atol=1e-5, rtol=1e-4)


def test_prediction__is_not_the_mean_of_the_logits():
    both = [torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[0.0, 2.0, 0.0]])]
    softmaxes = (both[0].softmax(-1) + both[1].softmax(-1)) / 2
    torch.testing.assert_close(mean_prediction(both).softmax(-1), softmaxes)
    assert not torch.allclose(((both[0] + both[1]) / 2).softmax(-1), softmaxes, atol=0.1)


def test_prediction__of_one_classifier_is_its_logits():
    head = shaken(HeadForm(4))
    assert torch.equal(head(tokens()), head.each(tokens())[0])


def test_form__is_plain_enough_for_a_record():
    form = HeadForm(10, "cls_dist", 320, "none")
    assert HeadForm(**dataclasses.asdict(form)) == form
    assert form.describe() == "CLS and distillation token, neck of 320 channels, 10 classes"


def test_star__has_the_papers_size():
    """5.8 M parameters without the classifiers and 1.3 GFLOPs (multiply-adds), as TinyMIM Table 1 counts."""
    backbone = skeleton(STAR)
    with torch.device("meta"):
        network = BackboneWithHead(backbone, HeadForm(1000, "cls_dist", neck=1280))
    names = {name: p.numel() for name, p in network.named_parameters()}
    last = sum(count for name, count in names.items() if name.startswith("head"))
    assert last == 2 * (1280 * 1000 + 1000)
    assert (
        sum(names[f"neck.{part}"] for part in ("norm.weight", "norm.bias", "linear.weight", "linear.bias")) == 247_424
    )
    assert sum(names.values()) - last == pytest.approx(5.77e6, abs=0.01e6)
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(1.3, abs=0.05)


@pytest.mark.parametrize(
    ("arch", "pool", "deit", "words"),
    [
        ("vit_tiny_patch16_224", "cls_dist", False, ["pool: cls_dist, but vit_tiny_patch16_224 has no distillation"]),
        ("vit_tiny_patch16_224", "mean", True, ["deit: .*has no distillation token.*deit_\\*_distilled_\\*"]),
        (STAR.arch, "mean", True, ["deit: .*pool is mean; set pool: cls_dist"]),
        (STAR.arch, "cls_dist", True, []),
        (STAR.arch, "mean", False, []),
        ("vit_tiny_patch16_224", "cls", False, []),
    ],
)
def test_pool_errors(arch, pool, deit, words):
    found = pool_errors(skeleton(Architecture(arch, {"depth": 1})), pool, deit)
    assert len(found) == len(words)
    assert all(re.match(word, line) for line, word in zip(found, words, strict=True)), found


def test_pool_errors__no_cls_token():
    network = skeleton(Architecture(options={"depth": 1, "class_token": False, "global_pool": "avg"}))
    assert "use mean" in pool_errors(network, "cls", False)[0]
