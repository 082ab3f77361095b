"""The blocks that the analyses see: each map is the one the network itself computes."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tests.vit.test_backbone import near, pictures, shaken
from tests.vit.test_other_backbones import BEITS, ROTARY, made
from tinymim.analysis import swin as windows
from tinymim.analysis.attention_maps import layers
from tinymim.analysis.layer import distances
from tinymim.errors import TinymimError
from tinymim.teachers.card import Card
from tinymim.vit.architecture import Architecture

SMALL = {"img_size": 32, "patch_size": 2, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
SWIN, SWIN_2 = "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"


def swin(arch, **options):
    """With weights far from where they start."""
    torch.manual_seed(0)
    network = windows.build(arch, SMALL | options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def inside(network, images, monkeypatch):
    """The maps in timm's own forward, from what its attention hands to PyTorch's."""
    heard = []
    attend = F.scaled_dot_product_attention

    def overheard(q, k, v, attn_mask=None, **options):
        logits = (q.double() @ k.double().mT) * q.shape[-1] ** -0.5
        heard.append((logits if attn_mask is None else logits + attn_mask).softmax(-1).float())
        return attend(q, k, v, attn_mask=attn_mask, **options)

    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(F, "scaled_dot_product_attention", overheard)
        for block in network.vit.blocks:
            block.attn.fused_attn = True
        network.vit.forward_features(network.normalise(images))
    return heard


@pytest.mark.parametrize("kind", [*ROTARY, *BEITS, "DINOv2, registers"])
def test_layers__maps_are_the_networks_own(kind, monkeypatch):
    network = made(kind)
    expected = inside(network, pictures(), monkeypatch)
    for number, layer in enumerate(layers(network, pictures()), start=1):
        assert (layer.block, layer.heads, layer.prefix) == (number, 3, network.prefix)
        maps = layer.maps(slice(0, 2))
        assert maps.shape == (2, 1, 3, *[network.prefix + 16] * 2)
        assert maps.dtype == torch.float32
        assert near(maps[:, 0].exp(), expected[number - 1])
        assert torch.equal(layer.maps(slice(1, 2)), maps[1:])
    assert number == 3


def test_layers__of_a_plain_vit_give_its_outputs_and_the_places_of_its_patches():
    network = shaken({"reg_tokens": 2, "patch_size": (4, 8)}).train()
    with torch.no_grad():
        outputs = network.eval().vit.forward_intermediates(
            network.normalise(pictures()), output_fmt="NLC", intermediates_only=True, return_prefix_tokens=True
        )
    network.train()
    for layer, (patches, prefix) in zip(layers(network, pictures()), outputs, strict=True):
        assert near(layer.tokens, torch.cat([prefix, patches], dim=1))
        assert (layer.prefix, layer.grid, layer.patch) == (3, (4, 2), 6)
        assert layer.distances.shape == (8, 8)
    assert layer.distances[0, 1] == 8  # one patch to the right
    assert layer.distances[0, 2] == 4  # one below
    assert layer.distances[1, 2] == pytest.approx(80**0.5)


@pytest.mark.parametrize("arch", [SWIN, SWIN_2])
@pytest.mark.parametrize("options", [{}, {"window_size": (2, 8)}, {"qkv_bias": False}])
def test_windowed__maps_and_outputs_are_timms_own(arch, options):
    network, images = swin(arch, **options), torch.rand(3, 3, 32, 32)
    maps, outputs = [], []
    for block in network._blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _, given: maps.append(given[0]))
        block.register_forward_hook(lambda _, given, made: outputs.append(made))
    network.swin.forward_features((images - network.mean) / network.std)
    expected = list(zip(maps, outputs, strict=True))
    shifted = []
    for layer, (own, output) in zip(layers(network, images), expected, strict=True):
        found = layer.maps(slice(0, 3))
        assert near(found.exp().flatten(0, 1), own)
        assert near(layer.tokens, output.flatten(1, 2))
        assert torch.equal(layer.maps(slice(1, 2)), found[1:2])
        if layer.allowed is not None:
            shifted.append(layer.block)
            assert found.exp().movedim(2, 0)[:, :, ~layer.allowed].max() < 1e-20
    assert shifted == [2, 4]
    assert network.heads == [2, 2, 4, 4]


def test_windowed__a_tokens_side_doubles_from_stage_to_stage():
    seen = [
        (layer.grid, layer.patch, layer.distances[0, 1].item())
        for layer in layers(swin(SWIN), torch.rand(1, 3, 32, 32))
    ]
    assert seen == [((16, 16), 2, 2)] * 2 + [((8, 8), 4, 4)] * 2
    near_ones = distances((4, 4), (2, 2))
    assert near_ones[0, 5] == pytest.approx(8**0.5)


def test_windowed__shifted_windows_join_patches_that_lie_side_by_side():
    first, second, *_ = layers(swin(SWIN), torch.rand(1, 3, 32, 32))
    assert first.allowed is None
    inner, corner = second.allowed[0], second.allowed[-1]
    assert inner.all()
    assert corner.sum() == 4 * 4 * 4  # the last window has pieces of four sides of the image, 2x2 patches each


@pytest.mark.parametrize(
    ("arch", "options", "words"),
    [
        (SWIN, {"img_size": 40}, "img_size: windows of 4x4 do not tile the 10x10 tokens of a stage"),
        (SWIN, {"windows": 3}, "options: timm cannot build swin_tiny"),
        ("resnet18", {}, "options: timm cannot build resnet18|arch: resnet18 is no Swin"),
    ],
)
def test_windowed__refuses_what_it_would_measure_wrongly(arch, options, words):
    base = {"img_size": 40, "patch_size": 4, "window_size": 4} if "img_size" in options else {}
    with pytest.raises(TinymimError, match=words):
        windows.build(arch, base | options)


def test_is_windowed__knows_swins_by_name():
    assert windows.is_windowed("timm:swin_tiny_patch4_window7_224.ms_in1k")
    assert windows.is_windowed("timm:swinv2_tiny_window8_256")
    assert not windows.is_windowed("timm:vit_base_patch16_224.mae")
    assert not windows.is_windowed("timm:no_such_model")
    assert not windows.is_windowed("swin_tiny_patch4_window7_224")


@pytest.mark.parametrize("arch", [SWIN, SWIN_2])
def test_load__of_a_file_here_with_the_names_of_timms_first_versions(home, arch):
    network = swin(arch)
    state = {
        key.replace("layers.1.downsample", "layers.0.downsample"): v for key, v in network.swin.state_dict().items()
    }
    state |= {"layers.0.blocks.1.attn_mask": torch.zeros(1), "head.weight": torch.zeros(2, 16)}
    save_file(state, home.env / "swin.safetensors")
    card = Card(
        "timm:swin", Architecture(arch, SMALL), "swin.safetensors", "mit", "none", "a test", path=home.env / "card"
    )
    loaded, provenance = windows.from_card(card)
    for key, value in network.swin.state_dict().items():
        assert torch.equal(loaded.swin.state_dict()[key], value) or key.startswith(windows.HEAD)
    assert "head.fc.weight" in provenance.unexpected
    del state["layers.0.blocks.1.mlp.fc1.weight"]
    save_file(state, home.env / "swin.safetensors")
    with pytest.raises(TinymimError, match=r"1 of its \d+ are missing or of another shape.*layers.0.blocks.1.mlp.fc1"):
        windows.from_card(card)


def test_load__names_the_way_to_the_weights_where_there_is_no_network(home, monkeypatch):
    monkeypatch.setattr(windows.timm_hub, "unreachable", lambda url: "no connection")
    with pytest.raises(
        TinymimError, match=r"weights of timm:swin_tiny_patch4_window7_224.ms_in1k are not here.*no conn"
    ):
        windows.load("timm:swin_tiny_patch4_window7_224.ms_in1k")
