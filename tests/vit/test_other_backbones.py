"""The reader on networks that are no plain ViTs: EVA-02 (rope), BEiT (relative position bias), and their like."""

import inspect
import itertools
import json
import math
from functools import partialmethod

import pytest
import torch
import torch.nn.functional as F
from timm.models.eva import Eva
from torch import nn

from tests.vit.test_backbone import EVERYWHERE, TINY, near, pictures, shaken, tiny, trained_by
from tinymim.errors import TinymimError
from tinymim.vit.architecture import Architecture, set_drop_path, set_heads
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.taps import QKV, TOKENS, Tap

EVA, EVA_BASE, DINOV3 = "eva02_tiny_patch14_224", "eva02_base_patch14_224", "vit_small_patch16_dinov3_qkvb"
BEIT, SHARED = "beit_base_patch16_224", {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
ROTARY = {
    "EVA-02": (EVA, {}),
    "EVA-02, separate q, k, v and norm in the MLP": (EVA_BASE, {}),
    "EVA-02, norm in attention": (EVA_BASE, {"scale_attn_inner": True, "qk_norm": True}),
    "DINOv3: registers, layer scale, halves rotated": (DINOV3, {}),
    "DINOv3+, gated MLPs": ("vit_small_plus_patch16_dinov3", {}),
    "rotations of each block": ("vit_small_patch16_rope_mixed_224", {}),
    "registers without CLS": ("vit_medium_patch16_rope_reg1_gap_256", {}),
}
if "qk_norm" not in inspect.signature(Eva.__init__).parameters:  # before timm 1.0.27
    del ROTARY["EVA-02, norm in attention"]
BEITS = {
    "BEiT": (BEIT, {}),
    "BEiT, one bias for all blocks": (BEIT, SHARED),
    "BEiT, both biases and embedded positions": (BEIT, {"use_shared_rel_pos_bias": True, "use_abs_pos_emb": True}),
}
OTHERS = {
    "EVA-01": ("eva_giant_patch14_224", {}),
    "BEiT without bias": (BEIT, {"use_rel_pos_bias": False, "use_abs_pos_emb": True}),
    "DINOv2, registers": ("vit_small_patch14_reg4_dinov2", {}),
    "DINOv2, giant": ("vit_giant_patch14_dinov2", {}),
    "BEiT-3": ("beit3_base_patch16_224", {}),
    "I-JEPA, no CLS": ("vit_huge_patch14_gap_224", {}),
    "SigLIP 2, no CLS, a pooling head": ("vit_base_patch16_siglip_224", {}),
    "AIMv2, no CLS, gated MLPs, RMS norms": ("aimv2_large_patch14_224", {}),
}
KINDS = ROTARY | BEITS | OTHERS


def made(kind):
    arch, options = KINDS[kind]
    return shaken(options, arch=arch)


@pytest.fixture(scope="module", params=KINDS)
def network(request):
    return made(request.param)


def heard_in_timm(backbone, images, monkeypatch):
    """All taps of all blocks in timm's own forward: hooks, and what its attention hands to PyTorch's."""
    vit, heard, handed, hooks = backbone.vit, {}, [], []
    attend = F.scaled_dot_product_attention

    def overheard(q, k, v, **options):
        handed.append((q, k, v, options.get("attn_mask")))
        return attend(q, k, v, **options)

    def listen(module, tap):
        hooks.append(module.register_forward_pre_hook(lambda _, inputs: heard.update({tap: inputs[0]})))

    for number, block in enumerate(vit.blocks, start=1):
        block.attn.fused_attn = True
        hooks.append(block.norm1.register_forward_hook(lambda _, x, y, n=number: heard.update({Tap(n, "normed"): y})))
        listen(block.drop_path1, Tap(number, "attn_pre"))
        listen(block.norm2, Tap(number, "attn_post"))
        listen(block.drop_path2, Tap(number, "ffn_pre"))
        hooks.append(block.register_forward_hook(lambda _, x, y, n=number: heard.update({Tap(n, "ffn_post"): y})))
    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", overheard)
        vit.forward_features(backbone.normalise(images))
    for hook in hooks:
        hook.remove()
    for number, used in enumerate(handed, start=1):
        heard |= {Tap(number, name): x.transpose(1, 2).flatten(2) for name, x in zip(QKV, used[:3], strict=True)}
    return heard, [used[3] for used in handed]


@torch.no_grad()
def test_read__equals_timm_at_every_tap_of_every_block(network, monkeypatch):
    expected, biases = heard_in_timm(network, pictures(), monkeypatch)
    assert set(expected) == set(EVERYWHERE)
    assert all((bias is None) == network.maskable for bias in biases)  # so softmax(q k) is the network's own map
    together = network.read(pictures(), EVERYWHERE)
    for tap in EVERYWHERE:
        assert near(together[tap], expected[tap]), tap
    for tap in (Tap(2, name) for name in TOKENS):
        assert near(network.read(pictures(), [tap])[tap], expected[tap]), tap


@torch.no_grad()
def test_read__outputs_of_the_blocks_as_timm_gives_its_intermediates(network):
    vit = network.vit
    outputs = vit.forward_intermediates(
        network.normalise(pictures()), indices=3, output_fmt="NLC", intermediates_only=True
    )
    for number, output in enumerate(outputs, start=1):
        tap = Tap(number, "ffn_post")
        assert near(network.read(pictures(), [tap])[tap][:, network.prefix :], output)


def by_head(tokens, heads=3):
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def own_map(backbone, images, block, monkeypatch):
    """The attention map that timm's explicit attention computes."""
    attn, maps = backbone.vit.blocks[block - 1].attn, []
    with monkeypatch.context() as patch:
        patch.setattr(attn, "fused_attn", False)
        hook = attn.attn_drop.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
        backbone.vit(backbone.normalise(images))
        hook.remove()
    return maps[0]


@torch.no_grad()
def test_read__q_and_k_make_the_attention_map_of_eva(monkeypatch):
    backbone = made("EVA-02")
    read = backbone.read(pictures(), [Tap(2, "q"), Tap(2, "k")])
    q, k = (by_head(read[Tap(2, name)]) for name in "qk")
    relation = (q @ k.transpose(-2, -1) / math.sqrt(8)).softmax(-1)
    assert near(relation, own_map(backbone, pictures(), 2, monkeypatch))


@torch.no_grad()
@pytest.mark.parametrize("size", [16, 24])
def test_read__rope_turns_pairs_of_channels_by_row_and_column(size):
    """By complex numbers: the first half of the pairs turns with the row, the second with the column, CLS not at all.

    Rows and columns count in the grid that the weights were trained on (16 x 16), whatever the image's size.
    """
    backbone = shaken({"img_size": size}, arch=EVA)
    side, attn = size // 4, backbone.vit.blocks[0].attn
    images = torch.rand(2, 3, size, size)
    normed = backbone.vit.blocks[0].norm1(backbone.embed(images))
    weight = attn.qkv.weight.view(3, 24, 24)
    biases = {"q": attn.q_bias, "k": 0, "v": attn.v_bias}
    read = backbone.read(images, [Tap(1, name) for name in QKV])
    rates = torch.tensor([1.0, 10000**-0.5])  # two pairs of the head's eight channels for each direction
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)) * 16 / side
    angles = torch.cat([places[:, :1] * rates, places[:, 1:] * rates], dim=1)
    for part, name in enumerate(QKV):
        expected = by_head(normed @ weight[part].T + biases[name])
        if name != "v":
            pairs = torch.view_as_complex(expected.unflatten(-1, (4, 2)).contiguous())
            pairs[:, :, 1:] *= torch.polar(torch.ones_like(angles), angles)
            expected = torch.view_as_real(pairs).flatten(-2)
        assert near(by_head(read[Tap(1, name)]), expected), name


