"""Files with the key names their authors publish, against the same weights in timm's networks."""

import argparse
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.conftest import write_card
from tinymim.errors import TinymimError
from tinymim.teachers import formats, locate, weights
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Tap

SIZES = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
VIT = Architecture("vit_tiny_patch16_224", SIZES)
STAR = Architecture("deit_tiny_distilled_patch16_224", SIZES)
DINOV2 = Architecture("vit_small_patch14_dinov2", SIZES)
DINOV2_GIANT = Architecture("vit_giant_patch14_dinov2", SIZES)
DINOV2_REGISTERS = Architecture("vit_small_patch14_reg4_dinov2", SIZES)
BEIT = Architecture("beit_base_patch16_224", SIZES)
SHARED = {**SIZES, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
BEIT_SHARED = Architecture("beit_base_patch16_224", SHARED)
EVA02 = Architecture("eva02_tiny_patch14_224", {**SIZES, "ref_feat_shape": None})
EVA02_BASE = Architecture("eva02_base_patch14_224", {**SIZES, "ref_feat_shape": None})


def network(architecture, seed):
    """With every weight drawn anew, so that none is a no-op (biases, layer scale, bias tables)."""
    torch.manual_seed(seed)
    backbone = Backbone(architecture).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(std=0.3)
    return backbone


@torch.no_grad()
def outputs(backbone):
    """What every block gives out."""
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    taps = [Tap(block, name) for block in range(1, backbone.depth + 1) for name in ("q", "k", "v", "ffn_post")]
    readings = backbone.read(images, taps)
    return torch.stack([readings[tap] for tap in taps])


def encoder(backbone):
    return {key: value for key, value in backbone.vit.state_dict().items() if not key.startswith(("norm.", "fc_norm."))}


def linear(name, inputs, out):
    return {f"{name}.weight": torch.rand(out, inputs), f"{name}.bias": torch.rand(out)}


def layer(name, width):
    return {f"{name}.weight": torch.rand(width), f"{name}.bias": torch.rand(width)}


def block(name, width):
    state = layer(f"{name}.norm1", width) | layer(f"{name}.norm2", width)
    state |= linear(f"{name}.attn.qkv", width, 3 * width) | linear(f"{name}.attn.proj", width, width)
    return state | linear(f"{name}.mlp.fc1", width, 4 * width) | linear(f"{name}.mlp.fc2", 4 * width, width)


def mae(own):
    """The `mae_visualize_*` and training files; `mae_pretrain_*` have the encoder alone."""
    decoder = {"mask_token": torch.rand(1, 1, 16), "decoder_pos_embed": torch.rand(1, 17, 16)}
    decoder |= linear("decoder_embed", 24, 16) | block("decoder_blocks.0", 16) | layer("decoder_norm", 16)
    state = own | layer("norm", 24) | decoder | linear("decoder_pred", 16, 48)
    args = argparse.Namespace(model="mae_vit_base_patch16", lr=1e-3, device="cuda")
    return {"model": state, "optimizer": {"state": {}, "param_groups": []}, "epoch": 799, "scaler": {}, "args": args}


def simmim(own):
    state = {f"encoder.{key}": value for key, value in own.items()}
    state |= {"encoder.mask_token": torch.rand(1, 1, 24), **linear("decoder.0", 24, 768), **layer("encoder.norm", 24)}
    state["decoder.0.weight"] = torch.rand(768, 24, 1, 1)
    state["encoder.rel_pos_bias.relative_position_index"] = torch.zeros(17, 17, dtype=torch.long)
    return {"model": state, "max_accuracy": 0.0, "epoch": 799}


def beit(own):
    index = {"rel_pos_bias.relative_position_index": torch.zeros(17, 17, dtype=torch.long)}
    return {
        "model": {**own, **index, "mask_token": torch.rand(1, 1, 24), **layer("norm", 24), **linear("lm_head", 24, 32)}
    }


def beit_fine_tuned(own):
    index = {f"blocks.{i}.attn.relative_position_index": torch.zeros(17, 17, dtype=torch.long) for i in range(2)}
    return {"model": {**own, **index, **layer("fc_norm", 24), **linear("head", 24, 10)}}


def beitv2(own):
    state = beit(own)["model"]
    for i in range(2):
        state |= {f"cls_pt_layers.{i}.{key[9:]}": value.clone() for key, value in own.items() if key[:9] == "blocks.0."}
    return {"module": state}


def data2vec(own):
    return {"model": beit(own)["model"] | linear("lm_head", 24, 24), "args": argparse.Namespace(model="beit")}


def ibot(own):
    head = linear("module.head.mlp.0", 24, 8) | {"module.head.last_layer.weight_v": torch.rand(8, 8)}
    teacher = {f"module.backbone.{key}": value for key, value in (own | layer("norm", 24)).items()} | head
    student = {key: torch.rand_like(value) for key, value in teacher.items()}
    student["module.backbone.masked_embed"] = torch.rand(1, 24)
    return {"student": student, "teacher": teacher, "epoch": 800, "args": argparse.Namespace(arch="vit_base")}


def ibot_backbone(own):
    return {"state_dict": {**own, **layer("norm", 24), "masked_embed": torch.rand(1, 24)}}


def dinov2(own):
    return {**own, **layer("norm", 24), "mask_token": torch.rand(1, 24)}


def dinov2_giant(own):
    return dinov2({key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): own[key] for key in own})


