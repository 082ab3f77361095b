import math
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tinymim.errors import TinymimError
from tinymim.targets import CLS, AttentionMap, Feature, Logits, Relation, Target
from tinymim.targets.base import block_numbers, first_only_taps, target_block, whiten
from tinymim.targets.feature import Place
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.taps import Tap

TEACHER = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 4}
STUDENT = {**TEACHER, "embed_dim": 12, "num_heads": 3}


def sized(**options):
    return skeleton(Architecture(options=TEACHER | options))


def bound(target, **student):
    torch.manual_seed(0)
    target.bind(sized(), sized(**STUDENT | student), 2)
    return target


def readings(tap="ffn_post", seed=0, student_prefix=1):
    """Teacher and student tokens, far from mean 0 and variance 1."""
    generator = torch.Generator().manual_seed(seed)
    teacher = 3 * torch.randn(2, 17, 24, generator=generator) + 2
    student = 4 * torch.randn(2, 16 + student_prefix, 12, generator=generator) - 1
    return {Tap(2, tap): teacher}, {Tap(3, tap): student}


def by_hand(target, teacher, student, first=(1, 1)):
    """The whitened teacher's and the projected student's tokens, ``(B, N, 24)`` in float64."""
    t, s = (next(iter(r.values()))[:, n:] for r, n in zip((teacher, student), first, strict=True))
    t, s = (tokens.numpy().astype(np.float64) for tokens in (t, s))
    weight, bias = (p.detach().numpy().astype(np.float64) for p in target.projections.parameters())
    t = (t - t.mean(-1, keepdims=True)) / np.sqrt(t.var(-1, keepdims=True) + 1e-5)
    return t, s @ weight.T + bias


def smooth_l1(t, s, beta=2.0):
    gap = np.abs(s - t)
    assert gap.min() < beta < gap.max()
    return np.where(gap < beta, gap**2 / (2 * beta), gap - beta / 2).mean()


def cosine(t, s):
    return 1 - ((t * s).sum(-1) / np.linalg.norm(t, axis=-1) / np.linalg.norm(s, axis=-1)).mean()


LOSSES = {
    "smooth_l1": smooth_l1,
    "mse": lambda t, s: ((s - t) ** 2).mean(),
    "l1": lambda t, s: np.abs(s - t).mean(),
    "cosine": cosine,
}


def test_whiten__is_mean_and_variance_of_the_channels():
    tokens = torch.tensor([[1.0, 2.0, 3.0, 6.0], [1e-3, -1e-3, 1e-3, -1e-3]])
    x = tokens.numpy().astype(np.float64)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    assert expected[0] == pytest.approx(np.array([-2, -1, 0, 3]) / np.sqrt(3.5 + 1e-5))
    assert whiten(tokens).numpy() == pytest.approx(expected, rel=1e-5)
    assert whiten(tokens.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("loss", LOSSES)
def test_feature__each_loss_on_the_patches(loss):
    target = bound(Feature(loss=loss))
    teacher, student = readings()
    expected = LOSSES[loss](*by_hand(target, teacher, student))
    assert sum(target(teacher, student).values()).item() == pytest.approx(expected, rel=1e-5)


def test_feature__beta_moves_where_smooth_l1_turns():
    target = bound(Feature(beta=0.5))
    teacher, student = readings()
    expected = smooth_l1(*by_hand(target, teacher, student), beta=0.5)
    assert sum(target(teacher, student).values()).item() == pytest.approx(expected, rel=1e-5)


def test_feature__with_cls_on_request():
    target = bound(Feature(cls=True, loss="mse"))
    teacher, student = readings()
    expected = LOSSES["mse"](*by_hand(target, teacher, student, first=(0, 0)))
    assert sum(target(teacher, student).values()).item() == pytest.approx(expected, rel=1e-5)


def test_feature__patches_meet_where_the_prefixes_differ():
    target = bound(Feature(loss="mse"), reg_tokens=2)
    teacher, student = readings(student_prefix=3)
    expected = LOSSES["mse"](*by_hand(target, teacher, student, first=(1, 3)))
    assert sum(target(teacher, student).values()).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("target", [AttentionMap, CLS, Feature, Logits, Relation])
@pytest.mark.parametrize("weight", [-1, 0, math.nan, math.inf])
def test_weight__of_any_target_is_above_zero(target, weight):
    with pytest.raises(TinymimError, match=rf"^{target.__name__.lower()}.weight: {weight} is not a number above 0"):
        bound(target(weight=weight))


@pytest.mark.parametrize("tap", get_args(Place))
def test_feature__reads_the_tap_asked_for(tap):
    target = bound(Feature(tap=tap, teacher_block=1))
    assert target.teacher_taps() == [Tap(1, tap)]
    assert target.student_taps() == [Tap(3, tap)]


@pytest.mark.parametrize("loss", LOSSES)
def test_feature__student_and_projection_receive_gradient_and_the_teacher_none(loss):
    target = Feature(loss=loss)
    teacher, student = (Backbone(Architecture(options=options)) for options in (TEACHER, STUDENT))
    target.bind(teacher.requires_grad_(False), student, 3)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        given = teacher.read(images, target.teacher_taps())
    sum(target(given, student.read(images, target.student_taps())).values()).backward()
    assert {name for name, _ in target.named_parameters()} == {"projections.0.weight", "projections.0.bias"}
    assert all(p.grad.abs().sum() > 0 for p in target.parameters())
    assert student.vit.patch_embed.proj.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())


