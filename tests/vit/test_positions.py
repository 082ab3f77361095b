"""Positions of a file fitted to a network of another grid, against timm's own change of a network's input size."""

import warnings

import pytest
import torch

from tests.vit.test_backbone import near, shaken, tiny
from tests.vit.test_other_backbones import BEIT, DINOV3, EVA, SHARED
from tinymim.errors import TinymimError
from tinymim.tasks.base import resized_backbone
from tinymim.teachers import weights
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.positions import fit_positions
from tinymim.vit.taps import Tap

WITH_POSITIONS = {
    "plain": ("vit_tiny_patch16_224", {}),
    "registers, patches embedded alone": ("vit_small_patch14_reg4_dinov2", {}),
    "no CLS": ("vit_huge_patch14_gap_224", {}),
    "EVA-02, rope": (EVA, {}),
    "BEiT": (BEIT, {}),
    "BEiT, one bias for all blocks": (BEIT, SHARED),
}


def ignored():
    """timm's interpolation of tables warns."""
    return warnings.catch_warnings(action="ignore")


def written(tmp_path, backbone):
    path = tmp_path / "x.pth"
    torch.save(backbone.vit.state_dict(), path)
    return weights.read(path)


@pytest.mark.parametrize("kind", WITH_POSITIONS)
@pytest.mark.parametrize("size", [16, 40])
@torch.no_grad()
def test_fill__positions_of_another_grid_are_resampled(kind, size, tmp_path):
    arch, options = WITH_POSITIONS[kind]
    trained = shaken({"img_size": 28, **options}, arch=arch)  # 7 x 7 patches
    if not hasattr(trained.vit, "set_input_size"):
        pytest.skip("timm resizes no BEiT before 1.0.31, so there is nothing to compare with")
    other = Backbone(tiny({"img_size": size, **options}, arch=arch), initialise=False).eval()
    matched, _ = weights.fill(other, written(tmp_path, trained))
    with ignored():
        trained.vit.set_input_size(img_size=size)  # timm's own way
    images = torch.rand(2, 3, size, size)
    outputs = []
    trained.vit.blocks[2].register_forward_hook(lambda _, x, y: outputs.append(y))
    trained.vit(trained.normalise(images))
    assert near(other.read(images, [Tap(3, "ffn_post")])[Tap(3, "ffn_post")], outputs[0])
    assert other.resampled_from == (7, 7)
    assert matched == len([key for key in other.vit.state_dict() if not key.startswith("norm.")])


@pytest.mark.parametrize(("arch", "size"), [("vit_tiny_patch16_224", 16), (DINOV3, 40)])
def test_fill__positions_that_fit_or_come_from_the_grid_alone_stay_as_they_are(arch, size, tmp_path):
    trained, other = shaken(arch=arch), Backbone(tiny({"img_size": size}, arch=arch))
    weights.fill(other, written(tmp_path, trained))
    assert other.resampled_from is None
    state = {key: value for key, value in trained.vit.state_dict().items() if not key.startswith("norm.")}
    assert all(torch.equal(value, other.vit.state_dict()[key]) for key, value in state.items())


@torch.no_grad()
def test_fill__a_grid_of_as_many_patches_in_another_shape_is_another_grid(tmp_path, capsys):
    """16 patches are 4 x 4 and 2 x 8: with a record the one is resampled to the other, as timm's set_input_size does;
    without one they are taken as they are, which is said."""
    trained = shaken({"img_size": [8, 32]})
    weights.export(trained, tmp_path / "ours.safetensors", {"teacher": None, "licence": "unknown"})
    other = Backbone(tiny({"img_size": 16}), initialise=False)
    weights.fill(other, weights.read(tmp_path / "ours.safetensors"))
    again = Backbone(tiny({"img_size": [8, 32]}), initialise=False)
    weights.fill(again, weights.read(tmp_path / "ours.safetensors"))
    assert (other.resampled_from, again.resampled_from) == ((2, 8), None)
    assert torch.equal(again.vit.pos_embed, trained.vit.pos_embed)
    assert capsys.readouterr().err == ""
    weights.fill(again, written(tmp_path, shaken({"img_size": 16})))
    assert again.resampled_from is None
    assert "taken as 2x8 patches, as img_size says" in capsys.readouterr().err
    at_another = resized_backbone(trained, 16)
    trained.vit.set_input_size(img_size=16)
    assert torch.equal(other.vit.pos_embed, trained.vit.pos_embed)
    assert torch.equal(at_another.vit.pos_embed, trained.vit.pos_embed)


def test_fit_positions__a_table_of_no_square_is_not_fitted():
    trained, other = shaken({"img_size": [8, 32]}, arch=BEIT), skeleton(tiny({"img_size": [32, 8]}, arch=BEIT))
    with pytest.raises(TinymimError, match="relative positions of 2x8 patches cannot be resampled to 8x2"):
        fit_positions(other.vit, trained.vit.state_dict(), trained_on=(2, 8))


