"""Settings by row: what a search tries, what it writes, and how a comparison reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.experiments.compared import RATES, write_recipe
from tinymim.cli import plan_options
from tinymim.cli import search_command as command
from tinymim.errors import TinymimError
from tinymim.experiments import chain as chains
from tinymim.experiments import compare, pages, plan_check, search, search_source, settings
from tinymim.experiments.questions import Figure
from tinymim.experiments.resume import opened
from tinymim.experiments.search import Search
from tinymim.experiments.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
CHOSEN = {"scratch": {"few": {"model.optim.base_lr": 0.5, "model.optim.layer_decay": 1.0}}}


def write_settings(folder: Path, rows: dict[str, Any]) -> Path:
    """A file of settings."""
    path = folder / "own.yaml"
    settings.write(path, Settings("", "tinymim search toy", "two of each.", {}, rows))
    return path


def test_points__are_all_combinations() -> None:
    assert search.points({"a.b": [1, 2], "c": [3]}) == [{"a.b": 1, "c": 3}, {"a.b": 2, "c": 3}]
    of_each = search.points([{"a": [1], "b": [5]}, {"a": [1, 2], "b": [5]}, {"b": [6]}])
    assert of_each == [{"a": 1, "b": 5}, {"a": 2, "b": 5}, {"b": 6}], "each once"


def options(found: Search, part: str = "data") -> list[dict[str, Any]]:
    return [found.plan.stages[fit.stage].config[part]["init_args"] for fit in found.plan.fits.values()]


def test_read__every_fit_of_a_search_leaves_a_part_of_the_training_images_out(tmp_path: Path) -> None:
    compared, name = search_source.read(str(write_recipe(tmp_path, tmp_path / "own.yaml")), False, [])
    assert name == str(tmp_path / "own.yaml")
    found = Search(compared, ["scratch", "student"])
    assert len(found.plan.fits) == 1 + 2 * len(RATES)
    assert {data["choice_split"] for data in options(found)} == {0.25}
    tried = [own["optim"]["base_lr"] for own in options(found, "model")[1:]]
    assert tried == RATES * 2, "the same ones for every row"


@pytest.mark.parametrize("name", ["digits_l_m_s", "layers_shapes"])
def test_read__of_chains_and_studies_what_is_prepared_leaves_them_out_too(name: str) -> None:
    compared, _ = search_source.read(name, False, [])
    found = Search(compared, [])
    assert plan_check.problems(found.plan, plan_check.check(found.plan)) == []
    assert any(key.startswith("prepare/") for key in found.plan.fits)
    assert {data["choice_split"] for data in options(found)} == {0.2}


def test_read__a_chain_with_several_recipes_a_stage_is_refused_with_the_remedy() -> None:
    content = {
        "stages": [{"name": "tuned", "kind": "finetune", "recipe": ["finetune_digits", "parts/digits"]}],
        "compare": {"rows": {"one": ["tuned"]}},
    }
    with pytest.raises(TinymimError) as raised:
        search_source.as_study(content)
    told = str(raised.value)
    assert told.startswith("stages.tuned.recipe: [finetune_digits, parts/digits]: a search fits one recipe a stage")
    assert "`extends: [finetune_digits, parts/digits]`" in told


@pytest.mark.parametrize(
    ("row", "before"), [("scratch", []), ("chain", ["prepare/medium/fit", "cells/chain/pretrain"])]
)
def test_read__what_some_rows_need_alone_is_prepared(row: str, before: list[str]) -> None:
    compared, _ = search_source.read("fashion", False, [])
    tried = [key for key in Search(compared, [row]).plan.fits if key not in before]
    assert {key.split("/")[1] for key in tried} == {row}
    assert len(tried) == 3 + 4 + 4 + 6


def test_opened__old_runs_without_a_record_are_not_taken_for_the_same(tmp_path: Path) -> None:
    compared = compare.read(str(write_recipe(tmp_path, search={})), [])
    assert compared
    place, keys = tmp_path / "run", list(compared.plan.fits)
    (place / "student/pretrain").mkdir(parents=True)
    (place / "student/pretrain/results.json").write_text("{}")
    words = "holds runs of which nothing shows that they are the same: student/pretrain. --accept-changes runs"
    with pytest.raises(TinymimError, match=words), opened(place, compared.plan, keys=keys):
        pass


def test_settings__are_read_by_row_and_lie_over_the_stages_own(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, write_settings(tmp_path, CHOSEN))
    compared = compare.read(str(recipe), [])
    assert compared
    rates = {}
    for row in ("scratch", "student"):
        optim = compared.plan.stages[f"{row}/few"].config["model"]["init_args"]["optim"]
        rates[row] = (optim["base_lr"], optim["layer_decay"])
    assert rates == {"scratch": (0.5, 1.0), "student": (0.002, 0.65)}


def test_remarks__state_the_settings_and_name_the_rows_without(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, write_settings(tmp_path, CHOSEN))
    compared = compare.read(str(recipe), [])
    assert compared
    told = compared.compared.remarks(compared.compared.questions["compared"])
    assert told[0] == "Settings of *from scratch*: few base_lr 0.5, layer_decay 1."
    assert told[1] == "Each row has its own, chosen by `tinymim search toy`: two of each."
    assert "*from scratch* (probe), *student of toy*;" in told[2]
    assert f"`tinymim search {recipe}`" in told[2]


def test_remarks__a_row_at_an_end_of_what_was_tried_is_told() -> None:
    tried = {"probe": {"model.optim.base_lr": [0.1, 0.2, 0.4]}, "tune": {"model.a": [1, 2], "model.b": ["x", "y", "z"]}}
    best = {"one": 0.4, "two": 0.2, "three": 0.1, "four": 0.4}
    rows = {row: {"probe": {"model.optim.base_lr": rate}, "tune": {"model.a": 1}} for row, rate in best.items()}
    chosen = Settings("", "tinymim search toy", "two of each.", tried, rows)
    assert chosen.at_ends({row: row for row in rows}, ["probe", "tune"]) == [
        "At an end of what was tried; a wider `search.grid` may find better: "
        "probe base_lr 0.1 of *three*; probe base_lr 0.4 of *one*, *four*."
    ]
    assert chosen.at_ends({"two": "two"}, ["probe"]) == []
    many = Settings("", "", "", tried, {str(row): {"probe": {"model.optim.base_lr": 0.4}} for row in range(5)})
    assert many.at_ends({row: row for row in many.rows}, ["probe"])[0].endswith("probe base_lr 0.4 of 5 of 5 rows.")


def test_chain__a_rows_settings_reach_its_own_stages(tmp_path: Path) -> None:
    rows = {"one": {"finetune": {"model.optim.base_lr": 0.5}}}
    content = {
        "stages": [
            {"name": name, "kind": "finetune", "recipe": "finetune_digits", "weights": None} for name in ("a", "b")
        ],
        "compare": {"title": "Which?", "rows": {"one": ["a"], "two": ["b"]}},
        "settings": str(write_settings(tmp_path, rows)),
    }
    chain = chains.build("toy", content, "toy.yaml")
    rates = {name: stage.config["model"]["init_args"]["optim"]["base_lr"] for name, stage in chain.stages.items()}
    assert rates == {"a": 0.5, "b": 0.002}
    assert chain.settings
    assert chain.settings.rows == rows


def wrong(tmp_path: Path, rows: dict[str, Any]) -> list[str]:
    """What a comparison with these settings has to say before it runs."""
    try:
        compared = compare.read(str(write_recipe(tmp_path, write_settings(tmp_path, rows))), [])
    except TinymimError as error:
        return [str(error)]
    assert compared
    return plan_check.problems(compared.plan, plan_check.check(compared.plan))


def test_settings__an_unknown_option_or_stage_is_told_with_the_file(tmp_path: Path) -> None:
    (told,) = wrong(tmp_path, {"scratch": {"few": {"model.optim.base_lrr": 0.5}}})
    assert told.startswith("scratch/few: ")
    assert "own.yaml: " in told
    assert "base_lrr" in told
    (told,) = wrong(tmp_path, {"toy": {"fewer": {}}})
    assert "own.yaml: rows.toy.fewer: no such stage; did you mean few?" in told


def test_settings__mistakes_in_the_form_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"row": {}, "rows": {"scratch": [1]}}))
    with pytest.raises(TinymimError, match=r"(?s)row: no such key; did you mean rows.*rows.scratch: \[1\] is not"):
        settings.load(str(path))
    with pytest.raises(TinymimError, match=r"unknown settings 'nowhere'; there are .*digits"):
        settings.load("nowhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 1}, "search.share: 1 is not a share"),
        ({"seeds": []}, r"search.seeds: \[\] is not a list"),
        ({"seeds": [0, 1, 1]}, "search.seeds: seed 1 stands twice"),
        ({"grid": {"fwe": {"model.a": [1]}}}, "search.grid.fwe: no such stage; did you mean few"),
        ({"grid": {"few": {"a": 1}}}, "search.grid.few: .* is not a mapping such as"),
        ({"grid": {"few": [{"a": 1}]}}, "search.grid.few: .* is not a mapping such as"),
        ({"by": {"few": "10-NN"}}, "search.by.few: '10-NN' is no figure of this stage"),
        ({"grids": {}}, "search.grids: no such key; did you mean grid"),
    ],
)
def test_search__mistakes_are_told(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    spec = {"share": 0.25, "seeds": [0], "grid": {"few": {"model.optim.base_lr": RATES}}} | changes
    with pytest.raises(TinymimError, match=message):
        search_source.read(str(write_recipe(tmp_path, tmp_path / "own.yaml", search=spec)), False, [])


def test_search__unknown_names_rows_and_options(tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match="is no recipe, study or chain; did you mean relation_digits"):
        command.main(["relation_digit"])
    with pytest.raises(TinymimError, match="finetune_digits has no `search`"):
        command.main(["finetune_digits"])
    recipe = str(write_recipe(tmp_path, tmp_path / "own.yaml"))
    with pytest.raises(TinymimError, match="rows: toy has no 'scrach'; did you mean scratch"):
        command.main([recipe, "scrach", "--run_dir", str(tmp_path / "run")])
    spec = {"grid": {"few": {"model.optim.base_lrr": RATES}}}
    recipe = str(write_recipe(tmp_path, tmp_path / "own.yaml", search=spec))
    with pytest.raises(TinymimError, match=r"scratch/few/base_lrr.*: .*base_lrr: no such option"):
        command.main([recipe, "scratch", "--run_dir", str(tmp_path / "run")])


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [4, 5, 6]), ("0,2", [0, 2]), ("[7]", [7]), ("7,", [7]), ("[1, 2]", [1, 2])]
)
def test_seeds__a_number_of_them_or_a_list(text: str, seeds: list[int]) -> None:
    assert plan_options.seeds(text, 4) == seeds


@pytest.mark.parametrize("text", ["0", "", "-1", "a", "[]"])
def test_seeds__neither(text: str) -> None:
    with pytest.raises(TinymimError, match=r"--seeds: .* is neither a number of seeds"):
        plan_options.seeds(text, 0)


@pytest.mark.parametrize("text", ["1,1", "[0, 1, 0]"])
def test_seeds__one_that_stands_twice(text: str) -> None:
    for first in (0, None):
        with pytest.raises(TinymimError, match=r"--seeds: seed \d stands twice in \["):
            plan_options.seeds(text, first)


def records(scratch: list[float], student: list[float]) -> dict[str, Any]:
    """Those of two rows with one figure."""
    rows = {"scratch": scratch, "student": student}
    return {
        row: {seed: {"status": "done", "figures": {"top": value}} for seed, value in enumerate(values)}
        for row, values in rows.items()
    }


@pytest.mark.parametrize(
    ("scratch", "student", "start", "end"),
    [
        ([0.90, 0.92], [0.95, 0.97], "Distilling is ahead of training from scratch in top by 5.0 ± 0.0.", ""),
        ([0.90, 0.97], [0.95, 0.93], "Not ahead by more than the spread", "top by 0.5 ± 6.4."),
        ([0.95, 0.97], [0.90, 0.92], "Training from scratch is ahead of it in top by 5.0 ± 0.0.", ""),
        ([0.90], [0.95], "Distilling is ahead", "a point or two may be chance."),
    ],
)  # fmt: skip
def test_sentences__say_what_the_figures_say(scratch: list[float], student: list[float], start: str, end: str) -> None:
    (told,) = pages.sentences(records(scratch, student), {"top": Figure("few", "val/top1")})
    assert told.startswith(start)
    assert told.endswith(end)


def test_compare__the_short_form_and_the_teacher(tmp_path: Path) -> None:
    short = compare.read("relation_vitt", ["--data.root=nowhere"])
    assert short is None, "a recipe without compare"
    compared = compare.read("relation_digits", [])
    assert compared
    teacher = compared.plan.stages["teacher"]
    assert teacher.kind == "test"
    assert teacher.config["model"]["init_args"]["weights"] == "digits_mae"
    assert compared.plan.fits["student/pretrain"].seed == 0
    plain = compare.read("mae_student_digits", [], lambda own: [3, own])
    assert plain
    assert "teacher" not in plain.plan.stages
    assert plain.plan.fits["student/pretrain"].seed == 3
    assert plain.plan.fits["student/seed0/pretrain"].seed == 0
    recipe = write_recipe(tmp_path)
    text = yaml.safe_load(recipe.read_text())
    text["compare"] = {"probe": "probe_digits", "finetune": "finetune_digits"}
    for extends in (text["extends"], [str(PROJECT / "recipes" / "relation_digits")]):
        recipe.write_text(json.dumps({**text, "extends": extends}))
        old = compare.read(str(recipe), [])
        assert old
        assert list(old.later) == ["probe", "finetune"]
        assert list(old.compared.figures) == ["10-NN", "linear probe", "fine-tuned"]
