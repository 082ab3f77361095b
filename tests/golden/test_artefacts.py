"""What the build of the artefacts wrote is resumed, tested, reported, exported and listed as it was there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file

from tests.commands import PROJECT, tinymim, without_children
from tests.golden.pinned import ARTEFACTS, COUNTED, KERNELS, by_class_name, files_in, pinned, table, undrawn

LAST = "checkpoints/last.ckpt"


class User:
    """A user of the build that made the artefacts, who now has this one."""

    def __init__(self, place: Path):
        self.place = place

    def __call__(self, *arguments: str, code: int = 0) -> str:
        result = tinymim(*arguments, cwd=self.place, TINYMIM_TEACHERS=str(self.place / "teachers"), COLUMNS="200")
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout + result.stderr

    def json(self, name: str) -> Any:
        return json.loads((self.place / name).read_text())


@pytest.fixture(scope="module")
def old(user: Path) -> User:
    torch.set_num_threads(1)
    return User(user)


def test_artefacts__are_small_and_name_no_place_of_a_machine() -> None:
    files = [path for path in ARTEFACTS.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < 1.5e6
    places = [b"/tmp/", b"/work/", b"/root", str(ARTEFACTS).encode(), str(PROJECT).encode()]
    named = [f"{path}: {place!r}" for path in files for place in places if place in path.read_bytes()]
    assert not named


@pytest.fixture(scope="module")
def resumed(old: User) -> str:
    """What is said when the run that was stopped goes on."""
    before = old.json("runs/relation/progress.json")
    assert (before["state"], before["step"]) == ("preempted", 3)
    return old("resume", "runs/relation")


def test_run__stopped_in_the_middle_goes_on_to_the_same_end(old: User, resumed: str) -> None:
    assert "resuming from" in resumed
    results = old.json("runs/relation/results.json")
    logged = {
        name: [v for v in values if v != ""] for name, values in table(old.place / "runs/relation/metrics.csv").items()
    }
    content = {"metrics": results["metrics"], "steps": results["steps"], "epochs": results["epochs"], "logged": logged}
    pinned("resumed", {**content, "files": files_in(old.place / "runs/relation")}, rel=KERNELS, abs=1e-6)


def test_run__resumed_leaves_the_recipe_it_had(old: User, resumed: str) -> None:
    """Class paths may be other ones of the same classes, and options that came later have their defaults."""
    recipes = [yaml.safe_load((place / "runs/relation/config.yaml").read_text()) for place in (ARTEFACTS, old.place)]
    for recipe in recipes:
        recipe.pop("run_dir")  # which the command now says
    assert recipes[1]["model"]["init_args"]["student"].pop("resampling") == "timm"
    assert by_class_name(recipes[0]) == by_class_name(recipes[1])


def test_run__fine_tuned_is_tested_as_it_was_validated(old: User) -> None:
    old("test", "--config", "runs/finetune/config.yaml", "--ckpt_path", "last")
    expected = old.json("runs/finetune/results.json")["metrics"]
    found = old.json("runs/finetune/test.json")
    assert found["ema"] == 0.9
    for name, value in found["metrics"].items():
        close = COUNTED if "top" in name else 1e-6
        assert value == pytest.approx(expected[name.replace("test/", "val/")], rel=1e-4, abs=close), name


def test_run__of_mae_is_validated_reported_and_goes_on(old: User) -> None:
    old("test", "--config", "runs/mae/config.yaml", "--ckpt_path", "last")
    loss = old.json("runs/mae/results.json")["metrics"]["val/loss"]
    assert old.json("runs/mae/test.json")["metrics"]["test/loss"] == pytest.approx(loss, rel=1e-4)
    with undrawn():
        old("report", "runs/mae", "runs/finetune", "--count", "0")
    page = (old.place / "runs/mae/report.html").read_text()
    assert "MAEPretrainer" in page
    assert "finetune" in page
    old("resume", "runs/mae", "--trainer.max_epochs", "3")
    assert old.json("runs/mae/results.json")["epochs"] == 3


def test_chain__goes_on_with_the_stage_that_waits(old: User) -> None:
    states = {key: entry["state"] for key, entry in old.json("runs/chain/chain.json")["stages"].items()}
    assert states == {"seed0/student": "done", "seed0/measured": "waiting"}
    planned = old("chain", "plan", "short")
    assert re.search(r"measured +probe probe", planned)
    assert "2,008 parameters" in planned
    assert "1 of 2 stages done" in old("chain", "status", "runs/chain")
    kept = (old.place / "runs/chain/seed0/student/results.json").stat().st_mtime_ns
    with without_children():
        old("resume", "runs/chain")
    assert (old.place / "runs/chain/seed0/student/results.json").stat().st_mtime_ns == kept
    assert "2 of 2 stages done" in old("chain", "status", "runs/chain")
    assert "val/top1" in old.json("runs/chain/seed0/measured/results.json")["metrics"]


def test_study__keeps_its_finished_cells(old: User) -> None:
    with undrawn():
        said = old("study", "start", "--run_dir", "runs/study")
    assert "0 cells to run" in said
    tables = {path.stem: table(path) for path in sorted((old.place / "runs/study/tables").glob("*.csv"))}
    cells = [
        {key: cell[key] for key in ("row", "seed", "status", "figures")}
        for cell in old.json("runs/study/study.json")["cells"]
    ]
    assert {cell["status"] for cell in cells} == {"done"}
    rows = [line for line in (old.place / "runs/study/study.md").read_text().splitlines() if line.startswith("| ")]
    pinned("study", {"cells": cells, "tables": tables, "rows": rows, "spearman": re.findall(r"Spearman \S+", said)})


def test_comparison__keeps_its_finished_fits(old: User) -> None:
    before = old.json("runs/compared/table.json")
    said = old("distill", "compared", "--run_dir", "runs/compared", "--ckpt_path", "last")
    assert "from scratch" in said
    now = old.json("runs/compared/table.json")
    assert now["rows"] == before["rows"]
    assert now["seeds"] == before["seeds"]


def test_search__keeps_its_finished_fits_and_its_choice(old: User) -> None:
    before, chosen = old.json("runs/search/search.json"), (old.place / "recipes/settings/compared.yaml").read_text()
    assert "0 of " in old("search", "compared", "--run_dir", "runs/search")
    assert old.json("runs/search/search.json")["rows"] == before["rows"]
    again = yaml.safe_load((old.place / "recipes/settings/compared.yaml").read_text())
    assert again.pop("tried") == {"probe": {"model.optim.base_lr": [0.02, 0.05]}}, "what older files do not say"
    assert again == yaml.safe_load(chosen.replace("1 seed(s)", "1 seed"))


def test_export__is_written_again_alike(old: User) -> None:
    checkpoint = f"runs/finetune/{LAST}"
    network = timm.create_model(f"local-dir:{old.place / 'exports/timm'}", pretrained=True).eval()
    assert network(torch.zeros(1, 3, 8, 8)).shape == (1, 10)
    old("export", checkpoint, "--to", "timm", "--out", "exports/again")
    first, again = old.place / "exports/timm", old.place / "exports/again"
    assert files_in(first) == files_in(again)
    weights = [load_file(folder / "model.safetensors") for folder in (first, again)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor)
    settings = [json.loads((folder / "config.json").read_text()) for folder in (first, again)]
    del settings[0]["model_args"]["num_classes"]  # transformers' TimmWrapper cannot open a folder that says it here
    assert settings[0] == settings[1]
    card, new = ((folder / "README.md").read_text() for folder in (first, again))
    assert yaml.safe_load(card.split("---")[1]) == yaml.safe_load(new.split("---")[1])
    old("export", checkpoint, "--to", "timm", "--out", "exports/timm", "--overwrite")


def test_export__of_our_own_form_teaches(old: User) -> None:
    assert "fits" in old("teachers", "verify", "exports/mae.safetensors")
    assert "width 16" in old("teachers", "show", "exports/mae.safetensors")


def test_teacher__saved_is_listed_and_verified(old: User) -> None:
    assert re.search(r"saved .*present", old("teachers", "list"))
    card = yaml.safe_load((old.place / "teachers/saved.yaml").read_text())
    assert card["sha256"][:12] in old("teachers", "verify", "saved")


def test_captured_step__is_replayed(old: User) -> None:
    (file,) = (old.place / "runs/broken/nonfinite").glob("step_*.pt")
    said = old("replay", str(file.relative_to(old.place)))
    assert re.search(r"^reproduced: the .* not finite again", said, re.MULTILINE)


def test_recipe__of_a_user_runs(old: User) -> None:
    """Distiller, Relation, Feature, CLS, AttentionMap and ImageFolderData by their full paths."""
    old("fit", "--config", "folder", "--trainer.max_epochs", "1")
    metrics = old.json("runs/folder/results.json")["metrics"]
    assert {"val/loss", "train/loss"} <= metrics.keys()


def test_recipes__of_a_user_are_understood(old: User) -> None:
    """Those whose classes no other test here builds, by their full paths."""
    for name in ("logits", "simmim", "detect", "segment", "scenes", "knn", "robust", "shards"):
        parsed = yaml.safe_load(old("fit", "--config", name, "--print_config"))
        assert {"class_path", "init_args"} <= parsed["model"].keys(), name
        assert {"class_path", "init_args"} <= parsed["data"].keys(), name
