from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tests.conftest import tiny
from tinymim.data.data_module import ImageData
from tinymim.errors import TinymimError
from tinymim.methods import Distiller, Optim
from tinymim.targets import CLS, Feature, Relation, Target
from tinymim.teachers import weights
from tinymim.vit.architecture import Architecture
from tinymim.vit.taps import Tap


class Noise(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, draw: Any) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(draw.index)
        image = torch.rand(3, 16, 16, generator=generator)
        return {"image": image, "index": draw.index, "label": draw.index % 2}


class NoiseData(ImageData):
    num_classes = 2

    def __init__(self) -> None:
        super().__init__(image_size=16, batch_size=8)

    def prepare(self) -> None:
        self.train = self.held_out = self.bank = Noise()


def distiller(*targets: Target, student: Architecture | None = None, **options: Any) -> Distiller:
    torch.manual_seed(1)
    optim = Optim(base_lr=0.3, warmup_epochs=0)
    return Distiller("tiny_teacher", student or tiny(12, 3), list(targets or [Relation()]), optim, **options)


def trainer(folder: Path, **options: Any) -> pl.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    common = {"accelerator": "cpu", "max_epochs": 2, "use_distributed_sampler": False, "default_root_dir": folder}
    return pl.Trainer(**{**quiet, **common, **options})


@pytest.fixture
def fitted(teacher_card: Path, tmp_path: Path) -> tuple[Distiller, pl.Trainer]:
    module, runner = distiller(Relation(), Feature(weight=0.5)), trainer(tmp_path)
    runner.fit(module, datamodule=NoiseData())
    return module, runner


def test_distiller__lowers_its_loss(teacher_card: Path, tmp_path: Path) -> None:
    module, data = distiller(), NoiseData()
    runner = trainer(tmp_path, max_epochs=40)
    data.setup("fit")
    batch = next(iter(data.val_dataloader()[0]))
    runner.fit(module, datamodule=data)
    fresh = distiller()
    trainer(tmp_path, max_epochs=0).fit(fresh, datamodule=NoiseData())
    with torch.no_grad():
        assert module.losses(batch)["loss"] < 0.8 * fresh.losses(batch)["loss"]


def test_teacher__bit_identical_after_training(fitted: tuple[Distiller, pl.Trainer], teacher_card: Path) -> None:
    module, _ = fitted
    stored = weights.read(teacher_card.with_suffix(".safetensors")).state
    loaded = module.teacher.vit.state_dict()
    compared = [key for key in loaded if not key.startswith("norm.")]
    assert len(compared) > 20
    assert all(torch.equal(loaded[key], stored[key]) for key in compared)
    assert not any(parameter.requires_grad for parameter in module.teacher.parameters())
    assert all(parameter.grad is None for parameter in module.teacher.parameters())


def test_teacher__stays_in_eval_mode_and_out_of_the_module(fitted: tuple[Distiller, pl.Trainer]) -> None:
    module, _ = fitted
    module.train()
    assert not module.teacher.training
    assert not any(inner is module.teacher for inner in module.modules())


def test_teacher__keeps_no_block_beyond_the_deepest_read(teacher_card: Path, tmp_path: Path) -> None:
    module = distiller(Relation(teacher_block=2))
    trainer(tmp_path, max_epochs=0).fit(module, datamodule=NoiseData())
    assert module.teacher.depth == 2


def test_checkpoint__holds_student_and_projections_and_a_record(
    fitted: tuple[Distiller, pl.Trainer], tmp_path: Path
) -> None:
    module, runner = fitted
    runner.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert {key.split(".")[0] for key in content["state_dict"]} == {"student", "targets"}
    record = content[weights.RECORD]
    assert record["backbone"]["architecture"]["heads"] == [3, 3, 3]
    assert record["teacher"]["sha256"] == module.provenance.sha256  # type: ignore[union-attr]
    backbone, provenance, _ = weights.load(tmp_path / "a.ckpt")
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(backbone.features(images), module.backbone.eval().features(images))
    assert provenance.licence == "Apache-2.0"


@pytest.mark.parametrize(
    "targets",
    [[Relation()], [CLS()], [Feature()], [Feature(tap="attn_post", student_block=2)], [Relation(student_block=2)]],
    ids=["relation", "cls", "feature", "attention", "inner block"],
)
def test_frozen__are_exactly_the_parameters_without_gradient(
    targets: list[Target], teacher_card: Path, tmp_path: Path
) -> None:
    module = distiller(*targets)
    trainer(tmp_path, max_epochs=0).fit(module, datamodule=NoiseData())
    frozen = {name for name, parameter in module.student.named_parameters() if not parameter.requires_grad}  # type: ignore[union-attr]
    module.backbone.requires_grad_(True)
    module.losses({"image": torch.rand(4, 3, 16, 16)})["loss"].backward()
    without = {name for name, parameter in module.backbone.named_parameters() if parameter.grad is None}
    assert frozen == without
    assert module.unreachable == sum(p.numel() for n, p in module.backbone.named_parameters() if n in without)


def test_output_block__is_the_last_wholly_trained(teacher_card: Path, tmp_path: Path) -> None:
    for target, block in ((Relation(), 2), (Feature(), 3), (Relation(student_block=2), 1)):
        module = distiller(target)
        trainer(tmp_path, max_epochs=0).fit(module, datamodule=NoiseData())
        assert module.backbone.output_block == block
        said = dict(module.summary())["output block"]
        assert said.startswith(f"block {block} of 3") and ("does not train" in said) == (block < 3)  # noqa: PT018


