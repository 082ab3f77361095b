"""Files as Hugging Face's transformers write them, against the hidden states of its own networks."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tinymim.errors import TinymimError
from tinymim.tasks.base import resized_backbone
from tinymim.teachers import locate, weights
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Tap

WIDTHS = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "layer_norm_eps": 1e-6}
THEIRS = {**WIDTHS, "image_size": 16, "patch_size": 4}
PLAIN = {**THEIRS, "intermediate_size": 96}
DECODER = {
    "decoder_hidden_size": 12,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 24,
    "mask_ratio": 0.0,
}
BEIT = {**PLAIN, "use_mask_token": True, "vocab_size": 10, "layer_scale_init_value": 0.1}
EACH, SHARED = {"use_relative_position_bias": True}, {"use_shared_relative_position_bias": True}

OURS = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}
VIT = Architecture("vit_tiny_patch16_224", OURS)
BEIT_EACH = Architecture("beit_base_patch16_224", OURS)
BEIT_SHARED = Architecture(BEIT_EACH.arch, {**OURS, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True})
BEIT_BOTH = Architecture(BEIT_EACH.arch, {**OURS, "use_shared_rel_pos_bias": True})
STAR = Architecture("deit_tiny_distilled_patch16_224", OURS)
DINOV2 = Architecture("vit_small_patch14_dinov2", OURS)
# transformers' hidden channels are those of the packed halves: int(4 * 24 * 2 / 3) up to a multiple of 8, twice
DINOV2_GATED = Architecture("vit_giant_patch14_dinov2", {**OURS, "mlp_ratio": 128 / 24})
DINOV3 = Architecture("vit_small_patch16_dinov3_qkvb", OURS)
DINOV3_GATED = Architecture("vit_huge_plus_patch16_dinov3_qkvb", {**OURS, "mlp_ratio": 96 / 24})
ROTARY = {**PLAIN, "num_register_tokens": 4, "layer_norm_eps": 1e-5}
DINOV2_REGISTERS = Architecture("vit_small_patch14_reg4_dinov2", OURS)

PIXELS = "Hugging Face BEiT or data2vec-vision"
NETWORKS = {
    "ViTMAEForPreTraining": ("ViTMAEConfig", PLAIN | DECODER, VIT, "Hugging Face ViTMAE", "decoder (24), "),
    "ViTMAEModel": ("ViTMAEConfig", PLAIN | DECODER, VIT, "Hugging Face ViT", "final norm (2)"),
    "ViTModel": ("ViTConfig", PLAIN, VIT, "Hugging Face ViT", "final norm (2), pooler (2)"),
    "DeiTModel": ("DeiTConfig", PLAIN, STAR, "Hugging Face ViT", "final norm (2), pooler (2)"),
    "ViTForImageClassification": ("ViTConfig", PLAIN, VIT, "Hugging Face ViT", "classifier (2), final norm (2)"),
    "ViTForMaskedImageModeling": (
        "ViTConfig",
        PLAIN,
        VIT,
        "Hugging Face ViT",
        "decoder (2), mask token, final norm (2)",
    ),
    "BeitForMaskedImageModeling": (
        "BeitConfig",
        BEIT | SHARED,
        BEIT_SHARED,
        PIXELS,
        "token classifier (2), mask token",
    ),
    "BeitModel": ("BeitConfig", BEIT | EACH, BEIT_EACH, PIXELS, "final norm (2)"),
    "BeitForImageClassification": ("BeitConfig", BEIT | EACH, BEIT_EACH, PIXELS, "classifier (2)"),
    "Data2VecVisionModel": ("Data2VecVisionConfig", BEIT | EACH | SHARED, BEIT_BOTH, PIXELS, "mask token"),
    "Data2VecVisionForImageClassification": (
        "Data2VecVisionConfig",
        BEIT | SHARED,
        BEIT_SHARED,
        "Hugging Face data2vec-vision",
        "classifier (2)",
    ),
    "Dinov2Model": ("Dinov2Config", THEIRS, DINOV2, "Hugging Face DINOv2", "mask token, final norm (2)"),
    "Dinov2ForImageClassification": (
        "Dinov2Config",
        {**THEIRS, "use_swiglu_ffn": True},
        DINOV2_GATED,
        "Hugging Face DINOv2",
        "classifier (2), mask token",
    ),
    "DINOv3ViTModel": ("DINOv3ViTConfig", ROTARY, DINOV3, "Hugging Face DINOv3", "mask token, final norm (2)"),
    "DINOv3ViTModel, gated": (
        "DINOv3ViTConfig",
        {**ROTARY, "use_gated_mlp": True, "hidden_act": "silu"},
        DINOV3_GATED,
        "Hugging Face DINOv3",
        "mask token, final norm (2)",
    ),
    "Dinov2WithRegistersModel": (
        "Dinov2WithRegistersConfig",
        THEIRS,
        DINOV2_REGISTERS,
        "Hugging Face DINOv2",
        "mask token, final norm (2)",
    ),
}


@torch.no_grad()
def published(name, folder):
    """A network with every weight drawn anew, in a file with the names of the hub, and in one with those of today."""
    transformers = pytest.importorskip("transformers")
    config, fields, *_ = NETWORKS[name]
    torch.manual_seed(0)
    network = getattr(transformers, name.partition(",")[0])(getattr(transformers, config)(**fields)).eval()
    for key, parameter in network.named_parameters():
        if not key.endswith("pos_embed"):
            parameter.normal_(std=0.3)
    network.save_pretrained(folder)
    state = network.state_dict()
    indices = {
        key.replace("_bias_table", "_index"): torch.zeros(17, 17).long() for key in state if "_bias_table" in key
    }
    torch.save(state | indices, folder / "today.bin")  # the indices were in the files of transformers 4.x
    return network


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_fill__hidden_states_are_those_of_transformers(tmp_path, name):
    network = published(name, tmp_path)
    _, _, architecture, form, left = NETWORKS[name]
    images = torch.rand(2, 3, 16, 16)
    backbone = Backbone(architecture).eval()
    noise = {"noise": torch.arange(16.0).expand(2, -1)} if "MAE" in name else {}  # and so no patch changes its place
    expected = network(backbone.normalise(images), output_hidden_states=True, **noise).hidden_states
    layers = "layer." if "v3" in name else "encoder.layer."
    assert any(key.startswith(layers) or f".{layers}" in key for key in load_file(tmp_path / "model.safetensors")), (
        "hub"
    )
    for file in ("model.safetensors", "today.bin"):
        backbone = Backbone(architecture).eval()
        read = weights.read(tmp_path / file)
        matched, unexpected = weights.fill(backbone, read)
        readings = backbone.read(images, [Tap(block, "ffn_post") for block in (1, 2)])
        for block in (1, 2):
            found = readings[Tap(block, "ffn_post")]
            assert torch.allclose(found, expected[block], atol=1e-4, rtol=1e-4), (found - expected[block]).abs().max()
        assert read.form == form
        assert left in str(weights.Provenance("x", "x", "0" * 64, False, matched, [], unexpected))


@pytest.mark.parametrize("name", ["Dinov2Model", "Dinov2WithRegistersModel"])
@pytest.mark.parametrize("size", [12, 28])
@torch.no_grad()
def test_locate__dinov2_on_images_of_another_size_is_transformers(tmp_path, name, size):
    network = published(name, tmp_path)
    network.embeddings.position_embeddings.normal_()
    network.save_pretrained(tmp_path)
    colours = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(colours))
    backbone, _ = locate.locate(str(tmp_path)).load()
    images = torch.rand(2, 3, size, size)
    theirs = network(backbone.normalise(images), output_hidden_states=True).hidden_states
    readings = resized_backbone(backbone, size).read(images, [Tap(block, "ffn_post") for block in (1, 2, 3)])
    for block in (1, 2, 3):
        assert torch.allclose(readings[Tap(block, "ffn_post")], theirs[block], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_fill__the_classifier_of_a_hugging_face_vit(tmp_path):
    network = published("ViTForImageClassification", tmp_path)
    architecture = Architecture(VIT.arch, {**OURS, "num_classes": 2, "global_pool": "token"})
    backbone = Backbone(architecture).eval()
    weights.fill(backbone, weights.read(tmp_path / "model.safetensors"), classifier=True)
    images, tap = torch.rand(2, 3, 16, 16), Tap(3, "logits")
    assert torch.allclose(backbone.read(images, [tap])[tap], network(backbone.normalise(images)).logits, atol=1e-4)


@pytest.mark.parametrize("name", ["DINOv3ViTModel", "DINOv3ViTModel, gated"])
@torch.no_grad()
def test_locate__a_dinov3_folder_as_transformers_writes_it(tmp_path, name):
    network = published(name, tmp_path)
    colours = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(colours))
    located = locate.locate(str(tmp_path))
    size = {"img_size": 16}  # of any: rotations come from the grid
    located.card.architecture.options |= size
    backbone, provenance = located.load()
    images = torch.rand(2, 3, 16, 16)
    expected = network(images * 2 - 1, output_hidden_states=True).hidden_states[2][:, 5:].mean(1)
    assert provenance.form == "Hugging Face DINOv3"
    assert torch.allclose(backbone.features(images, block=2), expected, atol=1e-4)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"rope_theta": 10000.0}))
    with pytest.raises(TinymimError, match="says rope_theta 10000, and that of DINOv3 is 100"):
        locate.locate(str(tmp_path))
