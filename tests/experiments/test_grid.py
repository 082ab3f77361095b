"""Scaling studies as written: what they become as a chain, and every mistake in them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tinymim.errors import TinymimError
from tinymim.experiments import grid
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import skeleton

STUDY: dict[str, Any] = {
    "objectives": {
        "MAE": {"recipe": "mae_digits", "set": {"model.optim.base_lr": 0.5}},
        "distil": {"recipe": "relation_digits", "sizes": ["S"], "fractions": [1.0], "lengths": [100]},
    },
    "sizes": {"S": {"width": 48, "depth": 4, "heads": 3}, "M": {"width": 96, "depth": 5, "heads": 6}},
    "fractions": [0.075, 1.0],
    "lengths": [3000, 100],
    "mask_seeds": 2,
    "evaluations": 4,
    "warmup": 0.1,
    "finetune": {"recipe": "finetune_digits", "of": "longest", "set": {"trainer.max_epochs": 3}},
    "set": {"data.batch_size": 64, "model.optim.base_lr": 0.25},
    "quick": {"lengths": [100], "objectives": {"MAE": {"sizes": ["M"]}}},
}


def written(tmp_path: Path, study: dict[str, Any]) -> str:
    path = tmp_path / "some.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return str(path)


def changed(**content: Any) -> dict[str, Any]:
    return copy.deepcopy(STUDY) | content


def test_load__every_cell_is_a_stage_and_its_fine_tuning_starts_from_it(tmp_path: Path) -> None:
    study = grid.load(written(tmp_path, changed(seeds=[3, 4])))
    assert list(study.cells) == [
        "MAE-S-7_5-100", "MAE-M-7_5-100", "MAE-S-100-100", "MAE-M-100-100", "distil-S-100-100",
        "MAE-S-7_5-3k", "MAE-M-7_5-3k", "MAE-S-100-3k", "MAE-M-100-3k",
    ]  # fmt: skip
    tuned = {name for name in study.plan.stages if name.endswith("-ft")}
    assert tuned == {f"{name}-ft" for name, cell in study.cells.items() if cell.length == 3000} | {
        "distil-S-100-100-ft"
    }
    assert len(study.plan.stages) == 9 + 5
    assert study.plan.seeds == [3, 4]
    assert study.plan.stages["MAE-M-100-3k-ft"].parent == "MAE-M-100-3k"
    assert study.plan.stages["MAE-M-100-3k-ft"].config["trainer"]["max_epochs"] == 3
    assert {stage.kind for name, stage in study.plan.stages.items() if name.startswith("distil-S-100-100")} == {
        "distill",
        "finetune",
    }


def test_load__a_cell_trains_its_size_on_its_fraction_for_its_length(tmp_path: Path) -> None:
    stages = grid.load(written(tmp_path, STUDY)).plan.stages
    config = stages["MAE-M-7_5-3k"].config
    model, trainer = config["model"]["init_args"], config["trainer"]
    assert config["data"]["init_args"]["fraction"] == 0.075
    assert config["data"]["init_args"]["batch_size"] == 64
    options = model["architecture"]["options"]
    assert (options["embed_dim"], options["depth"], options["patch_size"]) == (96, 5, 4)
    network = skeleton(Architecture(**model["architecture"]))
    assert (network.width, network.depth, network.heads) == (96, 5, [6] * 5)
    assert (trainer["max_steps"], trainer["max_epochs"], trainer["val_check_interval"]) == (3000, -1, 750)
    assert trainer["check_val_every_n_epoch"] is None
    thrice = grid.load(written(tmp_path, changed(set={"trainer.accumulate_grad_batches": 3}))).plan.stages
    assert thrice["MAE-S-7_5-100"].config["trainer"]["val_check_interval"] == 75, "it counts batches"
    assert (model["optim"]["warmup_steps"], model["optim"]["base_lr"]) == (300, 0.5), "its own lies over all cells'"
    assert (model["mask_seeds"], model["train_loss"]) == (2, True)
    student = stages["distil-S-100-100"].config["model"]["init_args"]
    assert student["student"]["options"]["embed_dim"] == 48
    assert (student["optim"]["base_lr"], student["train_loss"]) == (0.25, True)


def test_load__quick_and_settings_lie_over_it(tmp_path: Path) -> None:
    study = grid.load(written(tmp_path, STUDY), quick=True, settings=["seeds=[7]", "trainer.precision=32-true"])
    assert list(study.cells) == ["MAE-M-7_5-100", "MAE-M-100-100", "distil-S-100-100"]
    assert study.plan.seeds == [7]
    assert {stage.config["trainer"]["precision"] for stage in study.plan.stages.values()} == {"32-true"}
    without = {key: value for key, value in STUDY.items() if key != "quick"}
    with pytest.raises(TinymimError, match=r"--quick: .*no `quick` part"):
        grid.load(written(tmp_path, without), quick=True)


def test_load__all_mistakes_at_once(tmp_path: Path) -> None:
    bad = changed(
        fractions=[0.5, 1.5],
        lengths=[],
        seeds=[-1],
        mask_seeds=0,
        warmup=2,
        sizes={"S": {"width": 48, "depth": 4, "head": 3}, "M": 5},
        objectives={"MAE": {"recipe": "mae_digit"}, "Sim": {"set": {}, "sizes": ["X"], "lengths": [0]}},
        finetune={"recipe": "finetune_digits", "of": "some"},
    )
    with pytest.raises(TinymimError) as caught:
        grid.load(written(tmp_path, bad))
    assert "lengths: missing" in str(caught.value)
    bad["lengths"] = [100, 100]
    with pytest.raises(TinymimError) as caught:
        grid.load(written(tmp_path, bad))
    for line in (
        "fractions: 1.5 is not one of shares of the training images, above 0 and up to 1",
        "lengths: 100 twice",
        "seeds: [-1] is not a list of whole numbers from 0",
        "mask_seeds: 0 is not a whole number from 1",
        "warmup: 2 is not a share of the steps, from 0 to 1",
        "sizes.S.head: no such key; did you mean heads?",
        "sizes.S.heads: missing",
        "sizes.M: 5 is not a mapping of width, depth, heads",
        "objectives.MAE.recipe: unknown recipe 'mae_digit'",
        "objectives.Sim.recipe: missing",
        "objectives.Sim.sizes: no size 'X'; there are M, S",
        "objectives.Sim.lengths: 0 is not one of optimiser steps, whole numbers from 1",
        "finetune.of: 'some' is not all or longest",
    ):
        assert line in str(caught.value)
    with pytest.raises(TinymimError, match=r"fraction: no such key; did you mean fractions\?"):
        grid.load(written(tmp_path, changed(fraction=[1])))
    with pytest.raises(TinymimError, match=r"MAE_with_a_name-S-7_5-100 would be .* 25 letters, where 20 are the most"):
        grid.load(written(tmp_path, changed(objectives={"MAE_with_a_name": {"recipe": "mae_digits"}}, finetune=None)))


def test_too_small__a_fraction_with_fewer_images_than_a_step_takes(tmp_path: Path) -> None:
    one = {"MAE": {"recipe": "mae_digits", "sizes": ["S"], "lengths": [100]}}
    few = grid.load(written(tmp_path, changed(objectives=one, fractions=[0.03, 1.0], finetune=None)))
    (line,) = grid.too_small(few)
    assert line.startswith("fractions: 0.03 of the training images of MAE are 40, fewer than a step's 64")
    enough = changed(objectives=one, fractions=[0.05, 1.0], finetune=None)
    assert grid.too_small(grid.load(written(tmp_path, enough))) == []


@pytest.mark.parametrize("text", ["trainer.max_steps=2", "SimMIM-S-5-3.data.fraction=0.5"])
def test_load__what_the_grid_settles_cannot_be_set(text: str, tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=r"is settled by the grid; change its fractions, lengths"):
        grid.load(written(tmp_path, STUDY), settings=[text])


def test_load__two_cells_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match="two cells would be called"):
        grid.load(written(tmp_path, {**STUDY, "fractions": [0.1, 0.1000001]}))
