import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tinymim.architecture import Architecture, set_drop_path, set_heads
from tinymim.backbones import Backbone, skeleton
from tinymim.blocks import QKV, TOKENS, Tap
from tinymim.errors import TinymimError
from tinymim.heads import Head, HeadForm

TINY = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}
KINDS = {
    "plain": {},
    "layer scale": {"init_values": 0.3},
    "registers": {"reg_tokens": 2, "no_embed_class": True},
    "pre-norm, no CLS": {"pre_norm": True, "class_token": False, "global_pool": "avg"},
    "q and k normalised": {"qk_norm": True},
    "no biases": {"qkv_bias": False},
}
STAR = "deit_tiny_distilled_patch16_224"  # CLS and distillation token
EVERYWHERE = [Tap(block, name) for block in (1, 2, 3) for name in TOKENS]
some_taps = st.sets(st.sampled_from(EVERYWHERE), min_size=1, max_size=6)


def tiny(options=None, **fields):
    return Architecture(options=TINY | (options or {}), **fields)


def shaken(options=None, **fields):
    """A network in eval mode, none of whose weights are at the zeros and ones they start from."""
    torch.manual_seed(0)
    backbone = Backbone(tiny(options, **fields)).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return backbone


def pictures(batch=2):
    return torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(
    scope="module", params=[{"arch": STAR}, *({"options": o} for o in KINDS.values())], ids=["distilled", *KINDS]
)
def kind(request):
    return shaken(**request.param)


def near(a, b):
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


def heard_in_timm(backbone, images):
    """All taps of all blocks, from hooks in timm's own forward."""
    vit, heard, hooks = backbone.vit, {}, []

    def listen(module, tap, place=lambda inputs, output: output):
        hooks.append(module.register_forward_hook(lambda _, x, y: heard.update({tap: place(x, y)})))

    for number, block in enumerate(vit.blocks, start=1):
        normalised = not isinstance(block.attn.q_norm, nn.Identity)
        for part, name in enumerate(QKV):
            if normalised and name != "v":
                norm = getattr(block.attn, f"{name}_norm")
                listen(norm, Tap(number, name), lambda x, y: y.transpose(1, 2).flatten(2))
            else:
                listen(block.attn.qkv, Tap(number, name), lambda x, y, part=part: y[..., 24 * part : 24 * part + 24])
        listen(block.ls1, Tap(number, "attn_pre"))
        listen(block.norm2, Tap(number, "attn_post"), lambda x, y: x[0])
        listen(block.ls2, Tap(number, "ffn_pre"))
        listen(block, Tap(number, "ffn_post"))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.architecture.mean, backbone.architecture.std))
    vit.forward_features((images - mean) / std)
    for hook in hooks:
        hook.remove()
    return heard


@torch.no_grad()
def test_read__equals_timm_at_every_tap_of_every_block(kind):
    expected = heard_in_timm(kind, pictures())
    assert set(expected) == set(EVERYWHERE)
    together = kind.read(pictures(), EVERYWHERE)
    assert set(together) == set(EVERYWHERE)
    for tap in EVERYWHERE:
        alone = kind.read(pictures(), [tap])
        assert list(alone) == [tap]
        assert near(alone[tap], expected[tap]), tap
        assert near(together[tap], expected[tap]), tap


@torch.no_grad()
def test_read__attn_pre_is_before_the_residual_and_attn_post_after():
    backbone = shaken()
    read = backbone.read(pictures(), EVERYWHERE)
    for block in (2, 3):
        before = read[Tap(block - 1, "ffn_post")]
        assert near(read[Tap(block, "attn_post")], before + read[Tap(block, "attn_pre")])
        assert near(read[Tap(block, "ffn_post")], read[Tap(block, "attn_post")] + read[Tap(block, "ffn_pre")])


@torch.no_grad()
def test_read__q_and_k_are_those_that_attention_uses():
    backbone = shaken({"qk_norm": True})
    q, k, v, after = (backbone.read(pictures(), [Tap(2, name)])[Tap(2, name)] for name in (*QKV, "attn_pre"))
    q, k, v = (t.unflatten(-1, (3, 8)).transpose(1, 2) for t in (q, k, v))
    mixed = (q @ k.transpose(-2, -1) / math.sqrt(8)).softmax(-1) @ v
    assert near(backbone.vit.blocks[1].attn.proj(mixed.transpose(1, 2).flatten(2)), after)


class Trap(nn.Module):
    def forward(self, *_):
        raise AssertionError("this part must not run")


