"""Studies with stages, figures and rows of their own, run without training: what a cell would measure is made up."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tinymim.cli import resume_command, study_command
from tinymim.errors import TinymimError
from tinymim.experiments import fit_processes, plan_check, study
from tinymim.experiments.state import load

STUDY: dict[str, Any] = {
    "seeds": [0, 1],
    "budget": {"trainer.max_epochs": 7},
    "stages": {
        "frozen": {"recipe": "probe_digits"},
        "tuned": {"recipe": "finetune_digits", "set": {"model.drop_path": 0.1}},
    },
    "figures": {
        "frozen": {"stage": "frozen", "metric": "val/top1"},
        "tuned": {"stage": "tuned", "metric": "val/top1"},
        "off by": {"stage": "tuned", "metric": "val/error", "unit": "px", "better": "lower"},
        "while pre-training": {"stage": "pretrain", "metric": "val/loss", "unit": "", "better": "lower"},
    },
    "curves": {"box": {"title": "box loss", "stage": "tuned", "loss": "loss_box"}},
    "prepare": {
        "small": {"recipe": "cls_digits", "set": {"model.teacher": "${prepare.teacher}"}},
        "teacher": {"recipe": "finetune_digits", "set": {"model.weights": "digits_mae", "model.architecture": None}},
    },
    "rows": {
        "random": {"recipe": None},
        "given": {"title": "given weights", "recipe": None, "weights": "${prepare.small}"},
        "card": {"recipe": None, "weights": "digits_mae", "later": {"model.blocks": 4}},
        "mae": {"recipe": "mae_student_digits"},
    },
    "questions": {
        "all": {
            "title": "Which start?",
            "rows": ["random", "given", "card", "mae"],
            "expects": "mae is best.",
            "against": {"frozen": "tuned"},
            "claims": [
                {"figure": "off by", "better": "mae", "than": "random"},
                {"figure": "box loss: common level", "better": "mae", "than": "random"},
            ],
        },
        "part": {"title": "Only one figure?", "rows": ["random", "mae"], "figures": ["frozen"]},
    },
}

UNKNOWN = {"figure": "x", "better": "y", "than": "z"}
LEVEL = {"random": 0.0, "given": 0.1, "card": 0.2, "mae": 0.3}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "free.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return path


class Fake:
    """In place of a worker: a fit leaves what it would have measured."""

    pid = 0

    def __init__(self, words: list[str], log: Path, threads: int, gpus: list[str]):
        log.write_text("")
        (place,) = [Path(json.loads(word.partition("=")[2])) for word in words if word.startswith("--run_dir=")]
        (seed,) = [int(word.partition("=")[2]) for word in words if word.startswith("--seed_everything=")]
        for word in words:
            if word.endswith("last.ckpt"):
                assert Path(word.partition("=")[2].strip('"')).is_file(), "what it needs has run"
        at = LEVEL.get(place.parents[1].name, 0.0) + seed / 100
        metrics = {"val/top1": 0.5 + at, "val/error": 4 - at, "val/loss": 1.0}
        (place / "checkpoints").mkdir(parents=True)
        (place / "checkpoints" / "last.ckpt").write_text("")
        (place / "results.json").write_text(json.dumps({"metrics": metrics, "parameters": 10, "seconds": 1}))
        lines = ["step,val/loss_box,train/loss_box", "10,1.0,", "10,,1.5", f"20,{0.5 - at},1.2"]
        (place / "metrics.csv").write_text("\n".join(lines) + "\n")

    def poll(self) -> int:
        return 0


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a study whose cells have all run."""
    folder = tmp_path_factory.mktemp("free")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_processes, "Fork", Fake)
        study_command.main([str(written(folder)), "--run_dir", str(folder / "run")])
        yield folder / "run"


@pytest.fixture
def again(ran: Path, tmp_path: Path) -> Path:
    """A copy of it, to lay other questions over."""
    return shutil.copytree(ran, tmp_path / "run")


def test_run__figures_of_free_stages_in_their_units(ran: Path) -> None:
    text = (ran / "tables" / "all.md").read_text()
    assert "| row | frozen | tuned | off by (px) ↓ | while pre-training ↓ | seeds |" in text
    assert "| mae | 80.5 ± 0.7 | 80.5 ± 0.7 | 3.695 ± 0.0071 | 1 ± 0 | 2 |" in text
    assert "| given weights | 60.5 ± 0.7 | 60.5 ± 0.7 | 3.895 ± 0.0071 | - | 2 |" in text
    with (ran / "tables" / "all.csv").open() as stream:
        last = list(csv.DictReader(stream))[-1]
    assert (last["frozen mean"], last["off by mean"], last["off by std"]) == ("80.500", "3.695", "0.00707107")
    assert "| row | frozen | seeds |" in (ran / "tables" / "part.md").read_text()


def test_run__sentences_follow_what_is_better(ran: Path) -> None:
    text = (ran / "study.md").read_text()
    by = r"0.3 ± \S+ px \(outside the spread\)"
    assert re.search(rf"off by: best \*mae\*, worst \*random\*; difference {by}\.", text)
    assert re.search(rf"off by: the paper has \*mae\* better than \*random\*; here by {by}: agrees\.", text)
    assert "frozen against tuned: order of 4 rows, Spearman +1.00; *mae* is best in both." in text


