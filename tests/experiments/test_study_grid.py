"""Studies as written, and what they come to."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tinymim.config import spec
from tinymim.errors import TinymimError
from tinymim.experiments import study_grid

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


def test_load__budget_then_the_rows_own_then_the_command_line(tmp_path: Path) -> None:
    study = study_grid.load(written(tmp_path), overrides=["--trainer.max_epochs=9", "--data.batch_size=64"])
    definition = study.definition("relation")
    assert definition["pretrain"]["trainer"]["max_epochs"] == 9
    assert definition["pretrain"]["model"]["init_args"]["drop_path"] == 0.1
    assert study_grid.load(written(tmp_path)).definition("relation")["pretrain"]["trainer"]["max_epochs"] == 7
    batches = [definition[stage]["data"]["init_args"]["batch_size"] for stage in ("pretrain", "probe", "finetune")]
    assert batches == [64, 64, 64], "the data is the same in all stages"
    assert definition["probe"]["trainer"]["max_epochs"] == 20, "other overrides are the pre-training's alone"


def test_stages__later_ones_start_from_the_cells_own_student(tmp_path: Path) -> None:
    study = study_grid.load(written(tmp_path))
    stages = study.stages("relation", Path("place"), Path("place/cell"))
    assert [stage.name for stage in stages] == ["pretrain", "probe", "finetune"]
    for stage in stages[1:]:
        assert "--model.init_args.weights=place/cell/pretrain/checkpoints/last.ckpt" in stage.overrides
    assert [stage.name for stage in study.stages("scratch", Path(), Path())] == ["probe", "finetune"]


def test_prepare__a_row_reads_its_checkpoint_and_its_definition_is_part_of_the_rows(tmp_path: Path) -> None:
    study = study_grid.load(written(tmp_path))
    assert study.rows["tuned"].needs == ["teacher"]
    (pretrain, *_) = study.stages("tuned", Path("place"), Path("cell"))
    assert '--model.teacher="place/prepare/teacher/fit/checkpoints/last.ckpt"' in pretrain.overrides
    longer = {"teacher": {"recipe": "finetune_digits", "set": {"model.weights": "digits_mae", "trainer.max_epochs": 3}}}
    other = study_grid.load(written(tmp_path, prepare=longer))
    assert spec.differences(study.definition("tuned"), other.definition("tuned")) == [
        "prepare.teacher.fit.trainer.max_epochs: 20, now 3"
    ]
    assert study.definition("relation") == other.definition("relation")


def test_quick__is_laid_over_the_study(tmp_path: Path) -> None:
    study = study_grid.load(written(tmp_path), quick=True)
    assert study.seeds == [5]
    definition = study.definition("relation")
    assert [definition[stage]["trainer"]["max_epochs"] for stage in definition] == [1, 2, 20]
    with pytest.raises(TinymimError, match="no `quick` part"):
        study_grid.load(written(tmp_path, quick=None), quick=True)


def test_questions__name_rows_their_own_way_or_leave_it(tmp_path: Path) -> None:
    study = study_grid.load(written(tmp_path))
    assert study.questions["first"].rows == {"scratch": "none", "relation": "relations"}


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
        ({"questions": {"q": {"title": "t", "rows": []}}}, "needs a title and rows"),
        ({"stages": {"probe": {"recipe": "probe_digits"}}}, "stages: finetune missing"),
        ({"prepare": {}}, r"rows\.tuned: \$\{prepare\.teacher\} is not in prepare"),
        ({"prepare": {"scratch": {"recipe": "a"}}}, r"prepare\.scratch: a row has this name"),
    ],
)
def test_load__says_what_is_wrong(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=words):
        study_grid.load(written(tmp_path, **changes))


def test_load__all_mistakes_at_once_and_unknown_names(tmp_path: Path) -> None:
    questions = {"q": {"title": "t", "rows": ["one", "two"]}}
    with pytest.raises(TinymimError, match=r"2 mistake\(s\)(.|\n)*'one'(.|\n)*'two'"):
        study_grid.load(written(tmp_path, questions=questions))
    with pytest.raises(TinymimError, match="unknown study 'digit'; there are: digits"):
        study_grid.load("digit")


def test_problems__of_every_row_with_its_name(tmp_path: Path) -> None:
    rows = {
        "a": {"recipe": "relation_digits", "set": {"model.drop_paht": 0.1}},
        "b": {"recipe": "nowhere"},
        "scratch": {"recipe": None},
    }
    study = study_grid.load(written(tmp_path, rows=rows, questions={"q": {"title": "t", "rows": ["a", "b"]}}))
    found = study.problems(["a", "b", "scratch"])
    assert len(found) == 2
    assert found[0].startswith("a, pretrain: ")
    assert "drop_path?" in found[0]
    assert "unknown recipe 'nowhere'" in found[1]


@pytest.mark.parametrize("name", ["digits", "transfer_shapes", "layers_shapes"])
def test_shipped__every_row_can_run(name: str) -> None:
    study = study_grid.load(name)
    assert study.problems(list(study.rows)) == []
    asked = {row for question in study.questions.values() for row in question.rows}
    assert asked == set(study.rows), "no row is trained for nothing"
    definitions = [study.definition(row) for row in study.rows]
    assert all(definitions.count(definition) == 1 for definition in definitions), "no row is trained twice"


@pytest.mark.parametrize(
    ("name", "row"), [("digits", "logits"), ("transfer_shapes", "distilled"), ("layers_shapes", "mae_4")]
)
def test_shipped__quick_is_shorter_everywhere(name: str, row: str) -> None:
    study, quick = study_grid.load(name), study_grid.load(name, quick=True)
    assert len(quick.seeds) < len(study.seeds)
    assert quick.problems([row]) == []
    for stage, config in study.definition(row).items():
        config, brief = config.get("fit", config), quick.definition(row)[stage]
        assert brief.get("fit", brief)["trainer"]["max_epochs"] < config["trainer"]["max_epochs"]
