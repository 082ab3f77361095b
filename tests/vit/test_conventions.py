"""Checkpoints of before a convention followed the published code give the numbers that they gave."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import tiny
from tests.methods.test_optim import groups
from tests.training.made import checkpoint, network
from tests.vit.test_initialise import SMALL, configured
from tinymim.methods import Distiller, MAEPretrainer, Optim
from tinymim.methods.mae_decoder import Reconstruction
from tinymim.targets import Feature
from tinymim.tasks import Classifier
from tinymim.tasks.network import BackboneWithHead
from tinymim.teachers import weights
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.classifier_head import HeadForm
from tinymim.vit.conventions import CONVENTIONS, Conventions, of

OLD = Conventions(1e-5, "stem")


def saved(module: Any) -> dict[str, Any]:
    content = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(content)
    return content


def before(content: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint as it was written before rule and conventions were noted."""
    record = {key: value for key, value in content["tinymim"].items() if key not in (CONVENTIONS, "init")}
    return {**content, "tinymim": record}


def mae() -> MAEPretrainer:
    return configured(MAEPretrainer(tiny(24, 4), **SMALL, optim=Optim())).eval()


def test_record__without_any_is_of_before() -> None:
    assert of({}) == OLD
    assert of({CONVENTIONS: Conventions().record()}) == Conventions()


def test_mae__an_old_checkpoint_keeps_its_decoders_eps() -> None:
    module = mae()
    decoder: Any = module.decoder
    tokens, keep = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0)), torch.arange(4).expand(2, -1)
    seen: list[torch.Tensor] = []
    decoder.blocks.register_forward_hook(lambda *call: seen.append(call[2]))
    for content, eps in ((saved(module), 1e-6), (before(saved(module)), 1e-5)):
        opened = mae()
        opened.load_state_dict(content["state_dict"])
        opened.on_load_checkpoint(content)
        seen.clear()
        decoder(tokens, keep)
        normed = F.layer_norm(seen[0], (16,), decoder.norm.weight, decoder.norm.bias, eps)
        expected = decoder.pixels(normed)[:, 1:]
        assert torch.equal(opened.decoder(tokens, keep), expected)
        again = saved(opened)["tinymim"]
        assert again[CONVENTIONS]["norm_eps"] == eps, "what goes on from it is saved as it was made"
        assert again["init"] == ("published" if eps == 1e-6 else "timm")


def test_mae__parameters_keep_their_order() -> None:
    """An optimiser's state knows them by number alone, so another order breaks every checkpoint that is resumed."""
    names = [name.partition(".")[0] for name, _ in mae().named_parameters()]
    assert names == sorted(names), "decoder, then encoder"


def test_distiller__likewise_its_reconstruction(teacher_card: Path) -> None:
    options: dict[str, Any] = {"mask_ratio": 0.5, "reconstruction": Reconstruction(**SMALL)}
    module = configured(Distiller("tiny_teacher", tiny(24, 4), [Feature()], **options))
    both = module.reconstructor.norm, module.reconstructor.decoder.norm
    assert [norm.eps for norm in both] == [1e-6, 1e-6]
    module.on_load_checkpoint(before(saved(module)))
    assert [norm.eps for norm in both] == [1e-5, 1e-5]


@pytest.mark.parametrize("old", [True, False])
def test_probe__an_old_checkpoints_logits(tmp_path: Path, old: bool) -> None:
    """The variance of a frozen feature may be small enough for eps to count."""
    made = network(tiny(24, 4), HeadForm(3, norm="batch"))
    norm: Any = made.classifier.norm  # type: ignore[union-attr]
    norm.running_var.fill_(1e-5)
    path = checkpoint(tmp_path / "last.ckpt", made)
    if old:
        torch.save(before(torch.load(path, weights_only=True)), path)
    opened, _, _ = weights.load(path, classifier=True)
    head: Any = opened.eval().classifier
    tokens = torch.randn(2, 17, 24, generator=torch.Generator().manual_seed(0))
    pooled = tokens[:, 1:].mean(1)
    eps = 1e-5 if old else 1e-6
    expected = head.head((pooled - norm.running_mean) / (norm.running_var + eps).sqrt())
    assert torch.allclose(head(tokens), expected, rtol=1e-5)
    module = configured(Classifier(architecture=tiny(24, 4), linear_probe=True, optim=Optim()))
    content = saved(module)
    module.on_load_checkpoint(before(content) if old else content)
    assert module.net.norm.eps == eps


def test_shared_bias__learns_as_the_last_layer_does_and_in_old_runs_as_the_stem() -> None:
    arch = Architecture("beit_base_patch16_224", {"depth": 3, "img_size": 32, "embed_dim": 24, "num_heads": 3})
    arch.options |= {"use_shared_rel_pos_bias": True, "use_rel_pos_bias": False}
    net = BackboneWithHead(Backbone(arch), HeadForm(2))
    found = groups(net, Optim(layer_decay=0.5))
    table = "backbone.vit.rel_pos_bias.relative_position_bias_table"
    assert found[table]["lr_scale"] == found["head.weight"]["lr_scale"] == 1
    assert found["backbone.vit.cls_token"]["lr_scale"] == 0.5**4
    OLD.lay_on(net)
    assert groups(net, Optim(layer_decay=0.5))[table]["lr_scale"] == 0.5**4


def test_replay__a_capture_of_before_runs_as_it_did() -> None:
    module = mae()
    of({}).lay_on(module)
    assert module.decoder.norm.eps == 1e-5
    of({CONVENTIONS: {"norm_eps": 1e-6, "shared_bias": "last"}}).lay_on(module)
    assert module.decoder.norm.eps == 1e-6


def test_lay_on__leaves_the_networks_own_norms() -> None:
    net = SimpleNamespace(backbone=Backbone(tiny(24, 4)))
    OLD.lay_on(net.backbone)
    assert net.backbone.vit.blocks[0].norm1.eps == 1e-6
