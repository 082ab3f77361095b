"""First weights against the rules of the published code, written out a second time."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.conftest import tiny
from tinymim.methods import Distiller, MAEPretrainer, Optim, SimMIMPretrainer
from tinymim.methods.mae_decoder import Decoder, Reconstruction
from tinymim.targets import Feature
from tinymim.tasks import Classifier, Detector, SceneTasks, Segmenter
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.initialise import initialise, truncated

CUT = 0.539560  # standard deviation of a standard normal cut off at -1 and 1: sqrt(1 - 2 phi(1) / (Phi(1) - Phi(-1)))


def backbone(init: str = "published", rule: Any = None, seed: int = 0, **options: Any) -> Backbone:
    torch.manual_seed(seed)
    network = Backbone(tiny(96, 4, depth=2, **options))
    return initialise(network, init, rule) if rule else initialise(network, init)  # type: ignore[arg-type]


def is_uniform(weights: Tensor, bound: float) -> None:
    """All within the bound, and in each of eight parts as many as a uniform distribution has, to five deviations."""
    assert weights.abs().max() <= bound
    count = weights.numel()
    parts = torch.histc(weights.detach().float(), 8, -bound, bound)
    assert (parts - count / 8).abs().max() < 5 * math.sqrt(count * 7 / 64)


def is_normal(weights: Tensor, std: float) -> None:
    """Mean 0 and the standard deviation, each to five of its own; values beyond two of it."""
    count = weights.numel()
    assert abs(float(weights.mean())) < 5 * std / math.sqrt(count)
    assert abs(float(weights.std()) - std) < 5 * std / math.sqrt(2 * count)
    assert count < 200 or weights.abs().max() > 2 * std


def is_cut(weights: Tensor, std: float) -> None:
    """A normal cut off at one ``std``."""
    assert weights.abs().max() <= std * (1 + 1e-6)
    assert float(weights.std()) == pytest.approx(CUT * std, rel=5 / math.sqrt(weights.numel()))
    assert abs(float(weights.mean())) < 5 * CUT * std / math.sqrt(weights.numel())


def is_xavier(linear: nn.Linear) -> None:
    rows, columns = linear.weight.shape
    is_uniform(linear.weight, math.sqrt(6 / (rows + columns)))
    assert linear.bias is None or not linear.bias.any()


@given(width=st.sampled_from([48, 96, 192]), patch=st.sampled_from([2, 4, 8]), seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_published__every_matrix_is_xavier_uniform_with_no_bias(width: int, patch: int, seed: int) -> None:
    torch.manual_seed(seed)
    vit: Any = initialise(Backbone(tiny(width, 4, depth=1, patch_size=patch)), "published").vit
    block = vit.blocks[0]
    assert float(block.attn.qkv.weight.std()) == pytest.approx(math.sqrt(6 / (4 * width) / 3), rel=0.05)
    for linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
        is_xavier(linear)
    pixels = 3 * patch * patch
    is_uniform(vit.patch_embed.proj.weight, math.sqrt(6 / (width + pixels)))
    is_normal(vit.cls_token, 0.02)


def test_published__spreads_of_a_vit_tiny_are_those_that_parity_found() -> None:
    torch.manual_seed(0)
    vit: Any = initialise(Backbone(Architecture(options={"depth": 1})), "published").vit
    block = vit.blocks[0]
    found = {
        "qkv": block.attn.qkv.weight,
        "proj": block.attn.proj.weight,
        "fc": block.mlp.fc1.weight,
        "patches": vit.patch_embed.proj.weight,
    }
    spreads = {name: float(weight.std()) for name, weight in found.items()}
    assert spreads == pytest.approx({"qkv": 0.051, "proj": 0.072, "fc": 0.0456, "patches": 0.0456}, abs=1e-3)


def test_published__norms_are_plain_and_the_rest_stays_as_it_was_built() -> None:
    torch.manual_seed(0)
    options = {"init_values": 0.1, "reg_tokens": 2}
    network = Backbone(tiny(96, 4, depth=2, **options))
    vit: Any = network.vit
    kept = ("pos_embed", "patch_embed.proj.bias", "blocks.0.ls1.gamma", "blocks.1.ls2.gamma")
    before = {name: vit.get_parameter(name).clone() for name in kept}
    with torch.no_grad():
        vit.blocks[0].norm1.weight.fill_(3)
        vit.norm.bias.fill_(3)
    initialise(network, "published")
    for name, value in before.items():
        assert torch.equal(vit.get_parameter(name), value), name
    assert float(before["patch_embed.proj.bias"].abs().max()) > 0  # PyTorch's, to 1 / sqrt(3 p²)
    assert float(before["patch_embed.proj.bias"].abs().max()) <= 1 / math.sqrt(48)
    for norm in (module for module in network.modules() if isinstance(module, nn.LayerNorm)):
        assert (norm.weight == 1).all()
        assert not norm.bias.any()
    is_normal(vit.reg_token, 0.02)


def test_published__fixed_positions_and_the_distillation_token() -> None:
    architecture = tiny(96, 4, depth=1)
    architecture.arch, architecture.pos_embed = "deit_tiny_distilled_patch16_224", "sincos"
    torch.manual_seed(0)
    network = Backbone(architecture)
    fixed = network.vit.pos_embed.clone()
    vit: Any = initialise(network, "published").vit
    assert torch.equal(vit.pos_embed, fixed)
    is_normal(vit.dist_token, 0.02)
    is_normal(vit.cls_token, 0.02)


def test_published__networks_with_tables_and_with_rope_keep_them() -> None:
    for arch in ("beit_base_patch16_224", "eva02_tiny_patch14_224"):
        torch.manual_seed(0)
        network = Backbone(Architecture(arch, {"depth": 1, "img_size": 56, "embed_dim": 96, "num_heads": 4}))
        tables = {name: v.clone() for name, v in network.named_parameters() if "table" in name or "pos_embed" in name}
        initialise(network, "published")
        for name, value in tables.items():
            assert torch.equal(network.get_parameter(name), value), name
        for linear in (module for module in network.modules() if isinstance(module, nn.Linear)):
            is_xavier(linear)


def test_published__maes_decoder() -> None:
    torch.manual_seed(0)
    decoder = initialise(Decoder(backbone(), 64, 2, 4), "published")
    for linear in (module for module in decoder.modules() if isinstance(module, nn.Linear)):
        is_xavier(linear)
    assert sum(isinstance(module, nn.Linear) for module in decoder.modules()) == 2 + 4 * 2
    is_normal(decoder.mask_token, 0.02)
    assert decoder.norm.eps == decoder.blocks[0].norm1.eps == 1e-6  # type: ignore[union-attr]


def test_simmim__normal_cut_at_one_deviation_and_deeper_blocks_write_less() -> None:
    network = backbone(rule=truncated, init_values=0.1)
    vit: Any = network.vit
    for number, block in enumerate(vit.blocks, start=1):
        for linear, std in (
            (block.attn.qkv, 0.02),
            (block.attn.proj, 0.02 / math.sqrt(2 * number)),
            (block.mlp.fc1, 0.02),
            (block.mlp.fc2, 0.02 / math.sqrt(2 * number)),
        ):
            is_cut(linear.weight, std)
            assert not linear.bias.any()
        assert (block.ls1.gamma == 0.1).all()
    is_cut(vit.patch_embed.proj.weight, 0.02)
    assert not vit.patch_embed.proj.bias.any()
    is_cut(vit.cls_token, 0.02)
    is_cut(vit.pos_embed, 0.02)


def test_simmim__fixed_positions_stay() -> None:
    architecture = tiny(96, 4, depth=1)
    architecture.pos_embed = "sincos"
    network = Backbone(architecture)
    fixed = network.vit.pos_embed.clone()
    assert torch.equal(initialise(network, "published", truncated).vit.pos_embed, fixed)


def test_timm__leaves_everything_as_it_was_built() -> None:
    torch.manual_seed(0)
    plain = Backbone(tiny(96, 4, depth=2))
    made = backbone("timm")
    assert all(torch.equal(made.get_parameter(name), value) for name, value in plain.named_parameters())
    assert float(made.vit.cls_token.abs().max()) < 1e-4


def test_published__is_a_function_of_the_seed() -> None:
    one, same, other = backbone(), backbone(), backbone(seed=1)
    state = one.state_dict()
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in state.items())
    assert not torch.equal(state["vit.blocks.0.attn.qkv.weight"], other.state_dict()["vit.blocks.0.attn.qkv.weight"])


def configured(module: Any, **data: Any) -> Any:
    torch.manual_seed(0)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    around = SimpleNamespace(image_size=16, num_classes=3, batch_size=8, **data)
    module._trainer = SimpleNamespace(
        datamodule=around, precision="32-true", strategy=strategy, world_size=1, state=SimpleNamespace(fn="fit")
    )
    module.configure_model()
    return module


SMALL = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}


def modules(init: str) -> dict[str, Any]:
    student, made = tiny(96, 4, depth=2), {"init": init, "optim": Optim()}
    return {
        "distiller": Distiller("tiny_teacher", student, [Feature()], **made),
        "mae": MAEPretrainer(student, **SMALL, **made),
        "simmim": SimMIMPretrainer(student, mask_unit=8, **made),
        "classifier": Classifier(architecture=student, **made),
    }


@pytest.mark.parametrize("name", ["distiller", "mae", "simmim", "classifier"])
def test_modules__follow_the_rule_and_say_so(name: str, teacher_card: Any) -> None:
    for init in ("published", "timm"):
        module = configured(modules(init)[name])
        qkv = module.backbone.vit.blocks[0].attn.qkv
        spread = {"published": CUT * 0.02 if name == "simmim" else math.sqrt(2 / (4 * 96)), "timm": 0.02}[init]
        assert float(qkv.weight.std()) == pytest.approx(spread, rel=0.05)
        assert any(f"first weights {init}" in f"{title} {text}" for title, text in module.summary())
        checkpoint: dict[str, Any] = {}
        module.on_save_checkpoint(checkpoint)
        assert checkpoint["tinymim"]["init"] == init == module.checkpoint_record()["init"]


def test_modules__default_to_the_published_rule() -> None:
    student = tiny(96, 4)
    for module in (
        Distiller("a", student, []),
        MAEPretrainer(student),
        SimMIMPretrainer(student),
        Classifier(),
        Segmenter(),
        Detector(),
        SceneTasks(["shape"]),
    ):
        assert module.init == "published"


def test_modules__a_mask_token_and_a_decoder_follow_it_too(teacher_card: Any) -> None:
    mae, simmim = (configured(modules("published")[name]) for name in ("mae", "simmim"))
    is_xavier(mae.decoder.embed)
    is_cut(simmim.restorer.mask_token, 0.02)
    pixels = simmim.restorer.pixels  # PyTorch's, as in the source
    is_uniform(pixels.weight, 1 / math.sqrt(96))
    assert pixels.bias.any()
    auxiliary = Distiller(
        "tiny_teacher", tiny(96, 4), [Feature()], mask_ratio=0.5, reconstruction=Reconstruction(**SMALL)
    )
    is_xavier(configured(auxiliary).reconstructor.decoder.pixels)


def test_modules__a_fine_tuned_ones_rule_is_its_starts(tmp_path: Any, teacher_card: Any) -> None:
    """A classifier that starts from weights has no first weights of its own, and hands on what theirs were."""
    from tests.training.made import checkpoint, network

    path = checkpoint(tmp_path / "last.ckpt", network(tiny(24, 4)), init="published")
    module = configured(Classifier(weights=str(path), optim=Optim()))
    saved: dict[str, Any] = {}
    module.on_save_checkpoint(saved)
    assert "init" not in saved["tinymim"]
    assert saved["tinymim"]["start"]["init"] == "published"
    assert not any("first weights" in f"{title} {text}" for title, text in module.summary())
