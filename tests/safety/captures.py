"""Captured steps of every module, as a guard would have written them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import torch
import yaml

from tests.conftest import TINY
from tinymim.seeds import snapshot
from tinymim.training import captured_step, preflight
from tinymim.vit.conventions import Conventions

OWN = {"arch": "vit_tiny_patch16_224", "options": {**TINY, "embed_dim": 12, "num_heads": 3}}
RELATION = {"class_path": "tinymim.targets.Relation", "init_args": {"pairs": ["qk"], "teacher_block": 2}}
DECODER = {"decoder_width": 12, "decoder_depth": 1, "decoder_heads": 3}
DISTILLER = {"teacher": "tiny_teacher", "student": OWN, "targets": [RELATION]}

MODELS: dict[str, dict[str, Any]] = {
    "Distiller": DISTILLER,
    "Distiller, cached": {**DISTILLER, "teacher_cache": 2},
    "Distiller, reconstructing": {**DISTILLER, "mask_ratio": 0.5, "reconstruction": DECODER},
    "Distiller, features": {
        **DISTILLER,
        "targets": [{"class_path": f"tinymim.targets.{name}"} for name in ("Feature", "AttentionMap", "CLS")],
    },
    "MAEPretrainer": {"architecture": OWN, **DECODER},
    "SimMIMPretrainer": {"architecture": OWN, "mask_unit": 4},
    "Classifier": {"architecture": OWN, "num_classes": 4, "neck": 8, "ema": 0.9, "mixup": 0.8},
    "Classifier, started": {"weights": "tiny_teacher", "num_classes": 4, "linear_probe": True},
    "Segmenter": {"architecture": OWN, "decoder_width": 8, "auxiliary": 8, "num_classes": 3, "blocks": [1, 2, 3, 3]},
    "Detector": {"architecture": OWN, "width": 32, "convolutions": 1, "num_classes": 3, "scales": [1]},
}
"""Options of each module, by its name and what is particular."""

DATA = {"image_size": 16, "num_classes": 4, "mask_classes": 3, "box_classes": 3, "batch_size": 2}


def recipe_of(name: str, **changes: Any) -> dict[str, Any]:
    """The recipe of one of :data:`MODELS`, with changes laid over its options."""
    model = {"class_path": f"tinymim.modules.{name.partition(',')[0]}", "init_args": {**MODELS[name], **changes}}
    return {"name": "small", "trainer": {"precision": "32-true", "accelerator": "cpu"}, "model": model}


def made(name: str) -> dict[str, Any]:
    """The content of an honest capture."""
    recipe = recipe_of(name)
    module: Any = preflight.build(pl.LightningModule, recipe["model"], found := [])
    assert not found, found
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    module.trainer = pl.Trainer(**options, enable_progress_bar=False, enable_model_summary=False)
    module.trainer.datamodule = SimpleNamespace(**DATA)
    module.trial = True
    module.setup("fit")
    module.configure_model()
    return {
        "tinymim_capture": captured_step.FORMAT,
        **{"step": 1, "epoch": 0, "rank": 0, "world_size": 1, "loss": True, "gradients": [], "weights": []},
        "batches": [[0, batch()]],
        "changed": False,
        "rng": snapshot(torch.device("cpu")),
        "state_dict": captured_step.plain(module.state_dict()),
        "eval_modules": [],
        "recipe": yaml.safe_dump(recipe),
        "precision": "32-true",
        "data": DATA,
        "teacher": captured_step.teacher(module),
        "conventions": Conventions().record(),
    }


def batch() -> dict[str, Any]:
    """Two images with all that any module asks for."""
    return {
        "image": torch.rand(2, 3, 16, 16),
        "index": torch.tensor([0, 1]),
        "label": torch.tensor([0, 1]),
        "mask": torch.zeros(2, 16, 16, dtype=torch.int64),
        "targets": {"kind": torch.tensor([[0], [1]]), "box": torch.tensor([[[1.0, 1, 9, 9]], [[2.0, 2, 8, 8]]])},
    }


def write(content: dict[str, Any], path: Path, **changes: Any) -> Path:
    """Write a capture whose recipe's model has other options."""
    recipe = yaml.safe_load(content["recipe"])
    recipe["model"]["init_args"] |= changes
    torch.save({**content, "recipe": yaml.safe_dump(recipe)}, path)
    return path
