import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymim.analysis import agreement
from tinymim.analysis.agreement import Agreement, RelationOptions
from tinymim.errors import TinymimError
from tinymim.ops import relation_kl
from tinymim.targets import Relation
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Tap

SIZES = {"img_size": 16, "patch_size": 4}


def network(width=24, heads=4, depth=3, seed=0, layout=None, **options):
    """Random weights, with relations far from uniform."""
    torch.manual_seed(seed)
    sizes = {"embed_dim": width, "num_heads": heads, "depth": depth}
    made = Backbone(Architecture(options=SIZES | sizes | options, heads=layout))
    with torch.no_grad():
        for block in made.vit.blocks:
            block.attn.qkv.weight.mul_(12)
    return made


def pictures(count=3, side=16):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(9))


def plainly(teacher, student, images, relation, cut=(0, 0), temperature=1.0, heads=None):
    """KL of each image at every pair of blocks by the operation's definition, ``(B, L_t, L_s)``.

    ``cut`` says how many tokens are left out at the front of each network's.
    """

    def tokens(side, block, name, count):
        tap = Tap(block, name)
        read = (teacher, student)[side].eval().read(images, [tap])[tap][:, cut[side] :]
        return read.unflatten(-1, (count, -1)).transpose(1, 2)

    result = torch.zeros(len(images), teacher.depth, student.depth)
    for t in range(teacher.depth):
        for s in range(student.depth):
            count = heads or teacher.heads[t]
            a, b = ([tokens(side, (t, s)[side] + 1, name, count) for name in relation] for side in (0, 1))
            for i in range(len(images)):
                one = slice(i, i + 1)
                result[i, t, s] = relation_kl(a[0][one], a[1][one], b[0][one], b[1][one], temperature, form="reference")
    return result.detach()


def matrix(compared, relation="qk", column="kl"):
    """Mean KL of each pair of blocks, ``(teacher's, student's)``."""
    values = [row[column] for row in compared.records() if row["relation"] == relation]
    return torch.tensor(values, dtype=torch.float64).view(compared.teacher.depth, -1)


NETWORKS = {
    "alike": ({}, {}),
    "narrower, shallower, other heads": ({}, {"width": 12, "heads": 3, "depth": 2}),
    "heads differ by block": ({"layout": [2, 6, 4]}, {"width": 12, "heads": 3, "depth": 2}),
    "no CLS in either": ({"class_token": False, "global_pool": "avg"}, {"class_token": False, "global_pool": "avg"}),
}


@pytest.mark.parametrize("relation", ["qk", "vv", "qq", "kk"])
@pytest.mark.parametrize("sizes", NETWORKS.values(), ids=NETWORKS)
def test_agreement__is_the_plain_definition_at_every_pair(sizes, relation):
    teacher, student = network(**sizes[0]), network(**sizes[1], seed=1)
    compared = Agreement(teacher, student, RelationOptions([relation]))
    images = pictures()
    compared.add(images[:2])
    compared.add(images[2:])
    expected = plainly(teacher, student, images, relation)
    torch.testing.assert_close(matrix(compared, relation).float(), expected.mean(0), rtol=1e-4, atol=1e-6)
    assert matrix(compared, relation).min() > 0.01
    records = compared.records()
    spread = expected.std(0)
    assert [(row["teacher_block"], row["student_block"]) for row in records] == [
        (t + 1, s + 1) for t in range(teacher.depth) for s in range(student.depth)
    ]
    for row in records:
        place = row["teacher_block"] - 1, row["student_block"] - 1
        assert row["kl"] == pytest.approx(expected.mean(0)[place].item(), rel=1e-4, abs=1e-6)
        assert row["sd"] == pytest.approx(spread[place].item(), rel=1e-3, abs=1e-6)
        assert (row["relation"], row["images"]) == (relation, 3)


@settings(max_examples=10, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([(1, 12), (2, 12), (3, 12), (4, 24)]),
    st.sampled_from([(1, 12), (4, 12), (6, 36)]),
    st.integers(1, 3),
    st.integers(0, 2000),
    st.integers(0, 2000),
)
def test_agreement__is_the_same_in_chunks_of_any_size(depth, other, its, own, count, readings, maps):
    teacher, student = network(its[1], its[0], depth), network(own[1], own[0], other, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "READINGS", readings)
        patch.setattr(agreement, "MAPS", maps)
        compared = Agreement(teacher, student)
        compared.add(pictures(count))
    for relation in ("qk", "vv"):
        expected = plainly(teacher, student, pictures(count), relation).mean(0)
        torch.testing.assert_close(matrix(compared, relation).float(), expected, rtol=1e-4, atol=1e-6)


def test_agreement__temperature_heads_and_dropped_cls():
    teacher, student = network(reg_tokens=2), network(12, 3, seed=1)
    options = RelationOptions(["qk"], cls="drop", heads=6, temperature=0.5)
    compared = Agreement(teacher, student, options)
    compared.add(pictures())
    expected = plainly(teacher, student, pictures(), "qk", cut=(3, 1), temperature=0.5, heads=6).mean(0)
    torch.testing.assert_close(matrix(compared).float(), expected, rtol=1e-4, atol=1e-6)


