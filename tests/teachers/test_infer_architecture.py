import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.teachers.card_files import publish, write
from tinymim.errors import TinymimError
from tinymim.teachers import card as cards
from tinymim.teachers import infer_architecture, locate, weights
from tinymim.vit.architecture import IMAGENET_MEAN, Architecture
from tinymim.vit.backbone import Backbone

SMALL = {"img_size": 32, "depth": 12}
"""As deep as published, so that sizes tell; on few patches."""


def trained(architecture):
    """A network none of whose weights are as they were born, but for fixed positions."""
    torch.manual_seed(0)
    backbone = Backbone(architecture).eval()
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if not (architecture.pos_embed == "sincos" and name.endswith("pos_embed")):
                parameter.normal_(std=0.1)
    return backbone


def put(path, state):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save({"model": state}, path)
    return str(path)


def mae(backbone):
    return {**backbone.vit.state_dict(), "decoder_embed.weight": torch.rand(2, 2), "mask_token": torch.rand(1)}


def published_table(side, width):
    """MAE's and TinyMIM's positions written out (arXiv 2111.06377, appendix A.1, in the channels' order of their code):
    a quarter each of sines and cosines of the column, then of the row; zeros for CLS."""
    table = torch.zeros(1, 1 + side * side, width)
    for place in range(side * side):
        row, column = divmod(place, side)
        for channel in range(width):
            quarter, number = divmod(channel, width // 4)
            angle = (column if quarter < 2 else row) / 10000 ** (number / (width // 4))
            table[0, 1 + place, channel] = math.sin(angle) if quarter % 2 == 0 else math.cos(angle)
    return table


@torch.no_grad()
def with_published_positions(options):
    original = trained(Architecture("vit_tiny_patch16_224", options, pos_embed="sincos"))
    original.vit.pos_embed.copy_(published_table(original.grid[0], original.width))
    return original


@pytest.mark.parametrize("publish", [mae, lambda backbone: encoder(backbone)], ids=["whole", "encoder alone"])
@pytest.mark.parametrize("half", [False, True])
def test_locate__maes_own_positions_say_whose_they_are(home, tmp_path, publish, half):
    original = with_published_positions(SMALL)
    state = publish(original)
    located = locate.locate(
        put(tmp_path / "other_name.pth", {k: v.bfloat16() if half else v for k, v in state.items()})
    )
    assert located.card.architecture.pos_embed == "sincos"
    backbone, _ = located.load()
    assert backbone.architecture.mean == IMAGENET_MEAN
    assert not backbone.vit.pos_embed.requires_grad
    assert half or same(backbone, original)


def encoder(backbone):
    return {key: value for key, value in backbone.vit.state_dict().items() if not key.startswith("norm.")}


def test_locate__other_tables_are_no_maes(home, tmp_path):
    original = with_published_positions(SMALL)
    for change in (torch.zeros_like, lambda table: table.flip(1), lambda table: table.roll(1, 2)):
        state = {**encoder(original), "pos_embed": change(original.vit.pos_embed.data)}
        assert "does not say its mean, std; " in unsaid(put(tmp_path / "else.pth", state))


def test_locate__a_vitmae_folder_without_a_preprocessor(home, tmp_path):
    from transformers import ViTMAEConfig, ViTMAEModel

    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 96}
    model = ViTMAEModel(ViTMAEConfig(**sizes, image_size=16, patch_size=4, layer_norm_eps=1e-6, mask_ratio=0.0))
    with torch.no_grad():
        model.embeddings.position_embeddings.copy_(published_table(4, 24))
    model.save_pretrained(tmp_path / "hf")
    backbone, _ = locate.locate(str(tmp_path / "hf")).load()
    assert (backbone.architecture.pos_embed, backbone.heads) == ("sincos", [6, 6])
    assert torch.equal(backbone.vit.pos_embed, published_table(4, 24))


def test_locate__dinov2s_positions_are_resampled_as_its_code_does(home, tmp_path):
    original = trained(Architecture("vit_small_patch14_dinov2", {"img_size": 28}))
    state = {**encoder(original), "mask_token": torch.rand(1, 384)}
    located = locate.locate(put(tmp_path / "own.pth", state))
    assert located.card.architecture.resampling == "dinov2"
    assert all(
        cards.read(path).architecture.resampling == ("timm" if "_reg_" in path.stem else "dinov2")
        for path in (Path(__file__).parents[2] / "teachers").glob("dinov2_*.yaml")
    )


@torch.no_grad()
def same(backbone, original):
    size = original.image_size
    images = torch.rand(2, 3, *size)
    return backbone.image_size == size and torch.allclose(
        backbone.features(images), original.features(images), atol=1e-6
    )


@pytest.mark.parametrize(
    ("arch", "options", "pos_embed"),
    [
        ("vit_tiny_patch16_224", SMALL, "sincos"),
        ("vit_tiny_patch16_224", {**SMALL, "patch_size": 8}, "learned"),
    ],
)
def test_locate__a_mae_file_of_published_sizes(home, tmp_path, arch, options, pos_embed):
    original = trained(Architecture(arch, options, pos_embed=pos_embed))
    located = locate.locate(put(tmp_path / "some.pth", mae(original)))
    assert located.skeleton.heads == original.heads
    assert (located.licence, located.card.architecture.pos_embed) == ("unknown", pos_embed)
    backbone, provenance = located.load()
    assert backbone.architecture.mean == IMAGENET_MEAN
    assert same(backbone, original)
    assert "form MAE" in str(provenance)
    assert "licence unknown" in str(provenance)


def test_locate__eva02_has_clips_input_mean(home, tmp_path):
    original = trained(
        Architecture(
            "eva02_tiny_patch14_224",
            {"img_size": 28},
            mean=infer_architecture.OPENAI_CLIP_MEAN,
            std=infer_architecture.OPENAI_CLIP_STD,
        )
    )
    backbone, _ = locate.locate(put(tmp_path / "eva.safetensors", original.vit.state_dict())).load()
    assert backbone.architecture.mean[0] == 0.48145466
    assert backbone.heads == [3] * 12
    assert same(backbone, original)


def test_locate__simmim_says_its_heads_in_its_tables(home, tmp_path):
    options = {"img_size": 32, "embed_dim": 48, "depth": 2, "num_heads": 4}
    options |= {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
    original = trained(Architecture("beit_base_patch16_224", options))
    state = {f"encoder.{key}": value for key, value in original.vit.state_dict().items()}
    state |= {"encoder.mask_token": torch.rand(1, 1, 48), "decoder.0.weight": torch.rand(768, 48, 1, 1)}
    backbone, _ = locate.locate(put(tmp_path / "simmim.pth", state)).load()
    assert backbone.heads == [4, 4]
    assert same(backbone, original)


def unsaid(source):
    with pytest.raises(TinymimError, match=r"teacher: .* and does not say its ") as caught:
        locate.locate(source)
    return str(caught.value)


def test_locate__what_weights_cannot_say_is_asked_for_with_the_command(home, tmp_path):
    original = trained(
        Architecture(options={"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3})
    )
    said = unsaid(put(tmp_path / "own one.pth", original.vit.state_dict()))
    assert "width 24, depth 3" in said
    assert "does not say its heads, mean, std" in said
    assert (
        f"`tinymim teachers add '{tmp_path}/own one.pth' --name ... --licence ... --heads ... --mean ... --std ...`"
        in said
    )
    assert "does not say its heads; " in unsaid(put(tmp_path / "mae.pth", mae(original)))


def test_locate__a_plain_file_may_have_been_trained_with_any_input_mean(home, tmp_path):
    original = trained(Architecture("vit_tiny_patch16_224", SMALL))
    assert "does not say its mean, std; " in unsaid(put(tmp_path / "plain.pth", original.vit.state_dict()))


def test_locate__a_student_of_relations_does_not_say_its_last_heads(home, tmp_path):
    original = trained(Architecture("vit_tiny_patch16_224", SMALL, pos_embed="sincos"))
    last = original.vit.blocks[-1]
    with torch.no_grad():
        last.norm2.weight.fill_(1)
        last.mlp.fc1.bias.zero_()
    assert "does not say its heads; " in unsaid(put(tmp_path / "TinyMIM-PT-X.pth", original.vit.state_dict()))


def test_locate__a_file_of_the_name_that_a_card_has(home, tmp_path):
    write(home.env, {"licence": "BSD"})
    (home.env / "broken.yaml").write_text("name: [")
    (tmp_path / "else").mkdir()
    original = publish(tmp_path / "else")
    located = locate.locate(str(tmp_path / "else/small.pth"))
    assert (located.licence, located.card.name) == ("BSD", "small")
    backbone, provenance = located.load()
    assert provenance.path == str(tmp_path / "else/small.pth")
    assert backbone.heads == [3, 3, 6]
    assert same(backbone, original)


def test_locate__timms_folder(home, tmp_path):
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 6}
    original = trained(Architecture("vit_tiny_patch16_224", options, mean=(0.1, 0.2, 0.3)))
    source = put(tmp_path / "timm/model.safetensors", original.vit.state_dict())
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 0, "model_args": options}
    config["pretrained_cfg"] = {"mean": [0.1, 0.2, 0.3], "std": [0.229, 0.224, 0.225], "license": "mit"}
    (tmp_path / "timm/config.json").write_text(json.dumps(config))
    for named in (str(tmp_path / "timm"), source):
        located = locate.locate(named)
        assert located.licence == "mit"
        backbone, _ = located.load()
        assert backbone.heads == [6, 6, 6]
        assert same(backbone, original)
    (tmp_path / "timm/config.json").write_text("{")
    with pytest.raises(TinymimError, match=r"config\.json cannot be read"):
        locate.locate(str(tmp_path / "timm"))


def test_locate__transformers_folder(home, tmp_path):
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=6, intermediate_size=96)
    config.image_size, config.patch_size = 16, 4
    torch.manual_seed(0)
    model = ViTModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path / "hf")
    assert "does not say its mean, std; " in unsaid(str(tmp_path / "hf"))
    images = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (tmp_path / "hf/preprocessor_config.json").write_text(json.dumps(images))
    backbone, _ = locate.locate(str(tmp_path / "hf")).load()
    assert backbone.heads == [6, 6]
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected = model(x * 2 - 1, output_hidden_states=True).hidden_states[1][:, 1:].mean(1)
        assert torch.allclose(backbone.features(x, block=1), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "scale"),
    [({"do_rescale": False}, 255), ({"rescale_factor": 1 / 127.5}, 2), ({"rescale_factor": None}, 1)],
)
def test_beside__a_processor_that_rescales_otherwise(tmp_path, fields, scale):
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text("{}")
    colours = {"image_mean": [0.5, 1, 2], "image_std": [1, 1, 4], **fields}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(colours))
    facts = infer_architecture.beside(tmp_path / "model.safetensors")
    assert facts.mean == pytest.approx((0.5 / scale, 1 / scale, 2 / scale))
    assert facts.std == pytest.approx((1 / scale, 1 / scale, 4 / scale))


