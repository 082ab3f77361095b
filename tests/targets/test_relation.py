import math

import numpy as np
import pytest
import torch

from tinymim.errors import TinymimError
from tinymim.targets import Relation
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import skeleton
from tinymim.vit.taps import Tap

TEACHER = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 4}
STUDENT = {**TEACHER, "embed_dim": 12, "num_heads": 3}
TOKENS = 17  # CLS and 4 x 4 patches


def bound(target, teacher=None, student=None, heads=None, block=3):
    networks = [
        skeleton(Architecture(options=TEACHER | (teacher or {}), heads=heads)),
        skeleton(Architecture(options=STUDENT | (student or {}))),
    ]
    target.bind(*networks, block)
    return target


def readings(taps, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return {tap: torch.randn(2, TOKENS, width, generator=generator) for tap in taps}


def both(target, widths=(24, 12)):
    return readings(target.teacher_taps(), widths[0], seed=0), readings(target.student_taps(), widths[1], seed=1)


def logits(a, b, heads, head, tokens=slice(None)):
    """Scaled products of one image's ``(N, D)`` tokens in one head."""
    width = a.shape[-1] // heads
    channels = slice(head * width, (head + 1) * width)
    a, b = (t[tokens, channels].numpy().astype(np.float64) for t in (a, b))
    return a @ b.T / math.sqrt(width)


def by_hand(teacher, student, pair, heads, softmax=True, tokens=slice(None), blocks=(3, 3)):
    """The loss, head by head and row by row."""
    costs = []
    t, s = ([r[Tap(block, name)] for name in pair] for r, block in zip((teacher, student), blocks, strict=True))
    for image in range(2):
        for head in range(heads):
            of_teacher = logits(t[0][image], t[1][image], heads, head, tokens)
            of_student = logits(s[0][image], s[1][image], heads, head, tokens)
            for x, y in zip(of_teacher, of_student, strict=True):
                if softmax:
                    p, q = np.exp(x) / np.exp(x).sum(), np.exp(y) / np.exp(y).sum()
                    costs.append((p * np.log(p / q)).sum())
                else:
                    costs.append(((x - y) ** 2).mean())
    return np.mean(costs)


def test_relation__regroups_the_student_into_the_teachers_heads():
    target = bound(Relation())
    teacher, student = both(target)
    losses = target(teacher, student)
    assert list(losses) == ["qk", "vv"]
    for pair, loss in losses.items():
        assert loss.item() == pytest.approx(by_hand(teacher, student, pair, heads=4), rel=1e-5)
        assert loss.item() != pytest.approx(by_hand(teacher, student, pair, heads=3), rel=1e-2)


def test_relation__auto_is_the_target_blocks_number_of_heads():
    target = bound(Relation(), heads=[2, 6, 4], block=2)
    assert target.aligned_heads() == {3: 6}
    teacher, student = both(target)
    expected = by_hand(teacher, student, "qk", heads=6, blocks=(2, 3))
    assert target(teacher, student)["qk"].item() == pytest.approx(expected, rel=1e-5)
    assert "6 heads of 4 -> 6 heads of 2" in target.describe()


@pytest.mark.parametrize("heads", [1, 2, 12])
def test_relation__a_number_regroups_both_sides(heads):
    target = bound(Relation(heads=heads))
    teacher, student = both(target)
    expected = by_hand(teacher, student, "vv", heads=heads)
    assert target(teacher, student)["vv"].item() == pytest.approx(expected, rel=1e-5)


def test_relation__indivisible_student_lists_its_divisors():
    with pytest.raises(TinymimError, match=r"heads: 4 .* 18 .*student.*: 1, 2, 3, 6, 9, 18$"):
        bound(Relation(), student={"embed_dim": 18})


def test_relation__indivisible_teacher_lists_its_divisors():
    with pytest.raises(TinymimError, match=r"heads: 5 .* 24 .*teacher.*: 1, 2, 3, 4, 6, 8, 12, 24$"):
        bound(Relation(heads=5))


@pytest.mark.parametrize("pairs", [["qq"], ["kk"], ["vv"], ["qq", "kk", "vv"], ["kq", "qv"]])
def test_relation__each_pair_has_its_loss(pairs):
    target = bound(Relation(pairs=pairs))
    assert {tap.name for tap in target.teacher_taps()} == set("".join(pairs))
    teacher, student = both(target)
    losses = target(teacher, student)
    assert list(losses) == pairs
    for pair in pairs:
        assert losses[pair].item() == pytest.approx(by_hand(teacher, student, pair, heads=4), rel=1e-5)


def test_relation__raw_relations_by_mean_square():
    target = bound(Relation(softmax=False))
    teacher, student = both(target)
    for pair, loss in target(teacher, student).items():
        assert loss.item() == pytest.approx(by_hand(teacher, student, pair, heads=4, softmax=False), rel=1e-5)


@pytest.mark.parametrize("softmax", [True, False])
def test_relation__without_cls_its_row_and_column_are_gone(softmax):
    target = bound(Relation(cls=False, softmax=softmax))
    teacher, student = both(target)
    loss = target(teacher, student)["qk"]
    expected = by_hand(teacher, student, "qk", heads=4, softmax=softmax, tokens=slice(1, None))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    for tokens in (*teacher.values(), *student.values()):
        tokens[:, 0] += 100
    assert target(teacher, student)["qk"].item() == pytest.approx(expected, rel=1e-5)


def test_relation__without_cls_drops_registers_too():
    registers = {"reg_tokens": 2}
    target = bound(Relation(cls=False), teacher=registers, student=registers)
    teacher, student = both(target)
    expected = by_hand(teacher, student, "qk", heads=4, tokens=slice(3, None))
    assert target(teacher, student)["qk"].item() == pytest.approx(expected, rel=1e-5)


def test_relation__tokens_that_one_side_alone_has_are_left_out():
    target = bound(Relation(), student={"reg_tokens": 1})
    generator = torch.Generator().manual_seed(0)
    teacher = {tap: torch.randn(2, 17, 24, generator=generator) for tap in target.teacher_taps()}
    student = {tap: torch.randn(2, 18, 12, generator=generator) for tap in target.student_taps()}
    shared = {tap: torch.cat([tokens[:, :1], tokens[:, 2:]], dim=1) for tap, tokens in student.items()}
    expected = by_hand(teacher, shared, "qk", heads=4)
    assert target(teacher, student)["qk"].item() == pytest.approx(expected, rel=1e-5)


def test_relation__a_pair_twice_is_a_mistake():
    with pytest.raises(TinymimError, match=r"relation\.pairs: .* twice"):
        bound(Relation(pairs=["qk", "vv", "qk"]))


def test_relation__temperature_divides_the_products():
    target = bound(Relation(temperature=2.0))
    teacher, student = both(target)
    halved = [
        {tap: tokens / (2.0 if tap.name == "q" else 1.0) for tap, tokens in side.items()} for side in (teacher, student)
    ]
    expected = by_hand(*halved, "qk", heads=4)
    assert target(teacher, student)["qk"].item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(TinymimError, match=r"relation\.temperature: 0"):
        bound(Relation(temperature=0.0))
    with pytest.raises(TinymimError, match=r"relation\.temperature: 2.* softmax is false"):
        bound(Relation(temperature=2.0, softmax=False))


def test_relation__raw_relations_by_smooth_l1():
    target = bound(Relation(softmax=False, raw_loss="smooth_l1"))
    teacher, student = both(target)
    gaps = []
    for image in range(2):
        for head in range(4):
            of_teacher, of_student = (
                logits(side[Tap(3, "q")][image], side[Tap(3, "k")][image], 4, head) for side in (teacher, student)
            )
            gaps.append(np.abs(of_teacher - of_student))
    gap = np.stack(gaps)
    assert gap.min() < 1 < gap.max()
    expected = np.where(gap < 1, gap**2 / 2, gap - 0.5).mean()
    assert target(teacher, student)["qk"].item() == pytest.approx(expected, rel=1e-5)


def test_relation__several_blocks_each_with_its_teachers_heads():
    target = bound(Relation(teacher_block=[1, 3], student_block=[2, 3]), heads=[6, 4, 4])
    assert target.aligned_heads() == {2: 6, 3: 4}
    teacher, student = both(target)
    losses = target(teacher, student)
    assert set(losses) == {"qk_1to2", "vv_1to2", "qk_3to3", "vv_3to3"}
    expected = by_hand(teacher, student, "qk", heads=6, blocks=(1, 2)) / 2
    assert losses["qk_1to2"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("pairs", [["qx"], ["q"], ["qk", "qkv"], ["QK"], []])
def test_relation__wrong_pairs(pairs):
    with pytest.raises(TinymimError, match=r"relation\.pairs.*" + (pairs[-1] if pairs else "empty")):
        bound(Relation(pairs=pairs))


@pytest.mark.parametrize("side", ["teacher", "student"])
@pytest.mark.parametrize("block", [4, 0, -1])
def test_relation__block_out_of_range(side, block):
    with pytest.raises(TinymimError, match=rf"relation\.{side}_block: {block} .*1 to 3"):
        bound(Relation(**{f"{side}_block": block}))


def test_relation__blocks_named_in_the_recipe_win():
    target = bound(Relation(teacher_block=1, student_block=2), block=3)
    assert {tap.block for tap in target.teacher_taps()} == {1}
    assert {tap.block for tap in target.student_taps()} == {2}


@pytest.mark.parametrize("softmax", [True, False])
def test_relation__a_student_equal_to_the_teacher_costs_nothing(softmax):
    target = bound(Relation(pairs=["qk", "qq", "vv"], softmax=softmax), student=TEACHER)
    teacher, _ = both(target)
    for loss in target(teacher, teacher).values():
        assert abs(loss.item()) <= 1e-7


def test_relation__adds_nothing_to_the_student():
    assert not list(bound(Relation()).parameters())
