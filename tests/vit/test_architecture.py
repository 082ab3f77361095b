import math

import numpy as np
import pytest
import timm
import torch
from torch import nn

from tests.vit.test_backbone import EVERYWHERE, near, pictures, shaken, tiny
from tinymim.errors import TinymimError
from tinymim.vit.architecture import Architecture, set_drop_path, set_heads
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.taps import QKV, Tap


@torch.no_grad()
def test_heads__set_heads_makes_another_network_of_the_same_weights():
    backbone = shaken()
    before = backbone.read(pictures(), EVERYWHERE)
    set_heads(backbone.vit, 2, 6)
    after = backbone.read(pictures(), EVERYWHERE)
    assert backbone.heads == [3, 6, 3]
    assert near(after[Tap(2, "v")], before[Tap(2, "v")])
    assert not near(after[Tap(2, "attn_pre")], before[Tap(2, "attn_pre")])
    q, k, v = (after[Tap(2, name)].unflatten(-1, (6, 4)).transpose(1, 2) for name in QKV)
    mixed = (q @ k.transpose(-2, -1) / math.sqrt(4)).softmax(-1) @ v
    attn = backbone.vit.blocks[1].attn
    assert near(attn.proj(mixed.transpose(1, 2).flatten(2)), after[Tap(2, "attn_pre")])
    attn.fused_attn = False  # timm's other path, which reads its own scale
    assert near(attn(backbone.vit.blocks[1].norm1(after[Tap(1, "ffn_post")])), after[Tap(2, "attn_pre")])


@torch.no_grad()
def test_heads__one_for_each_block():
    listed, regrouped = shaken(heads=[1, 6, 12]), shaken()
    for block, heads in enumerate([1, 6, 12], start=1):
        set_heads(regrouped.vit, block, heads)
    assert listed.heads == [1, 6, 12]
    assert near(listed.features(pictures()), regrouped.features(pictures()))
    assert not near(listed.features(pictures()), shaken().features(pictures()))


def test_heads__one_number_for_all_blocks():
    assert skeleton(tiny(heads=6)).heads == [6, 6, 6]
    assert skeleton(Architecture(heads=12)).heads == [12] * 12


def test_heads__list_of_the_wrong_length():
    with pytest.raises(TinymimError, match="heads: 2 numbers for the 3 blocks"):
        skeleton(tiny(heads=[3, 3]))


@pytest.mark.parametrize("heads", [5, 0, [3, 5, 3], [3, 0, 3]])
@pytest.mark.parametrize("explicit", [True, False], ids=["own width", "timm's width"])
def test_heads__indivisible_lists_what_divides(heads, explicit):
    options = {"embed_dim": 24} if explicit else {}
    width, divisors = (24, "1, 2, 3, 4, 6, 8, 12, 24") if explicit else (192, "1, 2, 3, 4, 6, 8, 12, 16, 24")
    architecture = Architecture(options={"depth": 3, **options}, heads=heads)
    wrong = min(heads, key=lambda h: h == 3) if isinstance(heads, list) else heads
    with pytest.raises(TinymimError, match=f"heads: {wrong} .*{width}.*: {divisors}"):
        skeleton(architecture)


def test_heads__fixed_where_q_and_k_are_normalised_by_head():
    backbone = Backbone(tiny({"qk_norm": True}))
    with pytest.raises(TinymimError, match="3 heads are fixed"):
        set_heads(backbone.vit, 2, 6)
    assert backbone.heads == [3, 3, 3]


def test_sincos__fixed_and_zero_for_cls():
    positions = Backbone(tiny({"img_size": (8, 12)}, pos_embed="sincos")).vit.pos_embed
    assert not positions.requires_grad
    assert positions.shape == (1, 1 + 2 * 3, 24)
    assert not positions[0, 0].any()
    rates = 10000.0 ** (-np.arange(6) / 6)
    for row in range(2):
        for column in range(3):
            angles = np.concatenate([row * rates, column * rates])
            expected = np.sort(np.concatenate([np.sin(angles), np.cos(angles)]))  # the order of channels is free
            assert np.sort(positions[0, 1 + 3 * row + column].numpy()) == pytest.approx(expected, abs=1e-6)
    assert len(positions[0].unique(dim=0)) == 7


def test_sincos__learned_is_neither():
    positions = Backbone(tiny()).vit.pos_embed
    assert positions.requires_grad
    assert positions[0, 0].any()


@pytest.mark.parametrize("build", [Backbone, skeleton])
def test_sincos__width_must_divide_by_four(build):
    with pytest.raises(TinymimError, match=r"divisible by 4.*22"):
        build(tiny({"embed_dim": 22, "num_heads": 2}, pos_embed="sincos"))


@pytest.mark.parametrize(
    ("depth", "ramp", "rates"),
    [
        (3, "linear", [0, 0.1, 0.2]),
        (3, "constant", [0.2, 0.2, 0]),
        (5, "linear", [0, 0.05, 0.1, 0.15, 0.2]),
        (1, "linear", [0]),
        (1, "constant", [0]),
    ],
)
def test_set_drop_path__rates(depth, ramp, rates):
    vit = Backbone(tiny({"depth": depth, "drop_path_rate": 0.5})).vit
    set_drop_path(vit, 0.2, ramp)
    for name in ("drop_path1", "drop_path2"):
        assert [getattr(getattr(b, name), "drop_prob", 0) for b in vit.blocks] == pytest.approx(rates)
    set_drop_path(vit, 0.0, ramp)
    assert all(isinstance(b.drop_path1, nn.Identity) and isinstance(b.drop_path2, nn.Identity) for b in vit.blocks)


def test_arch__unknown_gives_near_names():
    with pytest.raises(TinymimError, match=r"'vit_tiny_patch16_244'.*vit_tiny_patch16_224"):
        skeleton(Architecture("vit_tiny_patch16_244"))


@pytest.mark.parametrize(
    "arch",
    [
        "resnet18",
        "convnextv2_atto",
        "swin_tiny_patch4_window7_224",
        "hiera_tiny_224",
        "vit_small_patch16_18x2_224",
        "vit_base_patch16_rpn_224",
        "eva02_enormous_patch14_clip_224",
        "vit_giant_patch16_sapiens2",
    ],
)
def test_arch__not_a_vit_that_can_be_read(arch):
    """Convnets, networks with several grids or parallel blocks, those that normalise after attention and not before,
    and one with fewer heads of k and v than of q."""
    if arch not in timm.list_models():
        pytest.skip("this timm is older")
    with pytest.raises(
        TinymimError, match=rf"^arch: {arch} is no Vision Transformer .*vit_\*, deit_\*, beit\* or eva\*"
    ):
        skeleton(Architecture(arch, options={"depth": 1} if arch.startswith(("vit", "eva")) else {}))


@pytest.mark.parametrize(
    ("name", "value"),
    [("dpeth", 3), ("depth", "three"), ("depth", 0), ("patch_size", 0), ("embed_dim", "wide"), ("num_heads", 0)],
)
def test_options__that_timm_cannot_build(name, value):
    with pytest.raises(TinymimError, match=rf"{name}.*{value}|heads: {value}|{name}: no option that makes a network"):
        skeleton(tiny({name: value}))


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"img_size": 32}, r"no argument img_size; timm's own .* Architecture\(..., options=\{'img_size': 32\}\)$"),
        ({"pos_embd": "sincos"}, r"no argument pos_embd; did you mean pos_embed\?$"),
    ],
)
def test_architecture__argument_of_another_name_in_a_line(named, says):
    with pytest.raises(TinymimError, match=says):
        Architecture("vit_tiny_patch16_224", **named)
