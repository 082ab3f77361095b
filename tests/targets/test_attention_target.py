import numpy as np
import pytest
import torch

from tinymim.targets import AttentionMap
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.taps import Tap

TEACHER = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 4}
STUDENT = {**TEACHER, "embed_dim": 12, "num_heads": 4}


def bound(target, **student):
    target.bind(skeleton(Architecture(options=TEACHER)), skeleton(Architecture(options=STUDENT | student)), 2)
    return target


def readings(seed=0):
    generator = torch.Generator().manual_seed(seed)
    teacher = {Tap(2, name): torch.randn(2, 17, 24, generator=generator) for name in "qk"}
    return teacher, {Tap(3, name): torch.randn(2, 17, 12, generator=generator) for name in "qk"}


def maps(side, heads, tokens=slice(None)):
    """Softmax attention by hand, ``(B, H, N, N)`` in float64."""
    q, k = (next(x for tap, x in side.items() if tap.name == name).double().numpy()[:, tokens] for name in "qk")
    q, k = (x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3) for x in (q, k))
    products = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
    return products / products.sum(-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1).mean()


def test_attention__head_by_head_where_the_numbers_agree():
    target = bound(AttentionMap())
    teacher, student = readings()
    assert target(teacher, student)[""].item() == pytest.approx(kl(maps(teacher, 4), maps(student, 4)), rel=1e-5)
    assert "head by head" in target.describe()


def test_attention__means_over_heads_where_they_differ():
    target = bound(AttentionMap(), num_heads=3)
    teacher, student = readings()
    expected = kl(maps(teacher, 4).mean(1), maps(student, 3).mean(1))
    assert target(teacher, student)[""].item() == pytest.approx(expected, rel=1e-5)
    assert "means of 4 and 3 heads" in target.describe()


def test_attention__means_on_request_and_mean_squares():
    target = bound(AttentionMap(average_heads=True, loss="mse"))
    teacher, student = readings()
    expected = ((maps(teacher, 4).mean(1) - maps(student, 4).mean(1)) ** 2).mean()
    assert target(teacher, student)[""].item() == pytest.approx(expected, rel=1e-5)


def test_attention__without_cls():
    target = bound(AttentionMap(cls=False))
    teacher, student = readings()
    expected = kl(maps(teacher, 4, slice(1, None)), maps(student, 4, slice(1, None)))
    assert target(teacher, student)[""].item() == pytest.approx(expected, rel=1e-5)


def test_attention__large_products_stay_finite_and_the_student_gets_gradients():
    target = AttentionMap()
    teacher, student = (Backbone(Architecture(options=options)) for options in (TEACHER, STUDENT))
    target.bind(teacher, student, 3)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        given = {tap: 1e4 * tokens for tap, tokens in teacher.read(images, target.teacher_taps()).items()}
    loss = target(given, student.read(images, target.student_taps()))[""]
    loss.backward()
    assert loss.isfinite()
    assert student.vit.blocks[2].attn.qkv.weight.grad.isfinite().all()
    assert student.vit.blocks[2].attn.qkv.weight.grad.abs().sum() > 0