@pytest.mark.parametrize(("field", "value"), [("hidden_act", "relu"), ("layer_norm_eps", 1e-2)])
def test_locate__transformers_folder_of_networks_that_compute_otherwise(home, tmp_path, field, value):
    original = trained(Architecture("vit_tiny_patch16_224", SMALL))
    put(tmp_path / "other/model.safetensors", original.vit.state_dict())
    colours = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "other/preprocessor_config.json").write_text(json.dumps({**colours, "do_normalize": False}))
    config = {"num_attention_heads": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    (tmp_path / "other/config.json").write_text(json.dumps(config))
    found = locate.locate(str(tmp_path / "other")).skeleton.architecture
    assert (found.mean, found.std) == ((0, 0, 0), (1, 1, 1))
    (tmp_path / "other/config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(TinymimError, match=rf"config.json says .*{field} {value}.* would compute something else"):
        locate.locate(str(tmp_path / "other"))


def test_locate__timms_folder_names_a_network_that_is_not_common(home, tmp_path):
    original = trained(Architecture("vit_little_patch16_reg4_gap_256", {"img_size": 32, "depth": 2}))
    put(tmp_path / "little/model.safetensors", original.vit.state_dict())
    colours = {"mean": [0.5] * 3, "std": [0.5] * 3}
    config = {"architecture": "vit_little_patch16_reg4_gap_256", "pretrained_cfg": colours}
    (tmp_path / "little/config.json").write_text(json.dumps(config))
    assert locate.locate(str(tmp_path / "little")).skeleton.heads == original.heads


def test_locate__an_export_of_ours_in_a_folder(home, tmp_path):
    (tmp_path / "out").mkdir()
    original = publish(tmp_path)
    weights.export(original, tmp_path / "out/model.safetensors", {"licence": "BSD"})
    located = locate.locate(str(tmp_path / "out"))
    assert (located.card, located.licence) == (None, "BSD")
    assert same(located.load()[0], original)


def test_locate__a_folder_without_weights(home, tmp_path):
    with pytest.raises(TinymimError, match=r"has no model\.safetensors and no pytorch_model\.bin"):
        locate.locate(str(tmp_path))
    (tmp_path / "notes.txt").write_bytes(bytes(range(256)))
    with pytest.raises(TinymimError, match=r"notes.txt is no file of weights, which end in \.ckpt, \.safetensors"):
        locate.locate(str(tmp_path / "notes.txt"))


def test_locate__what_is_no_vit_is_named(home, tmp_path):
    path = put(tmp_path / "resnet.pth", {"layer1.0.conv1.weight": torch.rand(3, 3)})
    with pytest.raises(TinymimError, match=r"holds ResNet weights \(no ViT"):
        locate.locate(path)


INSTEAD = {
    "graph": ("model.onnx", "model.onnx is a graph that another program runs, as its README.md shows: name the check"),
    "run": ("checkpoints/last.ckpt", "it is a run: name a checkpoint in it, such as .*/checkpoints/last.ckpt"),
    "parts": ("model.safetensors.index.json", "its weights lie in several parts"),
    "dcp": (".metadata", "it is a distributed checkpoint of PyTorch: .*dcp_to_torch"),
    "unpacked.pth": ("archive/data.pkl", "it is a file of PyTorch's that was unpacked"),
    "files": ("some.pth", "name the file itself, such as .*files/some.pth"),
}


@pytest.mark.parametrize("name", INSTEAD)
def test_locate__a_folder_in_the_place_of_a_file_is_named(home, tmp_path, name):
    inner, words = INSTEAD[name]
    (tmp_path / name / inner).parent.mkdir(parents=True)
    (tmp_path / name / inner).touch()
    with pytest.raises(TinymimError, match=rf"the folder .*{name} has no model\.safetensors .*; {words}"):
        locate.locate(str(tmp_path / name))