def test_run__steps_of_convergence_from_what_was_logged(ran: Path) -> None:
    """Seed 0: random falls from 1 to 0.5 between steps 10 and 20, mae to 0.2; the common level is 0.5."""
    with (ran / "tables" / "all_convergence.csv").open() as stream:
        rows = {row["row"]: row for row in csv.DictReader(stream)}
    assert rows["random"]["box loss: common level mean"] == "20"
    steps = [10 + 10 * (1 - 0.5) / (1 - 0.2), 10 + 10 * (1 - 0.49) / (1 - 0.19)]
    assert float(rows["mae"]["box loss: common level mean"]) == pytest.approx(sum(steps) / 2, rel=1e-5)
    assert {row["box loss: 90 % mean"] for row in rows.values()} == {"19"}
    said = (ran / "study.md").read_text()
    assert "box loss: common level: the paper has *mae* better than *random*; here by 3.727 ± 0.033 steps" in said
    assert not (ran / "tables" / "part_convergence.csv").exists(), "its stage has no curve"


def test_run__a_page_that_needs_no_other_file(ran: Path) -> None:
    page = (ran / "index.html").read_text()
    assert not re.search(r"<script src|src=\"(?!data:)", page)
    assert page.count("<svg ") - page.count('class="figure narrow"') == 2, "all rows on top, and the curve"
    assert "best tuned: mae" in page
    for text in ("Which start?", "3.695 ± 0.0071", "Convergence", "curves/all_box.png", "curves/all_box.csv"):
        assert text in page
    assert (ran / "curves" / "all_box.png").stat().st_size > 5000
    with (ran / "curves" / "all_box.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4 * 2 * (2 + 2), "rows, seeds, and two steps of either set"
    assert {"row": "mae", "seed": "1", "set": "held out", "step": "20", "loss": "0.19"} in rows


def test_weights__later_stages_start_from_them(tmp_path: Path) -> None:
    loaded = study.load(str(written(tmp_path)))
    stages = loaded.plan.stages
    options = {
        row: [stages[name].config["model"]["init_args"] for name in loaded.compared.rows[row].values()]
        for row in ("given", "card", "random")
    }
    assert [own["weights"] for own in options["given"]] == ["prepare/small/fit/checkpoints/last.ckpt"] * 2
    assert {stages[f"given/{role}"].parent for role in ("frozen", "tuned")} == {"prepare/small/fit"}
    assert [(own["weights"], own["blocks"]) for own in options["card"]] == [("digits_mae", 4)] * 2
    assert all("blocks" not in own for own in options["random"])
    assert plan_check.problems(loaded.plan, plan_check.check(loaded.plan)) == []


def test_prepare__one_after_the_other_and_once_for_all_seeds(ran: Path) -> None:
    loaded = study.load(str(written(ran.parent)))
    needed = loaded.plan.with_sources(loaded.keys(["given", "mae"]))
    assert {"prepare/teacher/fit", "prepare/small/fit"} < needed
    assert list(loaded.plan.stages)[:2] == ["prepare/teacher/fit", "prepare/small/fit"]
    plan = load(ran).plan
    seeds = [fit.seed for key, fit in plan.fits.items() if key.startswith("prepare/")]
    assert seeds == [0, 0], "whatever the seeds are"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"figures": {"a": {"stage": "tunde", "metric": "x"}}}, r"a\.stage: no stage 'tunde'; did you mean tuned"),
        ({"figures": {"a": {"stage": "tuned"}}}, r"figures\.a\.metric: missing"),
        ({"figures": {"a": {"stage": "tuned", "metric": "x", "better": "less"}}}, "'less' is not higher or lower"),
        ({"figures": {"a": {"stage": "tuned", "metric": "x", "unit": 3}}}, r"figures\.a\.unit: 3 is not a text"),
        ({"figures": ["a"]}, r"figures: \['a'\] is not a mapping"),
        ({"curves": {"c": {"stage": "no"}}}, r"curves\.c\.stage: no stage 'no'"),
        ({"stages": {"pretrain": {"recipe": "probe_digits"}}}, r"stages\.pretrain: is a folder's name"),
        ({"questions": {"../q": {"title": "t", "rows": ["mae"]}}}, r"questions\.\.\./q: is not a name of files"),
        ({"rows": {".x": {"recipe": "x"}}}, r"rows\.\.x: is not a name of files"),
        ({"prepare": {"a": {"recipe": "x", "set": {"k": "${prepare.a}"}}}}, r"prepare\.a: needs itself, by way of a"),
        ({"prepare": {"a": {"recipe": "x", "set": {"k": "${prepare.b}"}}}}, r"prepare\.a: \$\{prepare\.b\} is not in"),
        ({"rows": {"a": {"recipe": "x", "weights": "y"}}}, r"rows\.a\.weights: the later stages start from what its"),
        ({"rows": {"a": {"weights": "y", "set": {"k": 1}}}}, r"rows\.a\.set: overrides of its recipe, and it has none"),
        ({"questions": {"q": {"title": "t", "rows": ["mae"], "figures": ["tunde"]}}}, "figures: no figure 'tunde'"),
        ({"questions": {"q": {"title": "t", "rows": ["mae"], "against": {"tuned": "x"}}}}, "against: no figure 'x'"),
        (
            {"questions": {"q": {"title": "t", "rows": ["mae"], "claims": [{"figure": "tuned", "better": "mae"}]}}},
            r"questions\.q\.claims, number 1\.than: missing",
        ),
        (
            {"questions": {"q": {"title": "t", "rows": ["mae"], "claims": [UNKNOWN]}}},
            r"number 1: no figure 'x'(.|\n)*'y' is not among its rows",
        ),
    ],
)  # fmt: skip
def test_load__says_what_is_wrong_with_free_parts(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=words):
        study.load(str(written(tmp_path, **changes)))


