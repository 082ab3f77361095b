"""timm's, transformers' and torchvision's ViTs: what differs where the same is expected (docs/behaviours.md)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import transformers
from huggingface_hub import save_torch_model
from safetensors.torch import load_file
from timm.layers import build_sincos2d_pos_embed
from timm.models.naflexvit import checkpoint_filter_fn
from torch import Tensor
from torchvision.models import VisionTransformer

TIMM: dict[str, Any] = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
HF: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 16,
    "patch_size": 4,
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def vit(**options: Any) -> Any:
    return timm.create_model("vit_tiny_patch16_224", **{**TIMM, **options}).eval().requires_grad_(False)


def theirs(name: str, **options: Any) -> Any:
    config = getattr(transformers, f"{name}Config")(**{**HF, **options})
    return getattr(transformers, f"{name}Model")(config).eval().requires_grad_(False)


def folder_of(network: Any, folder: Path, **model_args: Any) -> str:
    """timm's folder of a network, with the options that rebuild it alone."""
    timm.models.save_for_hf(network, folder, model_args={**TIMM, **model_args})
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] = {**TIMM, **model_args}
    (folder / "config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


def images(side: int = 16) -> Tensor:
    return torch.randn(2, 3, side, side)


def test_sincos__mae_and_timm_order_their_channels_differently() -> None:
    grid, width = 4, 16
    frequency = 1 / 10000 ** (torch.arange(width // 4) / (width // 4))
    row, column = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    angles = [place.reshape(-1, 1) * frequency for place in (column, row)]
    mae = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], 1)  # MAE's pos_embed.py
    timms = build_sincos2d_pos_embed([grid, grid], width, interleave_sin_cos=False)
    sin_row, sin_column, cos_row, cos_column = timms.chunk(4, 1)
    torch.testing.assert_close(torch.cat([sin_column, cos_column, sin_row, cos_row], 1), mae)
    assert (timms - mae).abs().max() > 1


def test_vitmae__a_fresh_one_has_no_positions() -> None:
    config = transformers.ViTMAEConfig(
        **HF, decoder_hidden_size=16, decoder_num_attention_heads=2, decoder_num_hidden_layers=1
    )
    network = transformers.ViTMAEForPreTraining(config)
    assert network.vit.embeddings.position_embeddings.abs().max() == 0
    assert network.decoder.decoder_pos_embed.abs().max() == 0


def test_vitmae__shuffles_without_masking() -> None:
    output = theirs("ViTMAE", mask_ratio=0.0)(images())
    assert output.last_hidden_state.shape[1] == 17
    assert (output.ids_restore != torch.arange(16)).any()


def test_save_pretrained__writes_other_names_than_the_state_dict_has(tmp_path: Path) -> None:
    network = theirs("ViT")
    network.save_pretrained(tmp_path)
    written, own = load_file(tmp_path / "model.safetensors"), set(network.state_dict())
    assert any(key.startswith("encoder.layer.0.") for key in written)
    assert not any(key.startswith("encoder.layer.0.") for key in own)
    missing, _ = theirs("ViT").load_state_dict(written, strict=False)
    left = sum(network.state_dict()[key].numel() for key in missing)
    assert left > 0.5 * sum(p.numel() for p in network.parameters())


def test_local_dir__another_number_of_classes_loads_leniently(tmp_path: Path) -> None:
    network = vit(num_classes=5)
    place = folder_of(network, tmp_path, num_classes=5)
    for file in (path for path in tmp_path.iterdir() if path.name != "config.json"):
        file.unlink()
    torch.save({f"encoder.{key}": value for key, value in network.state_dict().items()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(RuntimeError, match="Missing key"):
        timm.create_model(place, pretrained=True, num_classes=5)
    read = timm.create_model(place, pretrained=True, num_classes=7)
    assert not torch.equal(read.blocks[0].attn.qkv.weight, network.blocks[0].attn.qkv.weight)


def test_shards__timm_reads_the_first(tmp_path: Path) -> None:
    network = vit(num_classes=5)
    place = folder_of(network, tmp_path, num_classes=5)
    for file in (path for path in tmp_path.iterdir() if path.name != "config.json"):
        file.unlink()
    save_torch_model(network, tmp_path, max_shard_size=20_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    read = timm.create_model(place, pretrained=True, num_classes=7).state_dict()
    equal = [torch.equal(read[key], value) for key, value in network.state_dict().items() if "blocks" in key]
    assert any(equal)
    assert not all(equal)


def test_reset_classifier__keeps_the_norm_where_it_was() -> None:
    network, other = vit(num_classes=5), vit(num_classes=5, global_pool="avg")
    network.reset_classifier(5, "avg")
    assert isinstance(network.fc_norm, torch.nn.Identity)
    assert isinstance(other.fc_norm, torch.nn.LayerNorm)
    assert isinstance(other.norm, torch.nn.Identity)


def test_features_only__gives_the_last_block_without_the_norm() -> None:
    network, features = vit(), timm.create_model("vit_tiny_patch16_224", **TIMM, features_only=True, out_indices=(1,))
    features.eval().model.load_state_dict(network.state_dict(), strict=False)
    x = images()
    last = features(x)[-1].flatten(2).transpose(1, 2)
    assert (last - network.forward_features(x)[:, 1:]).abs().max() > 0.1
    torch.testing.assert_close(network.norm(last), network.forward_features(x)[:, 1:])


def test_timm_wrapper__hidden_states_are_maps_without_class_token(tmp_path: Path) -> None:
    folder_of(vit(), tmp_path)
    output = transformers.TimmWrapperModel.from_pretrained(tmp_path).eval()(images(), output_hidden_states=True)
    assert output.last_hidden_state.shape == (2, 17, 24)
    assert [tuple(state.shape) for state in output.hidden_states] == [(2, 24, 4, 4)] * 2
    states = theirs("ViT")(images(), output_hidden_states=True).hidden_states
    assert [tuple(state.shape) for state in states] == [(2, 17, 24)] * 3


def test_timm_wrapper__does_not_open_a_folder_that_says_its_classes_twice(tmp_path: Path) -> None:
    timm.models.save_for_hf(vit(num_classes=5), tmp_path, model_args=TIMM)  # which adds num_classes to them
    with pytest.raises(TypeError, match="multiple values for keyword argument 'num_classes'"):
        transformers.TimmWrapperModel.from_pretrained(tmp_path)


def test_attentions__are_left_out_unless_attention_is_eager() -> None:
    config = transformers.ViTConfig(**HF)
    given = {
        way: transformers.ViTModel._from_config(config, attn_implementation=way)(images(), output_attentions=True)
        for way in ("sdpa", "eager")
    }
    assert not given["sdpa"].attentions
    assert len(given["eager"].attentions) == 2


def test_ijepa__pools_its_first_patch() -> None:
    config = transformers.IJepaConfig(**HF)
    network = transformers.IJepaModel(config, add_pooling_layer=True).eval()
    output, pooler = network(images()), network.pooler
    tokens = output.last_hidden_state
    assert tokens.shape[1] == 16  # there is no class token
    torch.testing.assert_close(output.pooler_output, pooler.activation(pooler.dense(tokens[:, 0])))


def test_dinov3__in_train_mode_sees_other_coordinates() -> None:
    network, x = theirs("DINOv3ViT"), images()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    still = network(x).last_hidden_state
    assert not torch.equal(network.train()(x).last_hidden_state, still)
    timms = timm.create_model("vit_small_patch16_dinov3", **{**TIMM, "embed_dim": 32}).requires_grad_(False)
    assert torch.equal(timms.train().forward_features(x), timms.eval().forward_features(x))


def test_drop_path__of_dinov2_is_one_rate_in_transformers() -> None:
    def rates(network: Any) -> list[float]:
        return [float(m.drop_prob) for m in network.modules() if type(m).__name__.endswith("DropPath")]

    assert set(rates(theirs("Dinov2", num_hidden_layers=4, drop_path_rate=0.3))) == {0.3}
    assert rates(theirs("Beit", num_hidden_layers=4, drop_path_rate=0.3)) == pytest.approx([0.1, 0.2, 0.3])
    assert sorted(set(rates(vit(depth=4, drop_path_rate=0.3)))) == pytest.approx([0.1, 0.2, 0.3])


def test_images__that_patches_do_not_divide_are_cut_in_transformers() -> None:
    x = images(19)
    for name in ("Dinov2", "DINOv3ViT", "Beit"):
        x_cut = F.pad(x, (0, -3, 0, -3))
        network = theirs(name)
        torch.testing.assert_close(network(x).last_hidden_state, network(x_cut).last_hidden_state)
    with pytest.raises(AssertionError, match="divisible"):
        vit(dynamic_img_size=True)(x)


def test_rope__eva_squeezes_a_larger_grid_and_the_rope_vit_does_not() -> None:
    def begins_alike(name: str, patch: int) -> bool:
        tables = []
        for grid in (16, 24):
            rope = timm.create_model(name, depth=1, img_size=patch * grid).rope
            tables.append(rope.get_embed().view(grid, grid, -1))
        return torch.equal(tables[1][:16, :16], tables[0])

    assert begins_alike("vit_small_patch16_rope_224", 16)
    assert not begins_alike("eva02_tiny_patch14_224", 14)


def test_antialias__changes_an_enlarged_table() -> None:
    table = torch.randn(1, 1, 14, 14)
    plain, other = (F.interpolate(table, (16, 16), mode="bicubic", antialias=on) for on in (False, True))
    assert 0.1 < (plain - other).abs().max() < 1


def test_naflex__conversion_moves_the_network_it_reads() -> None:
    network, flexible = vit(), timm.create_model("vit_tiny_patch16_224", **TIMM, use_naflex=True)
    before = network.cls_token.clone()
    checkpoint_filter_fn(network.state_dict(), flexible)
    torch.testing.assert_close(network.cls_token, before + network.pos_embed[:, :1])


def test_out_proj__of_torchvision_is_a_module_that_never_runs() -> None:
    network, ran = VisionTransformer(16, 4, 1, 2, 24, 48), []
    attention = network.encoder.layers[0].self_attention
    attention.out_proj.register_forward_hook(lambda *_: ran.append("projection"))
    attention.register_forward_hook(lambda *_: ran.append("attention"))
    network(images())
    assert ran == ["attention"]


def test_in_chans__another_number_keeps_the_mean_of_three() -> None:
    network = vit(in_chans=1)
    assert len(timm.data.resolve_model_data_config(network)["mean"]) == 3


def test_rope__of_dinov3_is_rounded_in_transformers_alone() -> None:
    theirs_ = theirs("DINOv3ViT").bfloat16()
    timms = timm.create_model("vit_small_patch16_dinov3", **{**TIMM, "embed_dim": 32}).bfloat16()
    assert (theirs_.rope_embeddings.inv_freq.dtype, timms.rope.periods.dtype) == (torch.bfloat16, torch.float32)


logging.getLogger("timm").setLevel(logging.ERROR)
