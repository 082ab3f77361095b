import numpy as np
import pytest
import torch

from tinymim.errors import TinymimError
from tinymim.targets import Logits
from tinymim.targets.logits import soft_kl
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.taps import Tap

TEACHER = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 4}
CLASSIFIER = {"num_classes": 5, "global_pool": "token"}
STUDENT = {**TEACHER, "embed_dim": 12, "num_heads": 3, "depth": 3}


def bound(target, teacher=CLASSIFIER, student=None):
    torch.manual_seed(0)
    networks = [skeleton(Architecture(options=o)) for o in (TEACHER | teacher, STUDENT | (student or {}))]
    target.bind(*networks, 2)
    return target


def readings(block=3):
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(6, 5, generator=generator)
    return {Tap(4, "logits"): logits}, {Tap(block, "ffn_post"): torch.randn(6, 17, 12, generator=generator)}


def kl_by_hand(t, s, temperature):
    """KL(softmax(t / T) ‖ softmax(s / T)) in float64, mean over rows."""
    t, s = (x.detach().numpy().astype(np.float64) / temperature for x in (t, s))
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (t, s))
    return (p * np.log(p / q)).sum(-1).mean()


@pytest.mark.parametrize("cls", [False, True])
@pytest.mark.parametrize("t_squared", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 3.0, 0.5])
def test_logits__kl_of_softened_probabilities(temperature, t_squared, cls):
    target = bound(Logits(temperature, t_squared, cls))
    teacher, student = readings()
    tokens = next(iter(student.values()))
    pooled = tokens[:, 0] if cls else tokens[:, 1:].mean(1)
    expected = kl_by_hand(next(iter(teacher.values())), target.projection(pooled), temperature)
    expected *= temperature**2 if t_squared else 1
    (loss,) = target(teacher, student).values()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_soft_kl__zero_only_where_the_probabilities_agree_and_finite_at_extremes():
    t = torch.tensor([[1e4, -1e4, 0.0], [1.0, 2.0, 3.0]])
    assert soft_kl(t, t + 7, 2.0).item() == pytest.approx(0, abs=1e-6)
    assert soft_kl(t, -t, 2.0).isfinite()
    assert soft_kl(t[1:], t[1:].flip(-1), 2.0) > 0.1


def test_soft_kl__t_squared_keeps_the_gradients_size():
    t, s = torch.tensor([[1.0, 0.0, -1.0]]), torch.zeros(1, 3)
    sizes = []
    for temperature in (10.0, 100.0):
        s.requires_grad_(True).grad = None
        soft_kl(t, s, temperature).backward()
        sizes.append(s.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_soft_kl__gradient():
    t, s = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, requires_grad=True)
    soft_kl(t, s, 3.0).backward()
    q, p = ((x.double() / 3).softmax(-1) for x in (s, t))
    torch.testing.assert_close(s.grad.double(), 3 * (q - p).detach() / 3, atol=1e-6, rtol=1e-4)  # T² / T / B


def test_logits__read_after_the_teachers_last_block_whatever_the_target_block_is():
    target = bound(Logits(student_block=2))
    assert target.teacher_taps() == [Tap(4, "logits")]
    assert target.student_taps() == [Tap(2, "ffn_post")]
    teacher, student = readings(block=2)
    assert target(teacher, student)[""].isfinite()
    assert target.describe() == "5 classes, temperature 3 (loss x T²): logits -> mean patch token of block 2, linear"


def test_logits__train_student_and_projection_alone():
    target = Logits()
    teacher, student = (Backbone(Architecture(options=o)) for o in (TEACHER | CLASSIFIER, STUDENT))
    target.bind(teacher.requires_grad_(False), student, 4)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        given = teacher.read(images, target.teacher_taps())
    target(given, student.read(images, target.student_taps()))[""].backward()
    assert {name for name, _ in target.named_parameters()} == {"projection.weight", "projection.bias"}
    reached = student.reached(target.student_taps())
    assert reached == {name for name, p in student.named_parameters() if p.grad is not None}
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize(
    ("target", "networks", "words"),
    [
        (Logits(), {"teacher": {}}, "logits: the teacher.*has no classifier.*finetune_digits.*num_classes"),
        (Logits(temperature=0), {}, "temperature: 0 is not a number above 0"),
        (Logits(cls=True), {"student": {"class_token": False, "global_pool": "avg"}}, "logits.cls.*no CLS token"),
    ],
)
def test_logits__refused(target, networks, words):
    with pytest.raises(TinymimError, match=words):
        bound(target, **networks)