@pytest.mark.parametrize("name", TOKENS)
def test_read__stops_at_the_deepest_tap(name):
    backbone = shaken()
    expected = backbone.read(pictures(), [Tap(2, name)])[Tap(2, name)]
    block = backbone.vit.blocks[1]
    unused = {"ffn_pre": [], "ffn_post": [], "attn_pre": ["mlp", "norm2"], "attn_post": ["mlp", "norm2"]}
    for part in unused.get(name, ["mlp", "norm2"]):
        setattr(block, part, Trap())
    if name in QKV:
        block.attn.proj = Trap()
    backbone.vit.norm = Trap()
    backbone.vit.blocks[2] = Trap()
    backbone.vit.blocks[2].attn, backbone.vit.blocks[2].norm1 = Trap(), Trap()
    assert near(backbone.read(pictures(), [Tap(2, name)])[Tap(2, name)], expected)
    with pytest.raises(AssertionError, match="must not run"):
        backbone.read(pictures(), [Tap(3, "ffn_post")])


@pytest.mark.parametrize(
    ("taps", "words"),
    [
        ([], "no tap"),
        ([Tap(4, "q")], "block 4 .*1 to 3"),
        ([Tap(0, "q")], "block 0 .*1 to 3"),
        ([Tap(1, "x")], "'x'.*q, k, v"),
    ],
)
def test_read__taps_outside_the_network(taps, words):
    with pytest.raises(TinymimError, match=words):
        shaken().read(pictures(), taps)


