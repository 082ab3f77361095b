"""Arguments of ``tinymim.distill`` that nothing can be made of: a line each, which names the argument."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinymim.training.call_mistakes import mistakes

RIGHT: dict[str, Any] = {
    **{"teacher": "digits_mae", "student": "vit_tiny_patch16_224", "data": "photos", "targets": "relation"},
    **{"epochs": 1, "out": "run", "overwrite": False, "held_out": None, "image_size": None, "batch_size": 1},
    **{"base_lr": 1, "teacher_cache": None, "num_workers": "auto", "devices": 1, "precision": "auto", "seed": 0},
    "options": None,
}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"epochs": np.int64(3), "base_lr": np.float32(1e-3), "teacher_cache": 0, "out": Path("run")},
        {"targets": ["cls", {"class_path": "mine.Gram"}], "devices": [0]},
        {"options": {"model.drop_path": 0.0, "model.student.options.depth": 2, "data": "tinymim.data.HFData"}},
    ],
)
def test_mistakes__none(given: dict[str, Any]) -> None:
    assert mistakes({**RIGHT, **given}) == []


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("overwrite", "no", "'no' is neither True nor False"),
        ("overwrite", 1, "1 is neither True nor False"),
        ("image_size", 0, "0 is not 1 or more, or None"),
        ("epochs", -1, "-1 is not 1 or more"),
        ("epochs", True, "True is no whole number"),
        ("teacher_cache", -1, "-1 is not 0 or more, or None"),
        ("base_lr", "fast", "'fast' is not a number"),
        ("num_workers", None, "None is neither"),
        ("teacher", None, "None is neither a text nor a path"),
        ("out", None, "None is neither a text nor a path; give the folder of the run"),
        ("out", "", "'' names no folder"),
        ("targets", None, "None is neither a name"),
        ("targets", ["cls", 3], "3 is neither a name"),
        ("options", 3, "3 is no mapping by dotted name"),
        ("options", {"run_dir": "runs/y"}, "'run_dir' is an argument of tinymim.distill; give it as out="),
        ("options", {"data.init_args.batch_size": 2}, "give it as batch_size="),
        ("options", {"model.targets+": []}, "give it as targets="),
        ("options", {"seed": 3}, "'seed' is an argument of tinymim.distill; give it as seed="),
        ("options", {"trainr.max_steps": 3}, "'trainr.max_steps' is no option of a recipe"),
        ("options", {"config": "relation_digits"}, "'config' is no option of a recipe"),
    ],
)
def test_mistakes__in_a_line(name: str, value: Any, says: str) -> None:
    (told,) = mistakes({**RIGHT, name: value})
    assert told.startswith(f"{name}: ")
    assert says in told