def test_feature__a_list_of_taps_is_averaged_each_with_its_projection():
    target = bound(Feature(tap=["q", "k", "v"]))
    assert target.teacher_taps() == [Tap(2, "q"), Tap(2, "k"), Tap(2, "v")]
    teacher, student = {}, {}
    for seed, tap in enumerate("qkv"):
        for all_of, one in zip((teacher, student), readings(tap, seed), strict=True):
            all_of.update(one)
    losses = target(teacher, student)
    assert list(losses) == ["q", "k", "v"]
    single = bound(Feature(tap="k"))
    single.projections[0].load_state_dict(target.projections[1].state_dict())
    assert losses["k"].item() == pytest.approx(single(*readings("k", 1))[""].item() / 3, rel=1e-6)


def test_feature__without_whitening_the_teacher_is_taken_as_it_is():
    target = bound(Feature(whiten=False, loss="mse"))
    teacher, student = readings()
    _, s = by_hand(target, teacher, student)
    expected = ((s - teacher[Tap(2, "ffn_post")][:, 1:].double().numpy()) ** 2).mean()
    assert sum(target(teacher, student).values()).item() == pytest.approx(expected, rel=1e-5)


def test_feature__blocks_must_fit():
    with pytest.raises(TinymimError, match=r"feature\.student_block: 7 .*1 to 3"):
        bound(Feature(student_block=7))


@pytest.mark.parametrize(("depths", "block"), [((12, 12), 12), ((24, 12), 18), ((6, 3), 4), ((3, 6), 2)])
def test_target_block__last_for_equal_depths_else_three_quarters(depths, block):
    assert target_block(*(sized(depth=depth) for depth in depths)) == block


@pytest.mark.parametrize(
    ("given", "settled"),
    [
        (1, [1]),
        (0.5, [6]),
        (0.75, [9]),
        (0.01, [1]),
        (0.999, [12]),
        ([6, 12], [6, 12]),
        ([0.25, 12], [3, 12]),
        (1.0, [12]),
    ],
)
def test_block_numbers__numbers_fractions_and_lists(given, settled):
    assert block_numbers(given, sized(depth=12), "field") == settled


@pytest.mark.parametrize("given", [0, 13, -1, 1.5, 3.0, -0.5, True, [], [3, 13]])
def test_block_numbers__outside_the_network(given):
    with pytest.raises(TinymimError, match=r"field: .* is out of range; .* 1 to 12"):
        block_numbers(given, sized(depth=12), "field")


def test_target__one_block_serves_a_list_on_the_other_side_and_lists_must_be_as_long():
    assert bound(Feature(teacher_block=[1, 2])).blocks == [(1, 3), (2, 3)]
    assert bound(Feature(student_block=[1, 2])).blocks == [(2, 1), (2, 2)]
    with pytest.raises(TinymimError, match=r"student_block: 3 blocks beside 2"):
        bound(Feature(teacher_block=[1, 2], student_block=[1, 2, 3]))


