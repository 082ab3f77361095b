"""A check of a recipe is a build on the meta device, and leaves no trace in the run that follows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import tiny
from tests.methods.test_distillation import NoiseData, distiller, trainer
from tinymim.errors import TinymimError
from tinymim.methods import MAEPretrainer, SimMIMPretrainer
from tinymim.methods.base import Errors, Method
from tinymim.methods.mae_decoder import Reconstruction
from tinymim.targets import CLS, Feature, Target
from tinymim.tasks import Classifier, Detector, Knn, SceneTasks, Segmenter
from tinymim.teachers import weights
from tinymim.vit.backbone import Backbone

DECODER = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}


def modules() -> dict[str, Method]:
    restoring: dict[str, Any] = {"mask_ratio": 0.5, "reconstruction": Reconstruction(**DECODER)}
    return {
        "distiller": distiller(Feature(), CLS(), head_layout="published", **restoring),
        "mae": MAEPretrainer(tiny(12, 3), **DECODER),
        "probe": Classifier("tiny_teacher", linear_probe=True),
        "segmenter": Segmenter("tiny_teacher"),
        "detector": Detector("tiny_teacher", scales=[1.0], width=32),
        "scenes": SceneTasks(["shape", "position"], "tiny_teacher"),
    }


@pytest.mark.parametrize("name", list(modules()))
def test_check__draws_no_number_of_the_run_and_loads_nothing(name: str, teacher_card: Path) -> None:
    module, before = modules()[name], torch.get_rng_state()
    assert module.problems(16) == []
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.is_meta for parameter in module.backbone.parameters())
    assert module.provenance is None
    record = module.checkpoint_record()
    assert record["backbone"]["architecture"]["options"]["depth"] == 3
    assert record["prefix"] == module.prefix


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"decoder_depth": 0}, "decoder_depth: 0 is not from 1 to"),
        ({"decoder_depth": 10**9}, "decoder_depth: 1000000000 is not from 1 to"),
        ({"decoder_width": 4 * 10**9}, "decoder_width: 4000000000 is more than"),
        ({"architecture": tiny(12, 3, img_size=18)}, "img_size: 18 px are no multiple of the patches' 4 px"),
    ],
)
def test_check__sizes_that_are_none(options: dict[str, Any], word: str) -> None:
    size = 18 if "architecture" in options else 16
    (problem,) = MAEPretrainer(**{"architecture": tiny(12, 3), **DECODER, **options}).problems(size)
    assert problem.startswith(word)


def test_check__mappings_as_recipes_have_them_are_told_together() -> None:
    mappings: dict[str, Any] = {"architecture": {"arch": "vit_tiny_patch16_224"}, "optim": {"base_lr": 1e-3}}
    assert Classifier(num_classes=3, **mappings).problems(32) == [
        "optim: a mapping, as recipes have; in Python it is tinymim.Optim(base_lr=...)",
        "architecture: a mapping, as recipes have; in Python it is tinymim.Architecture(arch, options={...}), "
        "a Distiller's student too",
    ]


@pytest.mark.parametrize(
    ("module", "options", "says"),
    [
        (
            MAEPretrainer,
            {"architecture": "vit_tiny"},
            "architecture: 'vit_tiny' is a name; give tinymim.Architecture('",
        ),
        (MAEPretrainer, {"optim": 1e-3}, "optim: an object of float; give tinymim.Optim(...)"),
        (MAEPretrainer, {"mask_ratio": "high"}, "mask_ratio: 'high' is not a number"),
        (SimMIMPretrainer, {"mask_unit": 8.5}, "mask_unit: 8.5 is not a whole number"),
        (SimMIMPretrainer, {"train_loss": "no"}, "train_loss: 'no' is not True or False"),
        (Classifier, {"weights": nn.Linear(1, 1)}, "weights: an object of Linear is not a text or None"),
        (Classifier, {"pool": "max"}, "pool: 'max' is not one of 'mean', 'cls', 'cls_dist'"),
        (Classifier, {"num_classes": True}, "num_classes: True is not a whole number or None"),
        (Classifier, {"deit": "digits_mae"}, "deit: 'digits_mae' is a name; give tinymim.tasks.deit.Deit('d"),
        (Segmenter, {"blocks": ["last"]}, "blocks: ['last'] is not a list of whole numbers or None"),
        (Detector, {"scales": 2.0}, "scales: 2.0 is not a list of numbers or None"),
        (SceneTasks, {"tasks": "shape"}, "tasks: 'shape' is not a list of texts"),
        (Knn, {"k": None}, "k: None is not a whole number"),
        (distiller, {"drop_path": "0.1"}, "drop_path: '0.1' is not a number"),
        (distiller, {"reconstruction": True}, "reconstruction: an object of bool; give tinymim.methods.mae_decoder.R"),
        (distiller, {"teacher_view": None}, "teacher_view: None is not one of 'visible', 'whole'"),
    ],
)
def test_arguments__of_other_types_are_told_in_a_line(module: Any, options: dict[str, Any], says: str) -> None:
    needed = {MAEPretrainer: {"architecture": tiny(12, 3)}, SimMIMPretrainer: {"architecture": tiny(12, 3)}}
    with pytest.raises(TinymimError) as raised:
        module(**{**needed.get(module, {}), **options})
    assert str(raised.value).startswith(says)


def test_arguments__of_other_types_are_told_together() -> None:
    with pytest.raises(
        TinymimError, match=r"^Classifier cannot be built:\n  - blocks: .* or a whole number\n  - ema: "
    ):
        Classifier(Path("student.safetensors"), blocks=None, ema="slow", neck=np.int64(3))  # type: ignore[arg-type]


def test_run__a_check_before_it_changes_no_weight_and_no_order(teacher_card: Path, tmp_path: Path) -> None:
    plain, checked = (modules()["distiller"] for _ in range(2))
    assert checked.problems(16) == []
    for module in (plain, checked):
        torch.manual_seed(3)
        trainer(tmp_path, max_epochs=0).fit(module, datamodule=NoiseData())
    first, second = dict(plain.named_parameters()), dict(checked.named_parameters())
    assert list(first) == list(second), "an optimiser's state knows parameters by their order"
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_check__a_file_of_weights_is_read_for_its_sizes(tmp_path: Path) -> None:
    weights.export(Backbone(tiny(24, 3)), tmp_path / "own.safetensors", {"licence": "MIT"})
    module = Classifier(weights=str(tmp_path / "own.safetensors"))
    assert module.problems(16) == []
    assert module.checkpoint_record()["licence"] == "MIT"
    assert "img_size" in module.checkpoint_record()["backbone"]["architecture"]["options"]


def test_fit__a_recipe_that_is_wrong_ends_with_its_own_error(teacher_card: Path, tmp_path: Path) -> None:
    module = distiller(drop_path=1.5)
    with pytest.raises(TinymimError, match=r"drop_path: 1.5 is not in \[0, 1\)"):
        trainer(tmp_path).fit(module, datamodule=NoiseData())
    module.cpu()  # nothing of the check is left that could not be moved


def test_check__a_users_target_may_look_at_numbers(teacher_card: Path) -> None:
    class Weighed(Target):
        def setup_pair(self, teacher: Any, student: Any) -> None:
            self.scale = float(torch.linspace(0, 1, teacher.width).sum())

        def pair_loss(self, teacher: Any, student: Any, pair: int) -> torch.Tensor:
            return student["ffn_post"].mean() * self.scale

    assert distiller(Weighed()).problems(16) == []


def test_errors__are_raised_off_the_meta_device() -> None:
    errors = Errors()
    with torch.device("meta"), errors.of("student: "):
        raise TinymimError("wrong")
    assert errors == ["student: wrong"]
    with pytest.raises(TinymimError, match=r"^wrong$"), errors.of("student: "):
        raise TinymimError("wrong")


def test_replay__tasks_on_scenes_take_their_statistics_from_the_captured_state(tmp_path: Path) -> None:
    module = SceneTasks(["shape", "position", "depth"], architecture=tiny(24, 3))
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(image_size=16))  # type: ignore[assignment]
    module.configure_model()
    heads = module.net.heads
    assert {"mean", "cost"} <= set(heads["position"].state_dict())
    assert heads["position"].mean.shape == (2,)
    assert heads["depth"].mean.shape == (1,)
