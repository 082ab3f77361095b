import numpy as np
import pytest
import torch

from tinymim.errors import TinymimError
from tinymim.targets import CLS
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.taps import Tap

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
    weight, bias = (p.detach().numpy().astype(np.float64) for p in target.projections.parameters())
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
    assert {name for name, _ in target.named_parameters()} == {"projections.0.weight", "projections.0.bias"}
    assert all(p.grad.abs().sum() > 0 for p in target.parameters())
    assert student.vit.cls_token.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("side", ["teacher", "student"])
def test_cls__needs_a_class_token(side):
    with pytest.raises(TinymimError, match="no CLS token"):
        bound(CLS(), **{side: NO_CLS})


def test_cls__describes_blocks_and_projection():
    assert bound(CLS()).describe() == "cross_entropy: block 2 -> 3, student projected 12 -> 24 (linear)"


def test_cls__mlp_projection_is_two_layers_with_gelu_between():
    target = bound(CLS(projection="mlp", loss="smooth_l1"))
    teacher, student = readings()
    first, second = (layer for layer in target.projections[0] if isinstance(layer, torch.nn.Linear))
    assert (first.in_features, second.out_features) == (12, 24)
    x = student[Tap(3, "ffn_post")][:, 0] @ first.weight.T + first.bias
    x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
    gap = (x @ second.weight.T + second.bias - by_hand_teacher(teacher)).abs()
    expected = torch.where(gap < 1, gap**2 / 2, gap - 0.5).mean()
    assert sum(target(teacher, student).values()).item() == pytest.approx(expected.item(), rel=1e-5)


def by_hand_teacher(teacher):
    t = teacher[Tap(2, "ffn_post")][:, 0]
    return (t - t.mean(-1, keepdim=True)) / (t.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()


def test_cls__centring_subtracts_the_mean_of_the_steps_before():
    target, plain = bound(CLS(centring=True, centre_momentum=0.75)), bound(CLS())
    plain.load_state_dict(target.state_dict(), strict=False)
    first, second = readings(seed=0), readings(seed=1)
    assert target(*first)[""].item() == pytest.approx(plain(*first)[""].item(), rel=1e-6)  # the centre starts at zero
    centre = 0.25 * by_hand_teacher(first[0]).mean(0)
    assert target.centre[0].numpy() == pytest.approx(centre.numpy(), rel=1e-5)
    t = (by_hand_teacher(second[0]) - centre).softmax(-1)
    log_s = plain.projections[0](second[1][Tap(3, "ffn_post")][:, 0]).log_softmax(-1)
    assert target(*second)[""].item() == pytest.approx(-(t * log_s).sum(-1).mean().item(), rel=1e-5)


def test_cls__evaluation_does_not_move_the_centre_and_checkpoints_keep_it():
    target = bound(CLS(centring=True))
    target(*readings())
    kept = target.centre.clone()
    target.eval()(*readings(seed=1))
    assert torch.equal(target.centre, kept)
    assert torch.equal(target.state_dict()["centre"], kept)


def test_cls__several_blocks_are_averaged_each_with_its_projection():
    target = bound(CLS(teacher_block=[1, 2], student_block=[2, 3]))
    (t, s), (u, v) = readings(), readings(seed=1)
    teacher = {Tap(2, "ffn_post"): t[Tap(2, "ffn_post")], Tap(1, "ffn_post"): u[Tap(2, "ffn_post")]}
    student = {Tap(3, "ffn_post"): s[Tap(3, "ffn_post")], Tap(2, "ffn_post"): v[Tap(3, "ffn_post")]}
    losses = target(teacher, student)
    assert set(losses) == {"1to2", "2to3"}
    one = bound(CLS())
    one.projections[0].load_state_dict(target.projections[1].state_dict())
    assert losses["2to3"].item() == pytest.approx(one(t, s)[""].item() / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"centre_momentum": 1.0}, "momentum"),
        ({"loss": "cosine", "centring": True}, "would do nothing"),
        ({"loss": "smooth_l1", "temperature": 0.1}, "would do nothing"),
    ],
)
def test_cls__options_out_of_range(options, message):
    with pytest.raises(TinymimError, match=message):
        bound(CLS(**options))