def eva02(own):
    state = {key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): own[key] for key in own}
    return {"module": state | eva02_beside()}


def eva02_base(own):
    names = {
        "q_proj.bias": "q_bias",
        "v_proj.bias": "v_bias",
        "fc1_g": "w1",
        "fc1_x": "w2",
        "fc2": "w3",
        "p.norm": "p.ffn_ln",
    }
    state = {}
    for key, value in own.items():
        for timms, theirs in names.items():
            key = key.replace(timms, theirs)
        state[key] = value
    return {"model": state | eva02_beside()}


def eva02_beside():
    ropes = ["rope"] + [f"blocks.{i}.attn.rope" for i in range(2)]
    state = {f"{rope}.freqs_{wave}": torch.rand(16, 8) for rope in ropes for wave in ("cos", "sin")}
    return {**state, "mask_token": torch.rand(1, 1, 24), **layer("norm", 24), **linear("lm_head", 24, 40)}


def tinymim(own):
    return {"model": own | layer("norm", 24), "epoch": 299, "args": argparse.Namespace(student="tiny")}


def tinymim_star(own):
    neck = layer("conv1x1.0", 24) | linear("conv1x1.1", 24, 32)
    return {"model": {**own, **neck, **layer("fc_norm", 32), **linear("head", 32, 10), **linear("head_dist", 32, 10)}}


def distributed(own):
    """As `DistributedDataParallel` and `torch.compile` leave it."""
    return {f"module._orig_mod.{key}": value for key, value in mae(own)["model"].items()}


def nested(own):
    """An encoder and a decoder that are built alike, in a Lightning module."""
    decoder = {f"model.decoder.{key}": value for key, value in block("blocks.0", 16).items()}
    return {"state_dict": {f"model.encoder.{key}": value for key, value in own.items()} | decoder, "epoch": 3}


LAID_OUT = Architecture("vit_tiny_patch16_224", SIZES, heads=[3, 6])
TIMM = "timm, MAE or TinyMIM"
FORMS = {
    "mae": (mae, VIT, "MAE", "decoder (19), mask token, final norm (2)"),
    "simmim": (simmim, BEIT_SHARED, "SimMIM", "decoder (2), mask token, final norm (2)"),
    "beit": (beit, BEIT_SHARED, "BEiT or data2vec-vision", "token classifier (2), mask token, final norm (2)"),
    "beit fine-tuned": (beit_fine_tuned, BEIT, "BEiT or data2vec-vision", "final norm (2), classifier (2)"),
    "beitv2": (beitv2, BEIT_SHARED, "BEiTv2", "blocks of the CLS pre-training (30), token classifier (2), "),
    "data2vec": (data2vec, BEIT_SHARED, "BEiT or data2vec-vision", "token classifier (2), mask token, final norm (2)"),
    "ibot": (ibot, VIT, "iBOT", "projection head (3), final norm (2)"),
    "ibot's backbone": (ibot_backbone, VIT, "iBOT", "mask token, final norm (2)"),
    "dinov2": (dinov2, DINOV2, "DINOv2", "mask token, final norm (2)"),
    "dinov2 giant": (dinov2_giant, DINOV2_GIANT, "DINOv2", "mask token, final norm (2)"),
    "eva02": (eva02, EVA02, "EVA-02", "token classifier (2), mask token, final norm (2)"),
    "eva02 base": (eva02_base, EVA02_BASE, "EVA-02", "token classifier (2), mask token, final norm (2)"),
    "tinymim": (tinymim, LAID_OUT, TIMM, "final norm (2)"),
    "tinymim star": (tinymim_star, STAR, "TinyMIM*", "neck (4), final norm (2), classifier (4)"),
    "distributed": (distributed, VIT, "MAE", "decoder (19), mask token, final norm (2)"),
    "nested": (nested, VIT, TIMM, "unexpected 12 (model (12))"),
}


