"""Modules with networks that are no plain ViTs, as teachers and as students."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import tiny, write_card
from tests.methods.test_distillation import NoiseData, distiller, trainer
from tests.methods.test_distillation_options import batch
from tinymim import files
from tinymim.methods import MAEPretrainer, SimMIMPretrainer
from tinymim.methods.pairing import size_errors
from tinymim.targets import Feature, Relation
from tinymim.tasks.network import BackboneWithHead
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.classifier_head import HeadForm

EVA, BEIT = "eva02_base_patch14_224", "beit_base_patch16_224"


def other(arch: str, width: int = 24, **options: Any) -> Architecture:
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": width, "depth": 3, "num_heads": 3}
    return Architecture(arch, {**sizes, **options})


@pytest.fixture(params=[EVA, BEIT])
def card(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """``tiny_teacher``, of 3 x 3 patches, whose card asks for 4 x 4."""
    monkeypatch.setenv("TINYMIM_TEACHERS", str(tmp_path))
    torch.manual_seed(0)
    trained = Backbone(other(request.param, img_size=12))
    torch.save(trained.vit.state_dict(), tmp_path / "tiny_teacher.pth")
    digest = files.sha256(tmp_path / "tiny_teacher.pth")
    write_card(tmp_path, "tiny_teacher", other(request.param), digest, file="tiny_teacher.pth")
    return str(request.param)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_distiller__from_a_teacher_of_another_kind(card: str, precision: str, tmp_path: Path) -> None:
    module = distiller(Relation(), Feature(), teacher_drop_path=0.1)
    runner = trainer(tmp_path, max_epochs=1, precision=precision)
    runner.fit(module, datamodule=NoiseData())
    said = [text for _, text in module.summary()]
    assert any(text.startswith(card) for text in said)
    assert any("positions resampled from 3x3 patches to 4x4" in text for text in said)
    assert module.losses(batch())["loss"].isfinite()


def test_masks__a_bias_for_all_patches_wants_the_whole_image(card: str) -> None:
    found = distiller(mask_ratio=0.5).problems(16)
    assert len(found) == (card == BEIT)
    assert all("teacher_view: visible" in line and "bias" in line and line.endswith("use whole") for line in found)
    assert not distiller(mask_ratio=0.5, teacher_view="whole").problems(16)


def test_masks__a_student_with_a_bias_for_all_patches_sees_them_all() -> None:
    plain, biased = skeleton(tiny(12, 3)), skeleton(other(BEIT))
    assert not size_errors(plain, biased, 16, None)
    (found,) = size_errors(plain, biased, 16, "whole")
    assert found.startswith("mask_ratio: beit_base_patch16_224 cannot be run on a part")


@pytest.mark.parametrize("arch", [EVA, BEIT])
def test_distiller__into_a_student_of_another_kind(arch: str, teacher_card: Path, tmp_path: Path) -> None:
    module = distiller(Relation(), student=other(arch, 12))
    trainer(tmp_path, max_epochs=1).fit(module, datamodule=NoiseData())
    trained = {name for name, p in module.backbone.named_parameters() if p.requires_grad}
    module.losses(batch())["loss"].backward()
    assert trained == {name for name, p in module.backbone.named_parameters() if p.grad is not None}
    assert module.backbone.output_block == 2
    layout = distiller(Relation(), student=other(arch, 12), head_layout="published").problems(16)
    assert len(layout) == 1
    assert "heads of block 3 are fixed" in layout[0]


@pytest.mark.parametrize("kind", [MAEPretrainer, SimMIMPretrainer])
@pytest.mark.parametrize("arch", [EVA, BEIT])
def test_pretrainers__take_plain_vits(kind: Any, arch: str) -> None:
    options = {"mask_unit": 8} if kind is SimMIMPretrainer else {}
    (found,) = kind(other(arch), **options).problems(16)
    assert found.startswith(f"architecture.arch: {arch}")
    assert "vit_*" in found


@pytest.mark.parametrize("options", [{}, {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}])
def test_classifier__every_parameter_of_a_beit_has_a_depth(options: dict[str, Any]) -> None:
    """For the decay of learning rates with depth; what belongs to no block and no head is the stem's."""
    network = BackboneWithHead(Backbone(other(BEIT, **options)), HeadForm(2))
    matcher = network.group_matcher()
    for name, _ in network.named_parameters():
        assert sum(bool(re.match(pattern, name)) for pattern in matcher.values()) == 1, name
    assert any("relative_position_bias_table" in name for name in network.no_weight_decay())
