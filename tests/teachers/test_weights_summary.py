import pytest
import torch

from tinymim.teachers.weights_summary import by_meaning, describe, summarise
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import skeleton


def block(number, *parts):
    return [f"blocks.{number}.{part}" for part in parts]


WHOLE = ("norm1.weight", "attn.qkv.weight", "norm2.bias", "mlp.fc1.weight")
KEYS = [
    ([], ""),
    (["mask_token"], "mask token"),
    (["head.weight", "head.bias", "mask_token"], "classifier (2), mask token"),
    (block(11, "attn.qkv.weight", "attn.proj.bias"), "block 12's attention"),
    ([key for number in (12, 13, 14) for key in block(number, *WHOLE)], "blocks 13 to 15"),
    (block(0, *WHOLE) + block(2, *WHOLE), "block 1, block 3"),
    (block(0, *WHOLE) + block(1, "mlp.fc1.weight"), "block 1, block 2's MLP"),
    (block(0, "gamma_1", "norm1.bias") + block(1, "ls2.gamma", "norm2.bias"), "blocks 1 to 2's layer scale and norms"),
    (["decoder.0.weight", "decoder_blocks.3.attn.qkv.bias"], "decoder (2)"),
    (["predictor.a", "predictor.b"], "predictor (2)"),
]


@pytest.mark.parametrize(("keys", "said"), KEYS)
def test_by_meaning(keys, said):
    assert by_meaning(keys) == said


PUBLISHED = {
    "vit_large_patch16_224": "ViT: width 1024, depth 24, patch 16, MLP ratio 4",
    "vit_huge_patch14_224": "ViT: width 1280, depth 32, patch 14, MLP ratio 4",
    "beit_base_patch16_224": "BEiT: width 768, depth 12, patch 16, MLP ratio 4",
    "eva02_tiny_patch14_224": "EVA-02: width 192, depth 12, patch 14, MLP ratio 2.667",
    "eva02_base_patch14_224": "EVA-02: width 768, depth 12, patch 14, MLP ratio 2.667",
    "vit_giant_patch14_dinov2": "ViT: width 1536, depth 40, patch 14, MLP ratio 2.667",
}


@pytest.mark.parametrize("arch", PUBLISHED)
def test_look__the_sizes_of_published_networks(arch):
    state = skeleton(Architecture(arch)).vit.state_dict()
    assert str(summarise(state)) == PUBLISHED[arch]
    assert describe("MAE", state) == f"MAE weights ({PUBLISHED[arch]})"


OPTIONS = {
    "vit_small_patch14_reg4_dinov2": {
        "reg_tokens": 4,
        "no_embed_class": True,
        "init_values": 1e-5,
        "class_token": True,
    },
    "vit_base_patch16_224": {"reg_tokens": 0, "init_values": 0, "class_token": True},
    "beit_base_patch16_224": {
        "init_values": 1e-5,
        "use_abs_pos_emb": False,
        "use_rel_pos_bias": True,
        "use_shared_rel_pos_bias": False,
    },
    "eva02_base_patch14_224": {"scale_mlp": True},
}


@pytest.mark.parametrize("arch", OPTIONS)
def test_look__the_options_make_the_same_network_of_timms_class(arch):
    held = summarise(skeleton(Architecture(arch)).vit.state_dict())
    assert held.options == OPTIONS[arch]
    again = skeleton(Architecture(arch, held.options)).vit.state_dict()
    assert {key: value.shape for key, value in again.items()} == {
        key: value.shape for key, value in skeleton(Architecture(arch)).vit.state_dict().items()
    }


def test_look__a_beit_without_layer_scale():
    """timm's BEiTs have one unless they are told 0; None they do not hear."""
    plain = skeleton(Architecture("beit_base_patch16_224", {"init_values": 0})).vit.state_dict()
    held = summarise(plain)
    assert not any("gamma" in key for key in plain)
    assert held.options["init_values"] == 0
    again = skeleton(Architecture("beit_base_patch16_224", held.options)).vit.state_dict()
    assert again.keys() == plain.keys()


def test_look__no_block_of_a_vit():
    assert summarise({"layer1.0.conv1.weight": torch.zeros(1)}) is None