def test_run__a_curve_that_nobody_logged_is_said_to_be_missing(again: Path) -> None:
    curves = {"box": {"stage": "tuned", "loss": "loss_bxo"}}
    questions = {"all": {"title": "What?", "rows": ["random"]}}
    study_command.main([str(written(again.parent, curves=curves, questions=questions)), "--run_dir", str(again)])
    assert "curves.box.loss: tuned logged no loss_bxo; it logged loss_box." in (again / "index.html").read_text()


def test_run__other_figures_of_finished_cells_need_no_new_run(again: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"error": STUDY["figures"]["off by"]}
    questions = {"all": {"title": "Again?", "rows": ["random", "mae"]}}
    arguments = ["--run_dir", str(again)]
    study_command.main([str(written(again.parent, figures=figures, questions=questions)), *arguments])
    assert "0 cells to run" in capsys.readouterr().err
    assert "| mae | 3.695 ± 0.0071 | 2 |" in (again / "tables" / "all.md").read_text()
    wrong = {"top 9": {"stage": "tuned", "metric": "val/top9"}}
    with pytest.raises(TinymimError, match=r"figures\.top 9\.metric: tuned has no val/top9; it has val/error, val/l"):
        study_command.main([str(written(again.parent, figures=wrong, questions=questions)), *arguments])
    (again / "cells" / "mae" / "seed0" / "tuned" / "results.json").unlink()
    with pytest.raises(TinymimError, match=r"tuned.results.json: sha256 was .*, and it is missing"):
        study_command.main([str(written(again.parent, figures=figures, questions=questions)), *arguments])


def test_run__without_the_checkpoints_from_which_every_fit_has_started(
    again: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fit_processes, "Fork", Fake)
    tables = {path.name: path.read_text() for path in (again / "tables").iterdir()}
    for path in again.glob("**/last.ckpt"):
        path.unlink()
    assert study_command.main([str(written(again.parent)), "--run_dir", str(again), "--report-only"]) == 0
    assert study_command.main([str(written(again.parent)), "--run_dir", str(again)]) == 0
    assert "0 cells to run" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in (again / "tables").iterdir()} == tables

    state = load(again)
    state.forget({"cells/mae/seed1/tuned", "cells/random/seed0/tuned"})  # random starts from nothing
    state.save()
    with pytest.raises(TinymimError) as raised:
        study_command.main([str(written(again.parent)), "--run_dir", str(again)])
    assert re.findall(r"(\S+)/checkpoints/last.ckpt: sha256 was \S+, and it is missing", str(raised.value)) == [
        str(again / "cells/mae/seed1/pretrain")
    ]
    anew = {**STUDY["rows"], "new": {"recipe": None, "weights": "${prepare.small}"}}
    with pytest.raises(TinymimError, match=r"prepare/small/fit/checkpoints/last.ckpt: .* missing"):
        study_command.main([str(written(again.parent, rows=anew)), "--run_dir", str(again), "--rows", "new"])
    assert study_command.main([str(written(again.parent)), "--run_dir", str(again), "--accept-changes"]) == 0
    err = capsys.readouterr().err
    assert "2 cells to run" in err
    assert {path.name: path.read_text() for path in (again / "tables").iterdir()} == tables


def test_resume__of_a_study_runs_what_is_left_with_the_options_it_was_begun_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fit_processes, "Fork", Fake)
    options = ["--rows", "random,card", "--seeds", "3", "--trainer.log_every_n_steps", "7", "--jobs", "1"]
    study_command.main([str(written(tmp_path)), *options, "--run_dir", str(tmp_path / "run")])
    place = (tmp_path / "run").rename(tmp_path / "moved")
    state = load(place)
    state.forget({"cells/card/seed3/tuned"})
    state.save()
    shutil.rmtree(place / "cells/card/seed3/tuned")
    capsys.readouterr()
    assert resume_command.main([str(place)]) == 0
    err = capsys.readouterr().err
    assert f"going on with: tinymim study {tmp_path / 'free.yaml'} --rows random,card" in err
    assert "1 cell to run" in err
    assert {entry.state for key, entry in load(place).entries.items() if "random" in key or "card" in key} == {"done"}
