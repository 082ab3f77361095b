"""Studies as written, and what they come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tinymim.errors import TinymimError
from tinymim.experiments import plan_changes as changes
from tinymim.experiments import plan_check, study
from tinymim.experiments.study import Study

STUDY = {
    "seeds": [0, 1],
    "budget": {"trainer.max_epochs": 7},
    "stages": {"probe": {"recipe": "probe_digits"}, "finetune": {"recipe": "finetune_digits"}},
    "prepare": {"tuned": {"recipe": "finetune_digits", "set": {"model.weights": "digits_mae"}}},
    "rows": {
        "scratch": {"recipe": None},
        "relation": {"title": "relations", "recipe": "relation_digits", "set": {"model.drop_path": 0.1}},
        "tuned": {"recipe": "cls_digits", "set": {"model.teacher": "${prepare.tuned}"}},
    },
    "questions": {
        "first": {"title": "What?", "rows": {"scratch": "none", "relation": None}, "paper": {"scratch": 1.5}}
    },
    "quick": {
        "seeds": [5],
        "budget": {"trainer.max_epochs": 1},
        "stages": {"probe": {"set": {"trainer.max_epochs": 2}}},
    },
}


def written(tmp_path: Path, **changes: object) -> str:
    rows = changes.pop("rows", STUDY["rows"])
    prepare = changes.pop("prepare", {"teacher": STUDY["prepare"]["tuned"]})
    content = {**STUDY, "prepare": prepare, "rows": rows, **changes}
    text = yaml.safe_dump(content, sort_keys=False).replace("prepare.tuned", "prepare.teacher")
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return str(path)


def problems(found: Study, *rows: str) -> list[str]:
    """The mistakes of some rows and of what they need."""
    stages = [found.plan.fits[key].stage for key in found.keys(rows or found.compared.rows)]
    return plan_check.problems(found.plan, plan_check.check(found.plan, stages))


def configs(found: Study, row: str) -> dict[str, dict[str, Any]]:
    """The recipes of a row's fits."""
    return {role: found.plan.stages[name].config for role, name in found.compared.rows[row].items()}


def test_load__budget_then_the_rows_own_then_the_command_line(tmp_path: Path) -> None:
    own = configs(
        study.load(written(tmp_path), overrides=["--trainer.max_epochs=9", "--data.batch_size=64"]), "relation"
    )
    assert own["pretrain"]["trainer"]["max_epochs"] == 9
    assert own["pretrain"]["model"]["init_args"]["drop_path"] == 0.1
    assert configs(study.load(written(tmp_path)), "relation")["pretrain"]["trainer"]["max_epochs"] == 7
    batches = [own[stage]["data"]["init_args"]["batch_size"] for stage in ("pretrain", "probe", "finetune")]
    assert batches == [64, 64, 64], "the data is the same in all stages"
    assert own["probe"]["trainer"]["max_epochs"] == 20, "other overrides are the pre-training's alone"


def test_plan__later_stages_start_from_the_rows_own_student(tmp_path: Path) -> None:
    found = study.load(written(tmp_path))
    assert found.cells["relation", 1] == [f"cells/relation/seed1/{role}" for role in ("pretrain", "probe", "finetune")]
    for role in ("probe", "finetune"):
        (source,) = found.plan.sources(f"cells/relation/seed1/{role}").values()
        assert source == "cells/relation/seed1/pretrain"
    assert found.cells["scratch", 0] == ["cells/scratch/seed0/probe", "cells/scratch/seed0/finetune"]


def test_prepare__a_row_reads_its_checkpoint_and_runs_again_where_it_changes(tmp_path: Path) -> None:
    found = study.load(written(tmp_path))
    assert list(found.plan.sources("cells/tuned/seed1/pretrain").values()) == ["prepare/teacher/fit"]
    longer = {"teacher": {"recipe": "finetune_digits", "set": {"model.weights": "digits_mae", "trainer.max_epochs": 3}}}
    changed = changes.between(found.plan, study.load(written(tmp_path, prepare=longer)).plan)
    assert changed == {"prepare/teacher/fit": ["prepare/teacher/fit.trainer.max_epochs: 20, now 3"]}
    again = found.plan.with_descendants(changed)
    assert again == {"prepare/teacher/fit", "tuned/pretrain", "tuned/probe", "tuned/finetune"}


