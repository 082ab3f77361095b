"""A student as a file of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.methods.test_distillation import NoiseData, distiller, trainer
from tinymim import files
from tinymim.cli import main
from tinymim.errors import TinymimError
from tinymim.export.export_forms import export_file
from tinymim.teachers import weights


@pytest.fixture
def checkpoint(teacher_card: Path, tmp_path: Path) -> Path:
    module, runner = distiller(), trainer(tmp_path, max_epochs=0)
    runner.fit(module, datamodule=NoiseData())
    runner.save_checkpoint(tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_export__the_same_network_under_the_same_licence(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = checkpoint.parent / "out" / "student.safetensors"
    assert main.main(["export", str(checkpoint), str(file)]) == 0
    (before, _, had), (after, provenance, has) = weights.load(checkpoint), weights.load(file)
    assert json.dumps(after.record()) == json.dumps(before.record())
    assert after.output_block == 2, "what was trained goes with it"
    assert (has["teacher"], provenance.licence) == (had["teacher"], "Apache-2.0")
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(before.eval().features(images), after.eval().features(images))
    assert f"sha256 {files.sha256(file)}, licence Apache-2.0" in capsys.readouterr().out


def test_export__overwrites_when_asked_alone(checkpoint: Path) -> None:
    file = checkpoint.parent / "student.safetensors"
    file.write_text("mine")
    with pytest.raises(TinymimError, match="is there already; give another, or --overwrite"):
        export_file(str(checkpoint), file)
    assert file.read_text() == "mine"
    export_file(str(checkpoint), file, overwrite=True)
    assert weights.load(file)[0].width == 12
    with pytest.raises(TinymimError, match=r"does not end in .safetensors"):
        export_file(str(checkpoint), file.with_suffix(".bin"))


def test_export__of_a_card(teacher_card: Path, tmp_path: Path) -> None:
    export_file("tiny_teacher", tmp_path / "copy.safetensors")
    backbone, provenance, _ = weights.load(tmp_path / "copy.safetensors")
    assert (backbone.width, provenance.licence) == (24, "Apache-2.0")