@torch.no_grad()
@pytest.mark.parametrize("kind", ["BEiT", "BEiT, one bias for all blocks"])
def test_read__a_beits_q_and_k_are_without_its_bias(kind, monkeypatch):
    backbone = made(kind)
    read = backbone.read(pictures(), [Tap(2, "q"), Tap(2, "k")])
    q, k = (by_head(read[Tap(2, name)]) for name in "qk")
    owner = backbone.vit.rel_pos_bias or backbone.vit.blocks[1].attn
    table, bias = owner.relative_position_bias_table, torch.zeros(3, 17, 17)
    for a, b in itertools.product(range(16), range(16)):  # 4 x 4 patches, 7 x 7 offsets
        bias[:, 1 + a, 1 + b] = table[(a // 4 - b // 4 + 3) * 7 + a % 4 - b % 4 + 3]
    bias[:, 0, :], bias[:, :, 0], bias[:, 0, 0] = table[-3][:, None], table[-2][:, None], table[-1]
    products = q @ k.transpose(-2, -1) / math.sqrt(8)
    expected = own_map(backbone, pictures(), 2, monkeypatch)
    assert near((products + bias).softmax(-1), expected)
    assert not near(products.softmax(-1), expected)


@torch.no_grad()
def test_walk__maps_with_the_blocks_bias_are_the_networks_own(network, monkeypatch):
    taps = [Tap(number, name) for number in (1, network.depth) for name in "qk"]
    for number, parts, told in network.walk(pictures(), taps):
        attn, heads = network.vit.blocks[number - 1].attn, network.heads[number - 1]
        q, k = (parts[name].unflatten(-1, (heads, -1)).transpose(1, 2) for name in "qk")
        products = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if getattr(attn, "relative_position_bias_table", None) is not None:
            products = products + attn._get_rel_pos_bias()
        maps = (products + told.get("shared_rel_pos_bias", 0)).softmax(-1)
        assert near(maps, own_map(network, pictures(), number, monkeypatch))


@pytest.mark.parametrize("kind", [*ROTARY, "BEiT without bias"])
@torch.no_grad()
def test_keep__takes_the_positions_of_the_kept_patches_along(kind):
    backbone = made(kind)
    prefix, tap = backbone.prefix, Tap(3, "ffn_post")
    dice = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(16, generator=dice) for _ in range(2)])
    whole, shuffled = backbone.read(pictures(), [tap])[tap], backbone.read(pictures(), [tap], order)[tap]
    scale = whole.abs().max()  # another order of sums is to the largest of their terms
    whole, shuffled = whole / scale, shuffled / scale
    assert near(shuffled[:, :prefix], whole[:, :prefix])
    for image in range(2):
        assert near(shuffled[image, prefix:], whole[image, prefix:][order[image]])