def test_losses__are_summed_with_their_weights(teacher_card: Path, tmp_path: Path) -> None:
    module = distiller(Relation(weight=2.0), Feature(weight=0.5))
    trainer(tmp_path, max_epochs=0).fit(module, datamodule=NoiseData())
    losses = module.losses({"image": torch.rand(4, 3, 16, 16)})
    expected = 2 * (losses["loss_relation_qk"] + losses["loss_relation_vv"]) + 0.5 * losses["loss_feature"]
    torch.testing.assert_close(losses["loss"], expected)


def test_student__sees_the_jittered_view_and_the_teacher_the_plain_one(teacher_card: Path, tmp_path: Path) -> None:
    module = distiller()
    trainer(tmp_path, max_epochs=0).fit(module, datamodule=NoiseData())
    plain, other = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16)
    seen: dict[str, torch.Tensor] = {}
    module.teacher.vit.patch_embed.register_forward_pre_hook(lambda _, args: seen.update(teacher=args[0]))
    module.backbone.vit.patch_embed.register_forward_pre_hook(lambda _, args: seen.update(student=args[0]))
    module.losses({"image": plain, "jittered": other})
    assert torch.equal(seen["teacher"], module.teacher.normalise(plain))
    assert torch.equal(seen["student"], module.backbone.normalise(other))


def test_head_layout__published_gives_the_target_block_the_teachers_heads(teacher_card: Path, tmp_path: Path) -> None:
    module = distiller(head_layout="published")
    trainer(tmp_path, max_epochs=0).fit(module, datamodule=NoiseData())
    assert module.backbone.heads == [3, 3, 4]
    assert module.backbone.record()["architecture"]["heads"] == [3, 3, 4]


def test_drop_path__is_the_students_alone(teacher_card: Path, tmp_path: Path) -> None:
    module = distiller(drop_path=0.3, drop_path_ramp="constant")
    trainer(tmp_path, max_epochs=0).fit(module, datamodule=NoiseData())
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in module.backbone.vit.blocks]
    assert rates == [0.3, 0.3, 0.0]
    assert all(not hasattr(block.drop_path1, "drop_prob") for block in module.teacher.vit.blocks)


def test_resume__with_another_teacher_is_refused(
    fitted: tuple[Distiller, pl.Trainer], teacher_card: Path, tmp_path: Path
) -> None:
    _, runner = fitted
    runner.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    content[weights.RECORD]["teacher"]["sha256"] = "0" * 64
    torch.save(content, tmp_path / "b.ckpt")
    with pytest.raises(TinymimError, match="resume with the same teacher"):
        trainer(tmp_path).fit(
            distiller(Relation(), Feature(weight=0.5)), datamodule=NoiseData(), ckpt_path=tmp_path / "b.ckpt"
        )


def test_problems__names_all_at_once(teacher_card: Path) -> None:
    found = distiller(Relation(teacher_block=9), Relation(heads=5)).problems(image_size=32)
    assert len(found) == 3
    assert any("img_size: 16" in line and "32" in line for line in found)
    assert any("teacher_block: 9" in line and "1 to 3" in line for line in found)
    assert any("5 does not divide" in line and "1, 2, 3, 4, 6, 8, 12, 24" in line for line in found)


def test_chain__a_relation_student_teaches_relations_and_no_features_of_its_last_block(
    fitted: tuple[Distiller, pl.Trainer], tmp_path: Path, teacher_card: Path
) -> None:
    module = distiller(Relation(), student=tiny(12, 3))
    runner = trainer(tmp_path)
    runner.fit(module, datamodule=NoiseData())
    runner.save_checkpoint(tmp_path / "medium.ckpt")
    relation, feature = distiller(Relation()), distiller(Feature())
    relation.source = feature.source = str(tmp_path / "medium.ckpt")
    assert relation.problems(image_size=16) == []
    assert "wholly trained block is 2" in " ".join(feature.problems(image_size=16))
    trainer(tmp_path).fit(relation, datamodule=NoiseData())


def test_custom_target__from_user_code(teacher_card: Path, tmp_path: Path) -> None:
    class MeanToken(Target):
        def fit(self, teacher: Any, student: Any) -> None:
            self.projection = torch.nn.Linear(student.width, teacher.width)

        def teacher_taps(self) -> list[Tap]:
            return [Tap(self.blocks[0][0], "ffn_post")]

        def student_taps(self) -> list[Tap]:
            return [Tap(self.blocks[0][1], "ffn_post")]

        def forward(self, teacher: Any, student: Any) -> dict[str, torch.Tensor]:
            t, s = teacher[self.teacher_taps()[0]].mean(1), student[self.student_taps()[0]].mean(1)
            return {"": (self.projection(s) - t).square().mean()}

        def describe(self) -> str:
            return "mean tokens"

    module = distiller(MeanToken())
    trainer(tmp_path).fit(module, datamodule=NoiseData())
    assert module.backbone.output_block == 3


def test_data__loads_each_held_out_image_once(teacher_card: Path) -> None:
    data = NoiseData()
    data.setup("fit")
    loader: DataLoader[Any] = data.val_dataloader()[0]
    assert sorted(int(i) for batch in loader for i in batch["index"]) == list(range(16))