@pytest.mark.parametrize("name", FORMS)
def test_fill__a_published_form_gives_the_network_its_authors_had(tmp_path, name):
    publish, architecture, form, left = FORMS[name]
    theirs, ours = network(architecture, 0), network(architecture, 1)
    torch.save(publish(encoder(theirs)), tmp_path / "x.pth")
    file = weights.read(tmp_path / "x.pth")
    assert file.form == form
    assert not torch.equal(outputs(ours), outputs(theirs))
    matched, unexpected = weights.fill(ours, file)
    assert torch.equal(outputs(ours), outputs(theirs))
    assert matched == len(encoder(theirs))
    line = str(weights.Provenance("x", "x.pth", "0" * 64, False, matched, [], unexpected, form=form))
    assert f"form {form}, keys matched {matched}" in line
    assert left in line


@pytest.mark.parametrize("architecture", [VIT, BEIT, BEIT_SHARED, EVA02, EVA02_BASE], ids=lambda one: one.arch)
@pytest.mark.parametrize("suffix", ["safetensors", "pth", "bin"])
def test_fill__timms_own_files_with_a_classifier(tmp_path, architecture, suffix):
    theirs, ours = network(architecture, 0), network(architecture, 1)
    state = theirs.vit.state_dict() | linear("head", 24, 10)
    (save_file if suffix == "safetensors" else torch.save)(state, tmp_path / f"x.{suffix}")
    matched, unexpected = weights.fill(ours, weights.read(tmp_path / f"x.{suffix}"))
    assert torch.equal(outputs(ours), outputs(theirs))
    assert matched == len(encoder(theirs))
    assert {key.split(".")[0] for key in unexpected} <= {"head", "norm", "fc_norm"}


def test_fill__registers_as_dinov2_has_them(tmp_path):
    """Its CLS token gets positions and its registers none: the network by hand, from the authors' forward pass."""
    vit = network(DINOV2_REGISTERS, 0).vit
    state = dinov2({key: value for key, value in vit.state_dict().items() if not key.startswith("norm.")})
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.randn(1, 17, 24)
    torch.save(state, tmp_path / "x.pth")
    backbone = network(DINOV2_REGISTERS, 1)
    weights.fill(backbone, weights.read(tmp_path / "x.pth"))
    images = torch.rand(2, 3, 16, 16)
    patches = vit.patch_embed(backbone.normalise(images))
    tokens = torch.cat([state["cls_token"].expand(2, -1, -1), patches], 1) + state["pos_embed"]
    tokens = torch.cat([tokens[:, :1], state["register_tokens"].expand(2, -1, -1), tokens[:, 1:]], 1)
    assert torch.allclose(backbone.embed(images), tokens, atol=1e-6)


def test_fill__a_network_without_a_key_bias_fits_one_that_has_it_when_it_is_zero(tmp_path):
    """A BEiT with absolute positions alone is a plain ViT."""
    absolute = Architecture("beit_base_patch16_224", {**SIZES, "use_abs_pos_emb": True, "use_rel_pos_bias": False})
    theirs, ours = network(absolute, 0), network(Architecture("vit_tiny_patch16_224", {**SIZES, "init_values": 1.0}), 1)
    torch.save(theirs.vit.state_dict(), tmp_path / "x.pth")
    weights.fill(ours, weights.read(tmp_path / "x.pth"))
    assert torch.allclose(outputs(ours), outputs(theirs), atol=1e-5)
    torch.save(ours.vit.state_dict(), tmp_path / "x.pth")
    weights.fill(network(absolute, 2), weights.read(tmp_path / "x.pth"))
    ours.vit.blocks[1].attn.qkv.bias.data[24:48] = 1
    torch.save(ours.vit.state_dict(), tmp_path / "x.pth")
    with pytest.raises(TinymimError, match="left over: block 2's key bias"):
        weights.fill(network(absolute, 2), weights.read(tmp_path / "x.pth"))


