"""A call that goes on with a run is of that run's recipe, but for its length and how it is done."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tinymim.errors import TinymimError
from tinymim.training.run_record import check_same

RECIPE: dict[str, Any] = {
    "name": "a",
    "trainer": {"max_epochs": 10, "max_steps": -1, "devices": 1, "precision": "32-true"},
    "data": {
        "class_path": "tinymim.data.object_data.ObjectData",
        "init_args": {"dataset": "object:1:TensorDataset", "num_workers": 0, "batch_size": 8, "image_size": 32},
    },
    "model": {
        "class_path": "tinymim.methods.Distiller",
        "init_args": {
            "student": {"arch": "vit", "options": {"depth": 2}},
            "targets": [{"class_path": "tinymim.targets.Relation", "init_args": {"pairs": ["qk"]}}],
            "optim": {"base_lr": 1e-4, "warmup_epochs": 0.5},
        },
    },
}


def check(folder: Path, changes: dict[str, Any]) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(RECIPE))
    now = copy.deepcopy(RECIPE)
    for name, value in changes.items():
        *owners, last = name.split(".")
        node: Any = now
        for owner in owners:
            node = node[int(owner)] if isinstance(node, list) else node[owner]
        node[last] = value
    data = SimpleNamespace()
    check_same(folder, SimpleNamespace(dump=lambda config, skip_unset: yaml.safe_dump(config)), now, data)
    assert data.same_images


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "b", "trainer.devices": 2, "data.init_args.batch_size": 4, "data.init_args.num_workers": "auto"},
        {"trainer.max_epochs": 20, "model.init_args.optim.warmup_epochs": 1.0},
        {"data.init_args.dataset": "object:7:TensorDataset", "model.init_args.option_of_a_later_version": 1},
        {"model.class_path": "tinymim.modules.Distiller"},
    ],
)
def test_same__goes_on(tmp_path: Path, changes: dict[str, Any]) -> None:
    check(tmp_path, changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trainer.max_steps": 100}, "trainer.max_steps: -1, now 100"),
        ({"trainer.max_epochs": 5}, "trainer.max_epochs: 10, now 5"),
        ({"trainer.precision": "bf16-mixed"}, 'trainer.precision: "32-true", now "bf16-mixed"'),
        ({"data.init_args.dataset": "object:1:Photos"}, "data.dataset: "),
        ({"model.init_args.optim.warmup_epochs": 1.0}, "model.optim.warmup_epochs: 0.5, now 1.0"),
        ({"model.init_args.student.options.patch_size": 4}, "model.student.options.patch_size: null, now 4"),
        ({"model.init_args.targets.0.init_args.pairs": ["vv"]}, r"model.targets\[0\].pairs\[0\]: \"qk\", now \"vv\""),
        ({"model.init_args.targets.0.class_path": "tinymim.targets.CLS"}, r"targets\[0\]: .*Relation\", now .*CLS\""),
        ({"model.init_args.targets": []}, r"model.targets: \[.*\], now \[\]"),
    ],
)
def test_other__is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(TinymimError, match=f"^run_dir: .* holds another run .*{says}.*; .*--overwrite true"):
        check(tmp_path, changes)


def test_same__as_what_has_no_recipe(tmp_path: Path) -> None:
    check_same(tmp_path, None, None, SimpleNamespace())