def test_target__the_same_comparison_twice_is_a_mistake():
    with pytest.raises(TinymimError, match=r"feature: teacher block 2 beside student block 2 is named twice"):
        bound(Feature(teacher_block=[0.6, 0.7], student_block=[0.6, 0.7]))
    with pytest.raises(TinymimError, match=r"feature.tap: .* names a tap twice"):
        bound(Feature(tap=["q", "q"]))


def test_target__binding_twice_changes_nothing():
    target = bound(Feature(teacher_block=0.5))
    blocks = target.blocks
    target.bind(sized(), sized(**STUDENT), 2)
    assert target.blocks == blocks == [(2, 3)]


@pytest.mark.parametrize(
    ("block", "tap", "trained"), [(2, "q", True), (3, "q", False), (2, "ffn_post", False), (1, "ffn_post", True)]
)
def test_target__no_reading_of_what_the_teacher_never_trained(block, tap, trained):
    teacher = sized()
    teacher.output_block = 1  # as a student of relations in block 2 leaves it
    target = Feature(tap=tap, teacher_block=block)
    if trained:
        target.bind(teacher, sized(**STUDENT), 2)
        return
    with pytest.raises(TinymimError, match="were not trained"):
        target.bind(teacher, sized(**STUDENT), 2)


class MeanToken(Target):
    """A user's own target, as one writes it now: mean tokens of a block by mean square."""

    reads = ("attn_post",)

    def setup_pair(self, teacher, student):
        self.up = torch.nn.Linear(student.width, teacher.width)

    def pair_loss(self, teacher, student, pair):
        return F.mse_loss(self.up(student["attn_post"].mean(1)), teacher["attn_post"].mean(1))


class OldMeanToken(Target):
    """The same as users wrote it before there was ``pair_loss``."""

    def fit(self, teacher, student):
        self.up = torch.nn.Linear(student.width, teacher.width)

    def teacher_taps(self):
        return [Tap(block, "attn_post") for block, _ in self.blocks]

    def student_taps(self):
        return [Tap(block, "attn_post") for _, block in self.blocks]

    def forward(self, teacher, student):
        losses = {}
        for blocks in self.blocks:
            t, s = teacher[Tap(blocks[0], "attn_post")], student[Tap(blocks[1], "attn_post")]
            losses[self.part("", blocks)] = F.mse_loss(self.up(s.mean(1)), t.mean(1)) / len(self.blocks)
        return losses

    def describe(self):
        return "mean tokens"

    def first_only(self):
        return False


@pytest.mark.parametrize("kind", [MeanToken, OldMeanToken])
@pytest.mark.parametrize("blocks", [[1], [1, 3]])
def test_target__a_users_own_class(kind, blocks):
    target = bound(kind(weight=0.5, teacher_block=[2] * len(blocks), student_block=blocks))
    assert (target.name, target.weight) == (kind.__name__.lower(), 0.5)
    assert target.blocks == [(2, block) for block in blocks]
    teacher, student = (Backbone(Architecture(options=options)) for options in (TEACHER, STUDENT))
    images = torch.rand(2, 3, 16, 16)
    t, s = teacher.read(images, target.teacher_taps()), student.read(images, target.student_taps())
    losses = target(t, s)
    assert list(losses) == ([""] if len(blocks) == 1 else ["2to1", "2to3"])
    gaps = [target.up(s[Tap(block, "attn_post")].mean(1)) - t[Tap(2, "attn_post")].mean(1) for block in blocks]
    expected = torch.stack([gap.square().mean() for gap in gaps]).mean()
    torch.testing.assert_close(sum(losses.values()), expected)
    sum(losses.values()).backward()
    assert target.up.weight.grad.abs().sum() > 0
    assert first_only_taps([target]) == []


def test_target__without_a_loss_says_what_to_define():
    class Nothing(Target):
        pass

    with pytest.raises(TinymimError, match=r"Nothing: this target has no loss; define pair_loss\(self, teacher"):
        bound(Nothing())
