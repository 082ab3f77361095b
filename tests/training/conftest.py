"""Runs of a few milliseconds a step."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.commands import Completed, tinymim
from tests.conftest import TINY, write_teacher


class Recipe:
    """A recipe of a few milliseconds a step."""

    def __init__(self, place: Path):
        self.place, self.runs = place, 0
        (place / "teachers").mkdir()
        write_teacher(place / "teachers")
        student = {"arch": "vit_tiny_patch16_224", "options": {**TINY, "embed_dim": 24, "num_heads": 4}}
        trainer = {"accelerator": "cpu", "max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1}
        trainer |= {"num_sanity_val_steps": 0, "enable_progress_bar": False, "precision": "32-true"}
        arguments = {"teacher": "tiny_teacher", "student": student, "optim": {"warmup_epochs": 0}}
        arguments |= {"targets": [{"class_path": "tinymim.targets.Relation"}]}
        self.content = {
            "seed_everything": 0,
            "trainer": trainer,
            "model": {"class_path": "tinymim.methods.Distiller", "init_args": arguments},
            "data": {"class_path": "tests.methods.test_distillation.NoiseData"},
        }
        (place / "tiny.yaml").write_text(yaml.safe_dump(self.content))

    def __call__(self, *arguments: str, run: str = "", command: str = "fit") -> Completed:
        self.runs += not run
        first = ["--config", "tiny.yaml", "--run_dir", run or f"run{self.runs}"] if command == "fit" else ["tiny.yaml"]
        return tinymim(command, *first, *arguments, cwd=self.place, TINYMIM_TEACHERS=str(self.place / "teachers"))


@pytest.fixture(scope="session")
def tiny_fit(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe to be run, in a folder of its own."""
    return Recipe(tmp_path_factory.mktemp("runs"))
