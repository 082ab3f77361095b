"""Targets between a plain student and teachers of another grid, with rope, registers, or without CLS."""

import math

import pytest
import torch
import torch.nn.functional as F

from tests.vit.test_backbone import near
from tinymim.targets import AttentionMap, Feature, Relation
from tinymim.targets.tokens import Tokens
from tinymim.teachers import weights
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Tap

SIZES = {"embed_dim": 24, "depth": 2, "num_heads": 3}
TEACHERS = {  # patches of 14 px, so 16 x 16 of them at 224 px
    "EVA-02": ("eva02_base_patch14_224", {}),
    "DINOv2, trained at 518 px": ("vit_small_patch14_dinov2", {"img_size": 224}),
    "DINOv2, registers": ("vit_small_patch14_reg4_dinov2", {"img_size": 224}),
    "I-JEPA, no CLS": ("vit_huge_patch14_gap_224", {}),
    "BEiT, trained at 384 px": ("beit_base_patch16_384", {"img_size": 256}),
}


def student(**options):
    torch.manual_seed(0)
    return Backbone(Architecture(options={"embed_dim": 12, "depth": 2, "num_heads": 2, **options}))


def teacher(kind, folder):
    """In eval mode; one trained at another size comes from a file of that size."""
    arch, options = TEACHERS[kind]
    torch.manual_seed(1)
    trained = Backbone(Architecture(arch, SIZES | ({} if "img_size" in options else options)))
    made = Backbone(Architecture(arch, SIZES | options), initialise=False)
    torch.save(trained.vit.state_dict(), folder / "x.pth")
    weights.fill(made, weights.read(folder / "x.pth"))
    assert (made.resampled_from is not None) == ("trained at" in kind or "registers" in kind)
    return made.requires_grad_(False).eval()


@pytest.mark.parametrize("kind", TEACHERS)
def test_targets__of_another_grid_teach_a_plain_student(kind, tmp_path):
    giver, taker = teacher(kind, tmp_path), student()
    assert (giver.grid, taker.grid) == ((16, 16), (14, 14))
    targets = [Relation(["qk", "vv"]), Feature(["ffn_post", "q"]), AttentionMap()]
    for target in targets:
        target.bind(giver, taker, 2)
        assert "teacher's 16x16 tokens resampled to 14x14" in target.describe()
    images = torch.rand(2, 3, 224, 224)
    given = giver.read(images, {tap for target in targets for tap in target.teacher_taps()})
    for target in targets:
        taps = target.student_taps()
        losses = target(given, taker.read(images, taps))
        assert losses
        assert all(loss.isfinite() and loss > 0 for loss in losses.values())
        taker.zero_grad()
        sum(losses.values()).backward()
        reached = dict(taker.named_parameters())
        for name in taker.reached(taps):
            assert reached[name].grad.isfinite().all(), name
        assert reached["vit.patch_embed.proj.weight"].grad.abs().sum() > 0


@torch.no_grad()
@pytest.mark.parametrize("kind", ["EVA-02", "DINOv2, registers", "I-JEPA, no CLS"])
def test_relation__compares_cls_where_both_have_it_and_the_patches(kind, tmp_path):
    giver, taker = teacher(kind, tmp_path), student()
    match = Tokens.match(giver, taker, True, "relation")
    tap = Tap(1, "k")
    images = torch.rand(2, 3, 224, 224)
    given, taken = giver.read(images, [tap])[tap], taker.read(images, [tap])[tap]
    t, s = match(given, taken)
    shared = int("no CLS" not in kind)
    assert t.shape[1] == s.shape[1] == shared + 14 * 14
    assert torch.equal(t[:, :shared], given[:, :shared])
    assert torch.equal(s, taken if shared else taken[:, 1:])
    image = given[:, giver.prefix :].transpose(1, 2).unflatten(-1, (16, 16))
    small = F.interpolate(image, size=(14, 14), mode="bilinear", antialias=True)
    assert near(t[:, shared:], small.flatten(2).transpose(1, 2))


@torch.no_grad()
def test_relation__of_resampled_tokens_is_the_resampled_attention_of_a_rotary_teacher(tmp_path):
    """Before the softmax: products are linear in q and in k, so resampling either side of them is resampling it."""
    giver, taker = teacher("EVA-02", tmp_path), student()
    match, images = Tokens.match(giver, taker, False, "relation"), torch.rand(1, 3, 224, 224)
    read = giver.read(images, [Tap(2, "q"), Tap(2, "k")])
    q, k = (read[Tap(2, name)].unflatten(-1, (3, 8)).transpose(1, 2) for name in "qk")
    products = (q @ k.transpose(-2, -1) / math.sqrt(8))[:, :, 1:, 1:]  # patches to patches
    smaller = {"size": (14, 14), "mode": "bilinear", "antialias": True}
    for _ in "qk":  # resample the keys of each query, then the queries of each key
        products = F.interpolate(products[0].unflatten(-1, (16, 16)), **smaller).flatten(2).unsqueeze(0)
        products = products.transpose(-2, -1)
    empty = torch.zeros(1, 1 + 196, 12)
    q, k = (match(read[Tap(2, name)], empty)[0].unflatten(-1, (3, 8)).transpose(1, 2) for name in "qk")
    assert torch.allclose(q @ k.transpose(-2, -1) / math.sqrt(8), products, atol=1e-5)


def test_relation__of_a_masked_rotary_teacher_and_student(tmp_path):
    giver, taker = teacher("EVA-02", tmp_path), student(patch_size=14)
    target = Relation()
    target.bind(giver, taker, 2)
    keep = torch.stack([torch.randperm(256)[:64] for _ in range(2)])
    images = torch.rand(2, 3, 224, 224)
    losses = target(giver.read(images, target.teacher_taps(), keep), taker.read(images, target.student_taps(), keep))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert taker.vit.blocks[1].attn.qkv.weight.grad.abs().sum() > 0