def test_card__a_whole_mae_file_with_its_decoder(tmp_path, monkeypatch):
    theirs = network(VIT, 0)
    torch.save(mae(encoder(theirs)), tmp_path / "mae_tiny.pth")
    write_card(tmp_path, "mae_tiny", VIT, None, file="mae_tiny.pth")
    monkeypatch.setenv("TINYMIM_TEACHERS", str(tmp_path))
    teacher, provenance = locate.locate("mae_tiny").load()
    assert torch.equal(outputs(teacher), outputs(theirs))
    assert provenance.form == "MAE"
    assert "unexpected 22 (decoder (19), mask token, final norm (2))" in str(provenance)


def of(architecture, **options):
    return Architecture(architecture.arch, {**architecture.options, **options})


MISFITS = {
    "wider": (mae, of(VIT, embed_dim=48), VIT, "ViT: width 48, depth 2, patch 4, MLP ratio 4", "of another shape"),
    "deeper": (mae, of(VIT, depth=4), VIT, "depth 4", "left over: blocks 3 to 4; left out: decoder"),
    "shallower": (mae, of(VIT, depth=1), VIT, "depth 1", "encoder weights missing: block 2;"),
    "patch": (mae, of(VIT, patch_size=8), VIT, "patch 8", r"patch_embed\.proj\.weight \(24, 3, 8, 8\)"),
    "MLP": (mae, of(VIT, mlp_ratio=2), VIT, "MLP ratio 2", "of another shape"),
    "BEiT for ViT": (beit, BEIT_SHARED, VIT, "BEiT or .* weights .BEiT: width 24", r"one of timm's beit_\*"),
    "ViT for BEiT": (mae, VIT, BEIT, "MAE weights .ViT: width 24", r"one of timm's vit_\*"),
    "EVA for ViT": (eva02, EVA02, VIT, "EVA-02 weights .EVA-02: width 24", r"one of timm's eva02_\*"),
    "ViT for EVA": (mae, VIT, EVA02, "MAE weights", r"one of timm's vit_\*"),
    "shared bias": (simmim, BEIT_SHARED, BEIT, "SimMIM", "options would have to say .*'use_shared_rel_pos_bias': True"),
    "own bias": (beit_fine_tuned, BEIT, BEIT_SHARED, "BEiT", "'use_rel_pos_bias': True"),
    "layer scale": (dinov2, DINOV2, VIT, "DINOv2", "left over: blocks 1 to 2's layer scale;.*'init_values'"),
    "registers": (dinov2, DINOV2, DINOV2_REGISTERS, "DINOv2", "missing: registers;.*'reg_tokens': 0"),
    "distillation": (tinymim_star, STAR, VIT, r"TinyMIM\*", "left over: distillation token;"),
    "no CLS": (mae, VIT, of(VIT, class_token=False, global_pool="avg"), "MAE", "left over: CLS token;.*'class_token'"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_fill__another_architecture_is_refused_by_naming_both(tmp_path, name):
    publish, theirs, ours, held, why = MISFITS[name]
    torch.save(publish(encoder(network(theirs, 0))), tmp_path / "x.pth")
    backbone = network(ours, 1)
    before = outputs(backbone)
    with pytest.raises(TinymimError, match=rf"x\.pth holds .*{held}.*, which do not fit {ours.arch}: width") as raised:
        weights.fill(backbone, weights.read(tmp_path / "x.pth"))
    assert re.search(why, str(raised.value))
    assert "\n" not in str(raised.value)
    assert torch.equal(outputs(backbone), before), "nothing was loaded"


OTHERS = {
    "Swin Transformer": {
        "encoder.patch_embed.proj.weight": (8, 3, 4, 4),
        "encoder.layers.0.blocks.0.norm1.weight": (8,),
    },
    "ResNet": {"conv1.weight": (8, 3, 7, 7), "layer1.0.conv1.weight": (8, 8, 1, 1)},
    "hierarchical network": {"stages.0.blocks.0.conv_dw.weight": (8, 1, 7, 7)},
    "CLIP": {"visual.transformer.resblocks.0.ln_1.weight": (8,)},
    "unknown": {"a.weight": (8,)},
}


@pytest.mark.parametrize("form", OTHERS)
def test_fill__what_is_no_vit_is_named(tmp_path, form):
    torch.save({"model": {key: torch.rand(shape) for key, shape in OTHERS[form].items()}}, tmp_path / "x.pth")
    with pytest.raises(
        TinymimError, match=f"holds {form} weights .no ViT; keys: .*, which do not fit vit_tiny_patch16"
    ):
        weights.fill(network(VIT, 0), weights.read(tmp_path / "x.pth"))


def test_read__two_networks_in_one_dict_are_refused(tmp_path):
    own = encoder(network(VIT, 0))
    torch.save({f"{part}.{key}": own[key] for part in ("student", "ema") for key in own}, tmp_path / "x.pth")
    with pytest.raises(TinymimError, match=r"x\.pth holds 2 networks, under 'ema\.', 'student\.'; save one"):
        weights.read(tmp_path / "x.pth")


ODD = {
    "no axis": lambda value: value.flatten()[0],
    "none": lambda value: value[:0],
    "one row more": lambda value: torch.cat([value, value[:1]]),
    "flat": lambda value: value.flatten(),
    "missing": lambda value: None,
}


@pytest.mark.parametrize("name", FORMS)
def test_fill__a_tensor_of_odd_shape_is_refused_or_was_left_out(tmp_path, name):
    publish, architecture, *_ = FORMS[name]
    theirs, ours = network(architecture, 0), network(architecture, 1)
    state, spared = formats.unwrapped(publish(encoder(theirs))), torch.Generator().manual_seed(0)
    for key in (list(state)[int(i)] for i in torch.randperm(len(state), generator=spared)[:12]):
        for change in ODD.values():
            odd = {**state, key: change(state[key])}
            form, named = formats.recognised(tmp_path, {k: v for k, v in odd.items() if v is not None})
            refused = ""
            try:
                weights.fill(ours, weights.File(tmp_path, named, form=form))
            except TinymimError as error:
                refused = str(error)
            assert "\n" not in refused
            assert refused or torch.equal(outputs(ours), outputs(theirs)), f"{key} is no part of the encoder"


def test_read__keys_and_nesting_nobody_publishes(tmp_path):
    around = {"model": {}, 3: torch.rand(2)}
    around["model"]["model"] = around
    torch.save(around, tmp_path / "x.pth")
    with pytest.raises(TinymimError, match=r"x\.pth holds no weights \(keys: model, 3\)"):
        weights.read(tmp_path / "x.pth")


@pytest.mark.parametrize("size", [16, 24])
@pytest.mark.parametrize("name", ["beit", "beit fine-tuned", "dinov2", "dinov2 giant", "eva02", "eva02 base"])
def test_fill__timms_own_filter_gives_the_same(name, size):
    """timm converts some of these forms too, and resamples: an independent account of the names."""
    publish, architecture, *_ = FORMS[name]
    state = formats.unwrapped(publish(encoder(network(of(architecture, img_size=size), 0))))
    ours, timms = network(architecture, 1), network(architecture, 2)
    form, named = formats.recognised(Path("x.pth"), state)
    weights.fill(ours, weights.File(Path("x.pth"), named, form=form))
    module = {"beit": timm.models.beit, "eva02": timm.models.eva}.get(name[:5].strip(), timm.models.vision_transformer)
    beside = timms.vit.load_state_dict(module.checkpoint_filter_fn(dict(state), timms.vit), strict=False)
    assert set(beside.missing_keys) <= {"norm.weight", "norm.bias", "fc_norm.weight", "fc_norm.bias"}
    assert torch.equal(outputs(ours), outputs(timms))
