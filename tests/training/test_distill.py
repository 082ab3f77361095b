"""``tinymim.distill`` and ``load``: one call of Python is a run that goes on, and gives the student."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import tinymim
from tests.commands import isolated
from tinymim.errors import TinymimError
from tinymim.report import runs
from tinymim.targets import Relation

SIZES = {"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
STUDENT = tinymim.Architecture(options=SIZES)
PIXELS = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _place(tmp_path: Path) -> Any:
    with isolated(tmp_path, {}):
        yield


def call(data: Any, **arguments: Any) -> Any:
    options = {"trainer.accelerator": "cpu", **arguments.pop("options", {})}
    sizes = {"epochs": 1, "batch_size": 4, "num_workers": 0}
    defaults = {**sizes, "out": "run", "precision": "32-true", "options": options}
    return tinymim.distill("digits_mae", arguments.pop("student", STUDENT), data, **{**defaults, **arguments})


def test_distill__is_a_run_that_ends_once_and_gives_its_student(capsys: pytest.CaptureFixture[str]) -> None:
    data = TensorDataset(PIXELS)
    student = call(data, epochs=2)
    said = capsys.readouterr().err
    assert "nothing to resume" not in said, "nobody asked"
    assert "nothing to resume in run" in Path("run/summary.txt").read_text()
    assert "; batch_size=1 makes" in said
    run = runs.read(Path("run"))
    steps = list(range(1, run.steps + 1))
    assert run.curves["train/loss"][0] == steps, "a short run has its curve"
    assert run.curves["val/loss"][0] == [steps[-1] // 2, steps[-1]], "where the epochs ended"
    again = call(TensorDataset(PIXELS.clone()), epochs=2)
    assert "nothing to train: the checkpoint is at epoch 2 of 2" in capsys.readouterr().err
    loaded = tinymim.load("run/checkpoints/last.ckpt")
    assert not student.training
    assert torch.equal(student.features(PIXELS), again.features(PIXELS))
    assert torch.equal(student.features(PIXELS), loaded(PIXELS))
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    with pytest.raises(TinymimError, match=r"^out: .*targets.0.*; .* out='ANOTHER_FOLDER'; .* overwrite=True$"):
        call(data, targets="feature", epochs=2)
    with pytest.raises(TinymimError, match=r"^data: .*have changed \(others of the same number\)"):
        call(TensorDataset(1 - PIXELS), epochs=2)
    call(data, targets="feature", overwrite=True)
    assert "Feature" in Path("run/config.yaml").read_text()


def test_distill__types_that_nothing_can_be_made_of_are_told_together() -> None:
    with pytest.raises(TinymimError) as raised:
        call(None, student=torch.nn.Linear(1, 1), epochs="ten")
    told = str(raised.value)
    assert "student: an object of Linear; give timm's name of a ViT, or tinymim.Architecture(...)" in told
    assert "data: None is neither a folder nor a map-style data set" in told
    assert "epochs: 'ten' is no whole number" in told


def test_distill__of_a_folder_by_name_of_timm_with_several_targets(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)):
        Image.fromarray(image).save(tmp_path / f"photos/{number}.png")
    targets = ["relation", {"class_path": "tinymim.targets.Feature", "init_args": {"weight": 0.5}}]
    options = {"trainer.max_steps": 1, "model.student.options.depth": 2}
    more = {"batch_size": 2, "num_workers": 1}  # so it ends within an epoch, and validates what it ended with
    student = call(tmp_path / "photos", student="vit_tiny_patch16_224", targets=targets, options=options, **more)
    left = multiprocessing.active_children()
    for process in left:
        process.kill()
    assert left == [], "a loading process that is left is waited for when Python ends"
    assert student.image_size == (32, 32)
    assert (student.grid, student.width, student.depth) == ((8, 8), 192, 2)
    assert student.architecture.mean == [0.5, 0.5, 0.5]  # the teacher's


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"data": DataLoader(PIXELS)}, "data: a DataLoader; give its data set"),
        ({"data": "nowhere"}, "data: nowhere does not exist"),
        ({"data": "nowhere", "held_out": "other"}, "held_out: a folder's own val/"),
        (
            {"data": TensorDataset(PIXELS), "targets": "relations"},
            "targets: no target is called 'relations'; did you mean relation?",
        ),
        ({"data": TensorDataset(PIXELS), "targets": []}, "targets"),
        ({"data": TensorDataset(PIXELS), "options": {"model.drop_pth": 0.1}}, "drop_pth"),
        ({"data": TensorDataset(PIXELS), "batch_size": 0}, "cannot run: batch_size: 0 is not 1 or more"),
        ({"data": TensorDataset(PIXELS), "student": "resnet18"}, "resnet18"),
        ({"data": TensorDataset(PIXELS), "held_out": TensorDataset(PIXELS[:0])}, "TensorDataset is empty"),
        (
            {"data": TensorDataset(PIXELS), "targets": {"class_path": "no.X"}},
            r"1 mistake: targets\[0\].class_path: no.X",
        ),
        ({"data": TensorDataset(PIXELS), "options": {"model.drop_path": PIXELS}}, "holds plain values"),
    ],
)
def test_distill__mistakes_in_a_line(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(TinymimError, match=says):
        call(**arguments)
    assert not Path("run").exists()


@pytest.mark.parametrize("several", [{"devices": 3}, {"devices": "2"}, {"options": {"trainer.num_nodes": 2}}])
def test_distill__of_a_data_set_runs_in_one_process(several: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_SubprocessScriptLauncher, "_call_children_scripts", lambda _: pytest.fail("starts processes"))
    Path("run").mkdir()
    Path("run/results.json").write_text("{}")
    with pytest.raises(TinymimError, match=r"^devices: \d processes in all, and .* only for a folder.* devices=1 and "):
        call(TensorDataset(PIXELS), overwrite=True, **several)
    assert [path.name for path in Path("run").iterdir()] == ["results.json"]


def test_distill__leaves_a_folder_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").touch()
    with pytest.raises(TinymimError, match=r"^out: photos holds other files \(a.jpg\); give a new folder"):
        call(TensorDataset(PIXELS), out="photos")


def test_load__names_its_own_argument() -> None:
    with pytest.raises(TinymimError, match=r"^source: no card 'digits_mea'; near it: digits_mae"):
        tinymim.load("digits_mea")


@pytest.mark.parametrize(
    "batches", [PIXELS, TensorDataset(PIXELS, torch.arange(12) % 2), [{"image": p} for p in PIXELS]]
)
def test_distiller__in_a_trainer_of_ones_own(
    batches: Any, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    module = tinymim.Distiller(
        "digits_mae",
        STUDENT,
        [Relation()],
        tinymim.Optim(base_lr=8e-3, warmup_epochs=0),
        mask_ratio=0.5,
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "barebones": False}
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)  # type: ignore[arg-type]
    loader = DataLoader(batches, batch_size=4)
    trainer.fit(module, loader, loader)
    line = "data: images of 8x8 px are resized, to 32x32 for the student and 32x32 for the teacher"
    assert capsys.readouterr().err.count(line) == 1
    assert trainer.optimizers[0].defaults["lr"] == pytest.approx(8e-3 * 4 / 256)
    assert {"train/loss", "val/loss"} <= trainer.callback_metrics.keys()
    assert not [warning for warning in recwarn if "overridden" in str(warning.message)]


def test_distiller__of_patches_that_leave_pixels_out_or_of_two_sizes() -> None:
    odd = tinymim.Distiller("digits_mae", tinymim.Architecture(options=SIZES | {"patch_size": 5}), [Relation()])
    assert "img_size: 32 px are no multiple of the patches' 5 px: the rest would not be seen" in odd.problems(None)
    large = tinymim.Distiller("digits_mae", tinymim.Architecture(options=SIZES | {"img_size": 64}), [Relation()])
    assert not large.problems(32)
    assert (
        "images: the teacher takes 32x32 px and the student 64x64, so one of them has them resized" in large.remarks()
    )