@torch.no_grad()
def test_fit_positions__the_prefix_keeps_its_own_and_a_plane_stays_a_plane():
    trained, other = shaken({"img_size": 32}), skeleton(tiny({"img_size": 16}))
    plane = torch.arange(8.0).view(8, 1, 1) + torch.zeros(8, 8, 24)  # grows from row to row
    trained.vit.pos_embed[:, 1:] = plane.view(1, 64, 24)
    fitted, side = fit_positions(other.vit, trained.vit.state_dict())
    rows = fitted["pos_embed"][0, 1:].view(4, 4, 24)
    assert side == (8, 8)
    assert torch.equal(fitted["pos_embed"][:, 0], trained.vit.pos_embed[:, 0])
    assert torch.allclose(rows[1:3].mean((1, 2)), torch.tensor([2.5, 4.5]), atol=0.05)
    assert trained.vit.pos_embed.shape == (1, 65, 24)


@torch.no_grad()
@pytest.mark.filterwarnings("error")
def test_fit_positions__a_table_keeps_the_rows_of_cls_and_what_no_offset_means():
    trained, other = shaken({"img_size": 28}, arch=BEIT), skeleton(tiny({"img_size": 16}, arch=BEIT))
    fitted, _ = fit_positions(other.vit, trained.vit.state_dict())
    key = "blocks.1.attn.relative_position_bias_table"
    table, own = fitted[key], trained.vit.state_dict()[key]
    assert table.shape == (7 * 7 + 3, 3)
    assert torch.equal(table[-3:], own[-3:])
    assert near(table[24], own[84])  # the middle of 7 x 7 offsets, and of 13 x 13


def test_fit_positions__fixed_ones_are_resampled_like_learned_ones(tmp_path):
    trained = shaken({"img_size": 32}, pos_embed="sincos")
    other = Backbone(tiny(pos_embed="sincos"), initialise=False)
    weights.fill(other, written(tmp_path, trained))
    assert other.resampled_from == (8, 8)
    anew = Backbone(tiny(pos_embed="sincos")).vit.pos_embed
    assert not torch.allclose(other.vit.pos_embed, anew, atol=0.1)


@pytest.mark.parametrize(
    ("arch", "key", "shape"),
    [
        ("vit_tiny_patch16_224", "pos_embed", (1, 1 + 50, 24)),
        ("vit_tiny_patch16_224", "pos_embed", (1, 1 + 49, 12)),
        ("vit_tiny_patch16_224", "pos_embed", (50, 24)),
        (BEIT, "blocks.0.attn.relative_position_bias_table", (13 * 13 + 2, 3)),
        (BEIT, "blocks.0.attn.relative_position_bias_table", (12 * 12 + 3, 3)),
        (BEIT, "blocks.0.attn.relative_position_bias_table", (13 * 13 + 3, 4)),
        (BEIT, "blocks.0.attn.proj.weight", (49, 24)),
    ],
)
def test_fill__what_is_no_square_grid_is_refused(arch, key, shape, tmp_path):
    trained, other = shaken(arch=arch), Backbone(tiny(arch=arch))
    file = written(tmp_path, trained)
    file.state[key] = torch.zeros(shape)
    with pytest.raises(TinymimError, match=rf"x\.pth holds .*, which do not fit .* of another shape: {key} "):
        weights.fill(other, file)


def cubic(distance, a=-0.75):
    """Keys' convolution kernel, with the constant that PyTorch takes where it does not antialias."""
    x = abs(distance)
    if x >= 2:
        return 0.0
    return (a + 2) * x**3 - (a + 3) * x**2 + 1 if x < 1 else a * (x**3 - 5 * x**2 + 8 * x - 4)


def test_fit_positions__as_the_code_of_dinov2_does():
    """By hand: target i is read at (i + 1/2) / scale - 1/2, and the scale has a tenth of a patch more."""
    other = skeleton(tiny({"img_size": 16}, arch="vit_small_patch14_dinov2", resampling="dinov2"))
    stored = torch.randn(1, 1 + 81, 24, generator=torch.Generator().manual_seed(0))
    mixed = torch.zeros(4, 9)
    for i in range(4):
        place = (i + 0.5) / ((4 + 0.1) / 9) - 0.5
        for j in range(int(place // 1) - 1, int(place // 1) + 3):
            mixed[i, min(max(j, 0), 8)] += cubic(place - j)
    expected = torch.einsum("ir,jc,rcd->ijd", mixed, mixed, stored[0, 1:].view(9, 9, 24)).reshape(16, 24)
    fitted = other.fit({"pos_embed": stored})["pos_embed"]
    assert torch.allclose(fitted[0, 1:], expected, atol=1e-5)
    assert torch.equal(fitted[:, 0], stored[:, 0])
    timms, _ = fit_positions(other.vit, {"pos_embed": stored})
    assert torch.cosine_similarity(timms["pos_embed"][0, 1:].flatten(), expected.flatten(), dim=0) < 0.8
    assert other.record()["architecture"]["resampling"] == "dinov2"
    assert "resampling" not in skeleton(tiny()).record()["architecture"], "as in records of before"
