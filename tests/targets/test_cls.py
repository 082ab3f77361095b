import numpy as np
import pytest
import torch

from tinymim.architecture import Architecture
from tinymim.backbones import Backbone, Tap, skeleton
from tinymim.errors import TinymimError
from tinymim.targets import CLS

TEACHER = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 4}
STUDENT = {**TEACHER, "embed_dim": 12, "num_heads": 3}
NO_CLS = {"class_token": False, "global_pool": "avg"}


def bound(target, teacher=None, student=None):
    torch.manual_seed(0)
    networks = [skeleton(Architecture(options=o)) for o in (TEACHER | (teacher or {}), STUDENT | (student or {}))]
    target.bind(*networks, 2)
    return target


def readings(seed=0, batch=5):
    """Teacher and student tokens, far from mean 0 and variance 1."""
    generator = torch.Generator().manual_seed(seed)
    teacher = 3 * torch.randn(batch, 17, 24, generator=generator) + 2
    student = 2 * torch.randn(batch, 17, 12, generator=generator) - 1
    return {Tap(2, "ffn_post"): teacher}, {Tap(3, "ffn_post"): student}


def by_hand(target, teacher, student):
    """The whitened teacher's and the projected student's CLS tokens, ``(B, 24)`` in float64."""
    t, s = (next(iter(r.values()))[:, 0].numpy().astype(np.float64) for r in (teacher, student))
    weight, bias = (p.detach().numpy().astype(np.float64) for p in target.projection.parameters())
    t = (t - t.mean(-1, keepdims=True)) / np.sqrt(t.var(-1, keepdims=True) + 1e-5)
    return t, s @ weight.T + bias


@pytest.mark.parametrize("temperature", [1.0, 0.1, 4.0])
def test_cls__soft_cross_entropy_with_temperature(temperature):
    target = bound(CLS(temperature=temperature))
    teacher, student = readings()
    t, s = by_hand(target, teacher, student)
    p = np.exp(t / temperature) / np.exp(t / temperature).sum(-1, keepdims=True)
    q = np.exp(s / temperature) / np.exp(s / temperature).sum(-1, keepdims=True)
    expected = -(p * np.log(q)).sum(-1).mean()
    assert sum(target(teacher, student).values()).item() == pytest.approx(expected, rel=1e-5)


def test_cls__cosine():
    target = bound(CLS(loss="cosine"))
    teacher, student = readings()
    t, s = by_hand(target, teacher, student)
    expected = 1 - ((t * s).sum(-1) / np.linalg.norm(t, axis=-1) / np.linalg.norm(s, axis=-1)).mean()
    assert sum(target(teacher, student).values()).item() == pytest.approx(expected, rel=1e-5)


def test_cls__smooth_l1():
    target = bound(CLS(loss="smooth_l1"))
    teacher, student = readings()
    t, s = by_hand(target, teacher, student)
    gap = np.abs(s - t)
    assert gap.min() < 1 < gap.max()
    expected = np.where(gap < 1, gap**2 / 2, gap - 0.5).mean()
    assert sum(target(teacher, student).values()).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "cosine", "smooth_l1"])
def test_cls__reads_the_first_token_alone(loss):
    target = bound(CLS(loss=loss))
    teacher, student = readings()
    before = sum(target(teacher, student).values()).item()
    for tokens in (*teacher.values(), *student.values()):
        tokens[:, 1:] += 100
    assert sum(target(teacher, student).values()).item() == before


@pytest.mark.parametrize("loss", ["cross_entropy", "cosine", "smooth_l1"])
def test_cls__student_and_projection_receive_gradient_and_the_teacher_none(loss):
    target = CLS(loss=loss)
    teacher, student = (Backbone(Architecture(options=options)) for options in (TEACHER, STUDENT))
    target.bind(teacher.requires_grad_(False), student, 3)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        given = teacher.read(images, target.teacher_taps())
    sum(target(given, student.read(images, target.student_taps())).values()).backward()
    assert {name for name, _ in target.named_parameters()} == {"projection.weight", "projection.bias"}
    assert all(p.grad.abs().sum() > 0 for p in target.parameters())
    assert student.vit.cls_token.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("side", ["teacher", "student"])
def test_cls__needs_a_class_token(side):
    with pytest.raises(TinymimError, match="no CLS token"):
        bound(CLS(), **{side: NO_CLS})


def test_cls__describes_blocks_and_projection():
    assert bound(CLS()).describe() == "cross_entropy: block 2 -> block 3, student projected 12 -> 24"
