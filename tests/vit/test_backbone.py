import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tinymim.errors import TinymimError
from tinymim.vit.architecture import Architecture, set_heads
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.taps import QKV, TOKENS, Tap

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
        listen(block.norm1, Tap(number, "normed"))
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
        ([Tap(1, "x")], "'x'; there are attn_post, .*, q, v"),
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
    backbone.features(torch.tensor([0.6, 0.45, 0.9]).view(1, 3, 1, 1).expand(1, 3, 16, 16))
    assert near(heard["x"], torch.tensor([1.0, 1.0, 0.3]).view(1, 3, 1, 1).expand(1, 3, 16, 16))
    assert not {"mean", "std"} & set(backbone.state_dict())


def test_sizes__from_the_skeleton_without_memory():
    network = skeleton(tiny({"reg_tokens": 2, "img_size": (16, 24)}, heads=[1, 2, 3]))
    assert all(t.is_meta for t in (*network.parameters(), *network.buffers()))
    assert (network.depth, network.width, network.heads, network.prefix) == (3, 24, [1, 2, 3], 3)
    assert (network.grid, network.image_size, network.patch) == ((4, 6), (16, 24), (4, 4))
    assert network.describe() == (
        "vit_tiny_patch16_224: width 24, depth 3, heads 1,2,3, patch 4, 16x24 px, 4x6 patches"
    )


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
    assert again.record() == record


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