def trained_by(backbone, taps):
    """Names of the parameters with a gradient, after a loss on all of ``taps``."""
    backbone.zero_grad(set_to_none=True)
    sum(tokens.square().sum() for tokens in backbone.read(pictures(), taps).values()).backward()
    return {name for name, parameter in backbone.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("block", [1, 2, 3])
def test_reached__is_what_one_tap_trains(kind, block, name):
    assert kind.reached([Tap(block, name)]) == trained_by(kind, [Tap(block, name)])


@settings(max_examples=40, deadline=None)
@given(taps=some_taps, options=st.sampled_from(list(KINDS.values())))
def test_reached__is_what_several_taps_train(taps, options):
    backbone = Backbone(tiny(options))
    assert backbone.reached(taps) == trained_by(backbone, taps)


def test_reached__does_not_mistake_block_11_for_block_1():
    backbone = Backbone(tiny({"depth": 12}))
    assert backbone.reached([Tap(3, "q")]) == trained_by(backbone, [Tap(3, "q")])


@settings(max_examples=40, deadline=None)
@given(taps=some_taps)
def test_last_trained_block__is_the_deepest_one_reached_whole(taps):
    backbone = Backbone(tiny())
    reached = backbone.reached(taps)
    left = [n for n, _ in backbone.named_parameters() if n not in reached]
    whole = [b for b in (1, 2, 3) if not any(n.startswith(f"vit.blocks.{b - 1}.") for n in left)]
    assert backbone.last_trained_block(taps) == max(whole, default=0)


@pytest.mark.parametrize(
    ("taps", "block"),
    [
        ([Tap(1, "v")], 0),
        ([Tap(3, "q")], 2),
        ([Tap(3, "attn_post")], 2),
        ([Tap(3, "ffn_pre")], 3),
        ([Tap(2, "ffn_post"), Tap(1, "q")], 2),
        ([Tap(2, "q"), Tap(1, "ffn_post")], 1),
    ],
)
def test_last_trained_block__by_hand(taps, block):
    assert skeleton(tiny()).last_trained_block(taps) == block


@pytest.mark.parametrize("options", [{}, KINDS["registers"], KINDS["pre-norm, no CLS"]])
@torch.no_grad()
def test_keep__drops_tokens_and_follows_the_order_given(options):
    backbone = shaken(options)
    vit, images = backbone.vit, pictures()
    keep = torch.tensor([[9, 2, 15, 0], [3, 4, 14, 1]])
    x = vit._pos_embed(vit.patch_embed(backbone.normalise(images)))
    rows = [
        torch.stack([*x[image][: backbone.prefix], *(x[image][backbone.prefix + patch] for patch in keep[image])])
        for image in range(2)
    ]
    x = vit.norm_pre(torch.stack(rows))
    assert near(backbone.embed(images, keep), x)
    for block in vit.blocks[:2]:
        x = block(x)
    assert near(backbone.read(images, [Tap(2, "ffn_post")], keep)[Tap(2, "ffn_post")], x)


@torch.no_grad()
def test_keep__positions_belong_to_patches_and_not_to_places():
    backbone = shaken()
    order = torch.stack([torch.randperm(16), torch.randperm(16)])
    tap = Tap(3, "ffn_post")
    whole, shuffled = backbone.read(pictures(), [tap])[tap], backbone.read(pictures(), [tap], order)[tap]
    assert near(shuffled[:, 0], whole[:, 0])
    for image in range(2):
        assert near(shuffled[image, 1:], whole[image, 1:][order[image]])


@torch.no_grad()
def test_features__mean_patch_token_of_the_output_block():
    backbone = shaken({"reg_tokens": 1})
    backbone.output_block = 2
    for block in (None, 1):
        tap = Tap(block or 2, "ffn_post")
        expected = backbone.read(pictures(), [tap])[tap][:, 2:].mean(1)
        assert near(backbone.features(pictures(), block), expected)
    assert Backbone(tiny()).output_block == 3


@torch.no_grad()
def test_normalise__is_part_of_the_network():
    backbone = shaken(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    heard = {}
    backbone.vit.patch_embed.register_forward_pre_hook(lambda _, inputs: heard.update(x=inputs[0]))
    backbone.features(torch.tensor([0.6, 0.45, 4.3]).view(1, 3, 1, 1).expand(1, 3, 16, 16))
    assert near(heard["x"], torch.tensor([1.0, 1.0, 2.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16))
    assert not {"mean", "std"} & set(backbone.state_dict())


def test_sizes__from_the_skeleton_without_memory():
    network = skeleton(tiny({"reg_tokens": 2, "img_size": (16, 24)}, heads=[1, 2, 3]))
    assert all(t.is_meta for t in (*network.parameters(), *network.buffers()))
    assert (network.depth, network.width, network.heads, network.prefix) == (3, 24, [1, 2, 3], 3)
    assert (network.grid, network.image_size, network.patch) == ((4, 6), (16, 24), (4, 4))
    assert network.describe() == (
        "vit_tiny_patch16_224: width 24, depth 3, heads 1,2,3, patch 4, 16x24 px, 4x6 patches"
    )


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
    "arch", ["resnet18", "eva02_tiny_patch14_224", "vit_small_patch16_18x2_224", "vit_base_patch16_rpn_224"]
)
def test_arch__not_a_plain_vit(arch):
    """A convnet, a rotary ViT, one with parallel blocks, and one that normalises after attention, not before."""
    with pytest.raises(TinymimError, match=f"{arch} is not a plain"):
        skeleton(Architecture(arch, options={"depth": 1} if arch.startswith("vit") else {}))


@pytest.mark.parametrize(
    ("name", "value"),
    [("dpeth", 3), ("depth", "three"), ("depth", 0), ("patch_size", 0), ("embed_dim", "wide"), ("num_heads", 0)],
)
def test_options__that_timm_cannot_build(name, value):
    with pytest.raises(TinymimError, match=rf"{name}.*{value}|heads: {value}"):
        skeleton(tiny({name: value}))


@pytest.mark.parametrize("heads", [None, 6, [1, 6, 3]])
@torch.no_grad()
def test_record__rebuilds_the_network(heads):
    backbone = shaken({"reg_tokens": 1}, heads=heads, mean=(0.5, 0.4, 0.3))
    backbone.output_block = 2
    record = json.loads(json.dumps(backbone.record()))
    again = Backbone(Architecture(**record["architecture"]), record["output_block"]).eval()
    again.load_state_dict(backbone.state_dict())
    assert again.heads == backbone.heads
    assert torch.equal(again.features(pictures()), backbone.features(pictures()))
    assert again.record() == {"architecture": record["architecture"], "output_block": 2}


def test_record__says_the_heads_as_they_are_now():
    backbone = Backbone(tiny())
    set_heads(backbone.vit, 3, 12)
    assert backbone.record()["architecture"]["heads"] == [3, 3, 12]


def test_record__of_heads_given_to_a_network_that_normalises_by_head():
    options = {name: value for name, value in TINY.items() if name != "num_heads"}
    architecture = Architecture(options={**options, "qk_norm": True}, heads=6)
    record = skeleton(architecture).record()
    assert skeleton(Architecture(**record["architecture"])).heads == [6, 6, 6]


def test_record__of_a_network_cut_after_its_output_block():
    backbone = skeleton(tiny(heads=[3, 6, 3]))
    backbone.vit.blocks = backbone.vit.blocks[:2]
    again = skeleton(Architecture(**backbone.record()["architecture"]))
    assert again.heads == [3, 6]
    assert set(again.state_dict()) == set(backbone.state_dict())


def test_record__does_not_share_the_architecture():
    backbone = skeleton(tiny())
    backbone.record()["architecture"]["options"]["depth"] = 99
    assert dataclasses.asdict(backbone.architecture)["options"]["depth"] == 3


SUPERVISED = {
    "token": ({"num_classes": 5, "global_pool": "token"}, "vit_tiny_patch16_224"),
    "avg, fc_norm": ({"num_classes": 5, "global_pool": "avg", "reg_tokens": 1}, "vit_tiny_patch16_224"),
    "distilled": ({"num_classes": 5}, STAR),
}


@pytest.fixture(params=SUPERVISED.values(), ids=SUPERVISED.keys())
def supervised(request):
    options, arch = request.param
    return shaken(options, arch=arch)


@torch.no_grad()
def test_logits__are_timms(supervised):
    backbone, tap = supervised, Tap(3, "logits")
    assert backbone.classes == 5
    inner = [Tap(3, "ffn_post"), Tap(3, "v"), Tap(1, "q")]
    read = backbone.read(pictures(), [tap, *inner])
    assert near(read[tap], backbone.vit(backbone.normalise(pictures())))
    assert read[tap].shape == (2, 5)
    for other in inner:
        assert near(read[other], backbone.read(pictures(), [other])[other])


def test_logits__reached_is_what_they_train(supervised):
    assert supervised.reached([Tap(3, "logits")]) == trained_by(supervised, [Tap(3, "logits")])
    assert supervised.reached([Tap(3, "logits"), Tap(3, "q")]) == trained_by(
        supervised, [Tap(3, "logits"), Tap(3, "q")]
    )
    assert supervised.last_trained_block([Tap(3, "logits")]) == 3


@torch.no_grad()
def test_logits__of_a_head_of_this_project():
    backbone = shaken()
    backbone.classifier = Head(24, 1, HeadForm(7, neck=8)).eval()
    read = backbone.read(pictures(), [Tap(3, "logits"), Tap(3, "ffn_post")])
    assert backbone.classes == 7
    assert torch.equal(read[Tap(3, "logits")], backbone.classifier(read[Tap(3, "ffn_post")]))
    with torch.enable_grad():
        assert backbone.reached([Tap(3, "logits")]) == trained_by(backbone, [Tap(3, "logits")])


def test_logits__come_after_the_last_block_of_a_network_with_a_classifier(supervised):
    with pytest.raises(TinymimError, match="after the last block, 3, and block 2"):
        supervised.read(pictures(), [Tap(2, "logits")])
    with pytest.raises(TinymimError, match=r"has no classifier.*num_classes"):
        shaken().read(pictures(), [Tap(3, "logits")])
    assert shaken().classes is None


@torch.no_grad()
def test_star__tokens_are_cls_then_distillation_then_patches():
    backbone = skeleton(Architecture(STAR, heads=12, pos_embed="sincos"))
    assert (backbone.prefix, backbone.distilled, backbone.heads) == (2, True, [12] * 12)
    assert backbone.vit.pos_embed.shape == (1, 198, 192)
    small = shaken(arch=STAR)
    assert not shaken().distilled
    vit = small.vit
    patches = vit.patch_embed(small.normalise(pictures()))
    rows = [vit.cls_token.expand(2, -1, -1), vit.dist_token.expand(2, -1, -1), patches]
    assert near(small.embed(pictures()), torch.cat(rows, 1) + vit.pos_embed)
    assert not near(vit.cls_token, vit.dist_token)


def test_star__sincos_leaves_the_rows_of_both_tokens_zero():
    positions = Backbone(tiny(arch=STAR, pos_embed="sincos")).vit.pos_embed
    assert not positions.requires_grad
    assert positions.shape == (1, 18, 24)
    assert not positions[0, :2].any()
    assert torch.equal(positions[0, 2:], Backbone(tiny(pos_embed="sincos")).vit.pos_embed[0, 1:])


@pytest.mark.parametrize("option", [{"reg_tokens": 1}, {"no_embed_class": True}])
def test_star__options_that_timms_class_would_ignore_or_break_on(option):
    with pytest.raises(TinymimError, match=f"{next(iter(option))} cannot be had with the distillation token"):
        skeleton(tiny(option, arch=STAR))


@torch.no_grad()
def test_star__record_rebuilds_it():
    backbone = shaken(arch=STAR, heads=[3, 6, 12])
    record = json.loads(json.dumps(backbone.record()))
    again = Backbone(Architecture(**record["architecture"]), record["output_block"]).eval()
    again.load_state_dict(backbone.state_dict())
    for tap in EVERYWHERE:
        assert torch.equal(again.read(pictures(), [tap])[tap], backbone.read(pictures(), [tap])[tap])
