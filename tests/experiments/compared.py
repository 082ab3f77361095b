"""A comparison of toy fits: a few steps each, on a handful of digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

BRIEF = {
    "trainer.max_epochs": 1,
    "trainer.limit_train_batches": 1,
    "trainer.limit_val_batches": 2,
    "trainer.num_sanity_val_steps": 0,
    "trainer.precision": "32-true",
    "data.batch_size": 16,
}
RATES = [0.001, 0.01]


def write_recipe(folder: Path, settings: Path | None = None, **changes: Any) -> Path:
    """A recipe that distils for a step, and compares the student with the same network from scratch."""
    compare: dict[str, Any] = {
        "set": BRIEF,
        "stages": {
            "probe": {"recipe": "probe_digits", "set": BRIEF},
            "few": {"recipe": "finetune_digits", "set": {**BRIEF, "data.fraction": 0.1}},
        },
        "figures": {
            "10-NN": {"stage": "probe", "metric": "val/knn_top1"},
            "few labels": {"stage": "few", "metric": "val/top1"},
        },
        "search": {"share": 0.25, "seeds": [0], "grid": {"few": {"model.optim.base_lr": RATES}}},
        **({"settings": str(settings)} if settings else {}),
        **changes,
    }
    content = {
        "extends": ["parts/digits", "parts/student_digits"],
        "model": {
            "class_path": "tinymim.modules.Distiller",
            "init_args": {
                "teacher": "digits_mae",
                "student": "${vars.student}",
                "targets": [{"class_path": "tinymim.targets.Relation", "init_args": {"pairs": ["qk"]}}],
            },
        },
        "compare": compare,
    }
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