@pytest.mark.parametrize("kind", ROTARY)
@torch.no_grad()
def test_keep__as_timms_own_patch_dropout(kind):
    backbone = made(kind)
    keep, tap, prefix = torch.tensor([[9, 2, 15, 0], [3, 4, 14, 1]]), Tap(2, "k"), backbone.prefix
    q_and_k = backbone.read(pictures(), [tap, Tap(3, "ffn_post")], keep)

    class Drop(nn.Module):
        def forward(self, x):
            rows = [torch.cat([one[:prefix], one[prefix:][patches]]) for one, patches in zip(x, keep, strict=True)]
            return torch.stack(rows), keep

    backbone.vit.patch_drop = Drop()
    outputs = []
    backbone.vit.blocks[2].register_forward_hook(lambda _, x, y: outputs.append(y))
    backbone.vit(backbone.normalise(pictures()))
    assert near(q_and_k[Tap(3, "ffn_post")], outputs[0])
    assert q_and_k[tap].shape == (2, prefix + 4, 24)


@pytest.mark.parametrize("kind", BEITS)
def test_keep__is_refused_where_positions_are_laid_out_for_all_patches(kind):
    with pytest.raises(TinymimError, match=r"^beit_base_patch16_224 cannot be run on a part of the patches.*bias"):
        made(kind).read(pictures(), [Tap(1, "q")], torch.tensor([[1, 2], [3, 4]]))


READS = [[Tap(1, "v")], [Tap(1, "k")], [Tap(1, "attn_pre")], [Tap(2, "q")], [Tap(2, "ffn_post"), Tap(1, "v")]]


@pytest.mark.parametrize("taps", READS, ids=str)
def test_reached__is_what_the_taps_train(network, taps):
    assert network.reached(taps) == trained_by(network, taps)


