import numpy as np
import pytest
import torch

from tinymim.errors import TinymimError
from tinymim.targets import Relation
from tinymim.targets.tokens import Tokens
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import skeleton
from tinymim.vit.taps import Tap

SIZES = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3}


def sized(**options):
    return skeleton(Architecture(options=SIZES | options))


def test_tokens__equal_networks_are_left_as_they_are():
    match = Tokens.match(sized(), sized(), True, "relation")
    teacher, student = torch.rand(2, 17, 12), torch.rand(2, 17, 12)
    assert match.describe() == ""
    assert all(a is b for a, b in zip(match(teacher, student), (teacher, student), strict=True))


def test_tokens__without_cls_patches_alone():
    match = Tokens.match(sized(), sized(reg_tokens=2), False, "feature")
    teacher, student = torch.rand(2, 17, 12), torch.rand(2, 19, 12)
    t, s = match(teacher, student)
    assert torch.equal(t, teacher[:, 1:])
    assert torch.equal(s, student[:, 3:])


@pytest.mark.parametrize("teacher", [{"reg_tokens": 4}, {"reg_tokens": 1}])
@pytest.mark.parametrize("student", [{"arch": "deit_tiny_distilled_patch16_224"}, {}])
def test_tokens__registers_and_distillation_tokens_are_compared_with_nothing(teacher, student):
    networks = sized(**teacher), skeleton(Architecture(options=SIZES, **student))
    match = Tokens.match(*networks, True, "relation")
    tokens = [torch.rand(2, network.prefix + 16, 12) for network in networks]
    for given, own in zip(match(*tokens), tokens, strict=True):
        assert torch.equal(given, torch.cat([own[:, :1], own[:, -16:]], dim=1))


def test_tokens__a_network_without_cls_shares_no_prefix():
    match = Tokens.match(sized(class_token=False, global_pool="avg"), sized(), True, "relation")
    t, s = match(torch.rand(2, 16, 12), torch.rand(2, 17, 12))
    assert t.shape == s.shape == (2, 16, 12)


def test_tokens__finer_teacher_is_averaged_as_a_triangle_filter_does():
    match = Tokens.match(sized(img_size=32), sized(), True, "relation")  # 8x8 to 4x4
    line = torch.arange(8.0)  # a ramp along the columns: interpolation keeps its inner values
    teacher = torch.cat([torch.full((1, 1, 1), -7.0), line.repeat(8).view(1, 64, 1)], dim=1)
    t, _ = match(teacher, torch.zeros(1, 17, 1))
    assert t.shape == (1, 17, 1)
    assert t[0, 0, 0] == -7  # CLS is no patch
    rows = t[0, 1:, 0].view(4, 4)
    assert torch.equal(rows[0], rows[3])
    weights = np.array([1, 3, 3, 1]) / 8  # the triangle of twice the width, sampled at four neighbours
    expected = [weights @ np.arange(8.0)[2 * i - 1 : 2 * i + 3] for i in (1, 2)]
    assert rows[0, 1:3].numpy() == pytest.approx(np.array(expected), rel=1e-5)


def test_tokens__coarser_teacher_is_interpolated():
    match = Tokens.match(sized(img_size=8), sized(), True, "relation")  # 2x2 to 4x4
    t, _ = match(torch.tensor([[0.0], [0.0], [4.0], [0.0], [4.0]]).unsqueeze(0), torch.zeros(1, 17, 1))
    assert t[0, 1:5, 0].tolist() == pytest.approx([0.0, 1.0, 3.0, 4.0])


def test_tokens__a_target_over_different_grids_has_as_many_tokens_as_the_student():
    teacher, student = sized(img_size=32, embed_dim=24, num_heads=4), sized()
    target = Relation()
    target.bind(teacher, student, 2)
    assert "8x8 tokens resampled to 4x4" in target.describe()
    given = {tap: torch.randn(2, 65, 24) for tap in target.teacher_taps()}
    taken = {tap: torch.randn(2, 17, 12, requires_grad=True) for tap in target.student_taps()}
    sum(target(given, taken).values()).backward()
    assert taken[Tap(2, "q")].grad.abs().sum() > 0


def test_tokens__grids_of_another_shape_cannot_be_resampled():
    with pytest.raises(TinymimError, match=r"relation: the teacher sees 4x2 patches and the student 4x4.*img_size"):
        Tokens.match(sized(img_size=(16, 8)), sized(), True, "relation")