def test_agreement__drops_no_path_and_takes_all_images_in_any_number_of_batches():
    teacher, student = network(drop_path_rate=0.5).train(), network(seed=1)
    whole, parts = (Agreement(teacher, student, RelationOptions(["qk"])) for _ in range(2))
    whole.add(pictures(5))
    for batch in pictures(5).split(2):
        parts.add(batch)
    assert {row["images"] for row in parts.records()} == {5}
    torch.testing.assert_close(matrix(whole), matrix(parts), rtol=1e-5, atol=1e-7)


def test_agreement__with_oneself_is_0_on_the_diagonal_alone():
    own = network()
    compared = Agreement(own, own)
    compared.add(pictures())
    for relation in ("qk", "vv"):
        assert matrix(compared, relation).diagonal().abs().max() < 1e-6
        assert (matrix(compared, relation) + torch.eye(3)).min() > 0.01


@pytest.mark.parametrize("cls", ["keep", "drop"])
@pytest.mark.parametrize(
    ("its", "own"),
    [
        ({}, {"width": 12, "heads": 3, "depth": 2}),
        ({"img_size": 32}, {}),  # its 8x8 patches to the student's 4x4, each from images of its own size
        ({"img_size": 24, "patch_size": 8}, {"reg_tokens": 1}),  # 3x3 to 4x4
        ({"class_token": False, "global_pool": "avg"}, {}),
    ],
)
def test_agreement__is_the_loss_of_a_relation_target(its, own, cls):
    teacher, student = network(**its), network(**own, seed=1)
    images = pictures(side=20)
    compared = Agreement(teacher, student, RelationOptions(("qk", "kk"), cls=cls))
    compared.add(images)
    for t, s in ((1, 2), (3, 1)):
        target = Relation(("qk", "kk"), cls=cls == "keep", teacher_block=t, student_block=s)
        target.bind(teacher, student, t)
        with torch.no_grad():
            losses = target(teacher.read(images, target.teacher_taps()), student.read(images, target.student_taps()))
        for relation, loss in losses.items():
            assert matrix(compared, relation)[t - 1, s - 1].item() == pytest.approx(loss.item(), rel=1e-4)


def test_agreement__with_a_student_that_tells_nothing_is_the_teachers_distance_from_uniform():
    teacher, student = network(), network(seed=1)
    with torch.no_grad():
        for block in student.vit.blocks:
            block.attn.qkv.weight.zero_()
            block.attn.qkv.bias.zero_()
    compared = Agreement(teacher, student, RelationOptions(["qk"]))
    compared.add(pictures())
    with torch.no_grad():
        q, k = (
            teacher.read(pictures(), [Tap(2, name)])[Tap(2, name)].double().unflatten(-1, (4, 6)).transpose(1, 2)
            for name in "qk"
        )
    shares = (q @ k.mT / math.sqrt(6)).softmax(-1)
    entropy = -(shares * shares.log()).sum(-1).mean().item()
    uniform = matrix(compared, column="kl_uniform")
    assert uniform[1].tolist() == pytest.approx([math.log(17) - entropy] * 3, rel=1e-5)
    torch.testing.assert_close(matrix(compared), uniform, rtol=1e-5, atol=1e-7)


def test_agreement__close_to_uniform_is_rounded_little():
    teacher, student = network(), network(seed=1)
    with torch.no_grad():
        for block in (*teacher.vit.blocks, *student.vit.blocks):
            block.attn.qkv.weight.div_(30)
    compared = Agreement(teacher, student, RelationOptions(["vv"]))
    compared.add(pictures())
    expected = plainly(teacher.double(), student.double(), pictures().double(), "vv").mean(0)
    assert 1e-6 < expected.min() < expected.max() < 1e-4
    torch.testing.assert_close(matrix(compared, "vv").float(), expected, rtol=0, atol=3e-8)


@pytest.mark.parametrize(
    ("own", "options", "message"),
    [
        ({}, {"relations": ["qx"]}, r"agreement\.relations: \['qx'\] is not pairs"),
        ({}, {"relations": []}, r"agreement\.relations: an empty list"),
        ({}, {"relations": ["qk", "qk"]}, r"agreement\.relations: .* twice"),
        ({}, {"temperature": 0}, r"agreement\.temperature: 0 is not a number above 0"),
        ({"width": 18, "heads": 3}, {}, r"heads: 4 does not divide the width 18 of the student"),
        ({}, {"heads": 5}, r"heads: 5 does not divide the width 24 of the teacher"),
        ({"img_size": (16, 32)}, {}, r"agreement: the teacher sees 4x4 patches and the student 4x8"),
    ],
)
def test_agreement__what_cannot_be_compared(own, options, message):
    with pytest.raises(TinymimError, match=message):
        Agreement(network(), network(**own), RelationOptions(**options))


def test_agreement__of_no_and_of_one_image():
    compared = Agreement(network(), network(seed=1), RelationOptions(["qk"]))
    with pytest.raises(TinymimError, match="agreement: there was no image"):
        compared.records()
    compared.add(pictures(1))
    assert all(math.isnan(row["sd"]) for row in compared.records())