def test_quick__is_laid_over_the_study(tmp_path: Path) -> None:
    found = study.load(written(tmp_path), quick=True)
    assert found.plan.seeds == [5]
    assert [config["trainer"]["max_epochs"] for config in configs(found, "relation").values()] == [1, 2, 20]
    with pytest.raises(TinymimError, match="no `quick` part"):
        study.load(written(tmp_path, quick=None), quick=True)


def test_questions__name_rows_their_own_way_or_leave_it(tmp_path: Path) -> None:
    found = study.load(written(tmp_path))
    assert found.compared.questions["first"].rows == {"scratch": "none", "relation": "relations"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"question": {}}, "question: no such key; did you mean questions?"),
        ({"seeds": ["a"]}, "seeds: .* is not a list of whole numbers"),
        ({"rows": {}}, "rows: missing"),
        ({"rows": {"a": {"recipie": "x"}}}, r"rows\.a\.recipie: no such key; did you mean recipe"),
        ({"rows": {"a": "x"}}, r"rows\.a: 'x' is not a mapping"),
        ({"questions": {"q": {"title": "t", "rows": ["relatoin"]}}}, r"no row 'relatoin'; did you mean relation"),
        ({"questions": {"q": {"title": "t", "rows": ["scratch"], "paper": {"tuned": 1}}}}, "'tuned' is not among"),
        ({"questions": {"q": {"title": "t", "rows": []}}}, r"questions\.q\.rows: missing"),
        ({"stages": {"probe": {"recipe": "probe_digits"}}}, "stages: finetune missing"),
        ({"prepare": {}}, r"rows\.tuned: \$\{prepare\.teacher\} is not in prepare"),
        ({"prepare": {"scratch": {"recipe": "a"}}}, r"prepare\.scratch: a row has this name"),
    ],
)
def test_load__says_what_is_wrong(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=words):
        study.load(written(tmp_path, **changes))


def test_load__all_mistakes_at_once_and_unknown_names(tmp_path: Path) -> None:
    questions = {"q": {"title": "t", "rows": ["one", "two"]}}
    with pytest.raises(TinymimError, match=r"2 mistakes(.|\n)*'one'(.|\n)*'two'"):
        study.load(written(tmp_path, questions=questions))
    with pytest.raises(TinymimError, match="unknown study 'digit'; did you mean digits"):
        study.load("digit")


def test_mistakes__of_every_row_with_its_name(tmp_path: Path) -> None:
    rows = {
        "a": {"recipe": "relation_digits", "set": {"model.drop_paht": 0.1}},
        "b": {"recipe": "nowhere"},
        "scratch": {"recipe": None},
    }
    asked = {"q": {"title": "t", "rows": ["a", "scratch"]}}
    with pytest.raises(TinymimError, match="b/pretrain: unknown recipe 'nowhere'"):
        study.load(written(tmp_path, rows=rows, questions=asked))
    del rows["b"]
    (wrong,) = problems(study.load(written(tmp_path, rows=rows, questions=asked)))
    assert wrong.startswith("a/pretrain: ")
    assert "drop_path?" in wrong


@pytest.mark.parametrize("name", ["digits", "transfer_shapes", "layers_shapes"])
def test_shipped__every_row_can_run(name: str) -> None:
    found = study.load(name)
    assert problems(found) == []
    asked = {row for question in found.compared.questions.values() for row in question.rows}
    assert asked == set(found.compared.rows), "no row is trained for nothing"
    every = [json.dumps([configs(found, row), *sources(found, row)]) for row in found.compared.rows]
    assert len(set(every)) == len(every), "no row is trained twice"


def sources(found: Study, row: str) -> list[str]:
    return sorted({source for name in found.compared.rows[row].values() for source in found.plan.stages[name].sources})


@pytest.mark.parametrize(
    ("name", "row"), [("digits", "logits"), ("transfer_shapes", "distilled"), ("layers_shapes", "mae_4")]
)
def test_shipped__quick_is_shorter_everywhere(name: str, row: str) -> None:
    whole, quick = study.load(name), study.load(name, quick=True)
    assert len(quick.plan.seeds or []) < len(whole.plan.seeds or [])
    assert problems(quick, row) == []
    needed = whole.plan.with_sources(whole.cells[row, 0])
    for stage in {whole.plan.fits[key].stage for key in needed}:
        epochs = [found.plan.stages[stage].config["trainer"]["max_epochs"] for found in (quick, whole)]
        assert epochs[0] < epochs[1]