@pytest.mark.parametrize("kind", ["EVA-02", "BEiT"])
def test_logits__are_timms(kind):
    arch, options = KINDS[kind]
    backbone, tap = shaken({"num_classes": 5, "global_pool": "avg", **options}, arch=arch), Tap(3, "logits")
    assert near(backbone.read(pictures(), [tap])[tap], backbone.vit(backbone.normalise(pictures())))
    assert backbone.reached([tap]) == trained_by(backbone, [tap])


def gradients(backbone):
    """Of a loss on a few taps."""
    backbone.zero_grad(set_to_none=True)
    taken = backbone.read(pictures(), [Tap(1, "q"), Tap(3, "k"), Tap(3, "attn_post")])
    sum(tokens.square().mean() for tokens in taken.values()).backward()
    return {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["EVA-02", "rotations of each block", "BEiT, both biases and embedded positions"])
def test_checkpointing__changes_no_gradient(kind):
    backbone = made(kind)
    expected = gradients(backbone)
    backbone.checkpointing = True
    found = gradients(backbone)
    assert found.keys() == expected.keys()
    assert all(near(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize("kind", ["EVA-02", "BEiT, one bias for all blocks"])
@torch.no_grad()
def test_compile__changes_no_reading(kind, monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    backbone = made(kind)
    taps = [Tap(2, "q"), Tap(2, "ffn_post"), Tap(3, "attn_pre")]
    expected = backbone.read(pictures(), taps)
    backbone.compile_blocks()
    assert all(near(tokens, expected[tap]) for tap, tokens in backbone.read(pictures(), taps).items())


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_read__under_autocast_with_weights_in_bfloat16(kind):
    """As a frozen teacher computes."""
    backbone = made(kind)
    taps = [Tap(2, "q"), Tap(2, "ffn_post"), Tap(3, "v")]
    expected = backbone.read(pictures(), taps)
    for module in backbone.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = backbone.read(pictures(), taps)
    for tap, tokens in found.items():
        assert (tokens - expected[tap]).norm() < 0.1 * expected[tap].norm(), tap


@pytest.mark.parametrize("kind", ["EVA-02", "BEiT"])
def test_set_drop_path__skips_branches(kind):
    backbone = made(kind).train()
    set_drop_path(backbone.vit, 0.999, "constant")
    taps = [Tap(1, "ffn_post"), Tap(2, "attn_post"), Tap(2, "ffn_post")]
    first, attended, second = (tokens for _, tokens in sorted(backbone.read(pictures(), taps).items()))
    assert torch.equal(attended, first)
    assert torch.equal(second, first)


@pytest.mark.parametrize("arch", [EVA, BEIT])
def test_heads__are_fixed_once_built_and_chosen_before(arch):
    backbone = shaken(arch=arch)
    with pytest.raises(TinymimError, match=r"heads: .*3 heads of block 2 are fixed"):
        set_heads(backbone.vit, 2, 6)
    with pytest.raises(TinymimError, match=r"3 heads of block 2 are fixed"):
        skeleton(tiny(arch=arch, heads=[3, 6, 3]))
    options = {name: value for name, value in TINY.items() if name != "num_heads"}
    chosen = skeleton(Architecture(arch, options, heads=6))
    record = json.loads(json.dumps(chosen.record()))
    assert chosen.heads == [6, 6, 6] == skeleton(Architecture(**record["architecture"])).heads


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_record__rebuilds_the_network(kind):
    backbone = made(kind)
    again = Backbone(Architecture(**json.loads(json.dumps(backbone.record()))["architecture"]), initialise=False).eval()
    again.vit.load_state_dict(backbone.vit.state_dict())
    assert torch.equal(again.features(pictures()), backbone.features(pictures()))


def test_describe__says_how_positions_act():
    assert skeleton(tiny(arch=EVA)).describe().endswith("4x4 patches, rotary positions")
    assert skeleton(tiny(arch=BEIT)).describe().endswith("4x4 patches, relative position bias")
    assert skeleton(tiny(arch="eva_giant_patch14_224")).describe().endswith("4x4 patches")
