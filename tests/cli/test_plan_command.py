"""``tinymim plan`` and ``status`` of every kind of plan, and options that are spelt in one way."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import refused, tinymim
from tests.experiments.compared import write_recipe
from tinymim.cli import (
    distill_command,
    plan_command,
    plan_command_options,
    plan_options,
    scaling_command,
    search_command,
    study_command,
)
from tinymim.cli.plan_command import KINDS
from tinymim.errors import TinymimError
from tinymim.experiments import plan, plan_files, program


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["layers_shapes", "--quick"], "study layers_shapes: 10 stages, each from seeds 0"),
        (["digits_l_m_s", "--seeds", "4,5"], "chain digits_l_m_s: 7 stages, each from seeds 4, 5"),
        (["embedded"], "tinymim chain run digits_l_m_s --resume --run-dir runs/papers/chain"),
    ],
)
def test_plan__of_each_kind(words: list[str], told: str, tmp_path: Path) -> None:
    result = tinymim("plan", *words)
    assert result.returncode == 0, result.stderr
    assert told in result.stdout


def test_plan__of_a_comparison_and_of_one_that_cannot_run(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, search={})
    told = tinymim("plan", recipe, "--seeds", "0,1").stdout
    assert "comparison toy: 5 stages, each from seeds 0, 1" in told
    assert "student/pretrain" in told
    refused(tinymim("plan", recipe, "--data.batch_size", "0"), "comparison toy cannot run yet", "batch_size: 0 is not")
    refused(tinymim("plan", "mae_digits"), "mae_digits is one fit, without `compare`")
    refused(tinymim("plan", "nosuch"), "'nosuch' is no recipe, chain, study, scaling study or program")


def test_find__says_how_to_reach_what_has_the_same_name(capsys: pytest.CaptureFixture[str]) -> None:
    kind, _, path = plan_files.find("fashion", KINDS)
    assert (kind, path.parent.name) == ("study", "studies")
    said = capsys.readouterr().err
    other = said.rpartition(" as ")[2].strip()
    assert said == f"fashion is a study here; name the scaling study of that name as {other}\n"
    assert plan_files.find(other, KINDS)[0] == "scaling study"
    plan_files.find("digits_l_m_s", KINDS)
    assert capsys.readouterr().err == ""


def test_plan__of_some_rows_is_what_the_study_runs_of_them() -> None:
    def read(*words: str) -> plan.Plan | program.Program:
        return plan_command.read(*plan_options.overrides(plan_command_options.plan(), [*words], "plan"))

    part, whole = read("digits", "--quick", "--rows", "relation,scratch"), read("digits", "--quick")
    assert isinstance(part, plan.Plan)
    assert isinstance(whole, plan.Plan)
    assert {name.partition("/")[0] for name in part.stages} == {"relation", "scratch"}
    assert len(part.fits) == 5
    assert part.fits.items() < whole.fits.items()
    with pytest.raises(TinymimError, match="--rows, --questions: of a study, and digits_l_m_s is a chain"):
        read("digits_l_m_s", "--rows", "tiny")


def test_status__of_no_plan(tmp_path: Path) -> None:
    refused(tinymim("status", tmp_path), "holds neither a plan (chain.json or plan.json) nor a run (config.yaml)")


def test_options__have_hyphens_and_are_taken_with_underscores() -> None:
    for spelt in ("run-dir", "run_dir"):
        assert study_command.read(["digits", f"--{spelt}", "here"])[2] == Path("here")
        assert scaling_command.parse(["digits", f"--{spelt}=here"]).run_dir == Path("here")
    asked, overrides = plan_options.overrides(
        study_command.parser(), ["digits", "--accept_changes", "--set", "a.b_c=1", "--d.e_f", "2"], "study"
    )
    assert asked.accept_changes
    assert overrides == ["--a.b_c=1", "--d.e_f=2"], "those of recipes stay as they are"
    for missing in (["--set"], ["--set", "--quick"], ["--set", "a.b=1", "--set"]):
        with pytest.raises(TinymimError, match="--set: its value is missing"):
            plan_options.overrides(study_command.parser(), ["digits", *missing], "study")
    with pytest.raises(TinymimError, match="--set a: is not KEY=VALUE"):
        plan_options.overrides(study_command.parser(), ["digits", "--set", "a"], "study")


def test_settings__keep_their_order_and_the_go_on_line_has_the_last_of_each() -> None:
    """As ``resume`` gives them: what the plan was begun with, then what is asked for now."""
    words = ["digits", "--a.b=1", "--set", "a.c=x y", "d.e={f: 1}", "--quick", "--set=a.b=2", "--d.e", "{g: 2}"]
    args, overrides = plan_options.overrides(study_command.parser(), [*words, "--a.g+=1", "--a.g+=1"], "study")
    assert (args.name, args.quick) == ("digits", True)
    assert overrides == ["--a.b=1", "--a.c=x y", "--d.e={f: 1}", "--a.b=2", "--d.e={g: 2}", "--a.g+=1", "--a.g+=1"]
    command = plan_options.again(study_command.parser(), args, overrides)
    assert command == (
        "tinymim study digits --quick '--a.c=x y' '--d.e={f: 1}' --a.b=2 '--d.e={g: 2}' --a.g+=1 --a.g+=1"
    )
    again = plan_options.overrides(study_command.parser(), shlex.split(command)[2:], "study")[1]
    assert sorted(again) == sorted(overrides[1:])
    scaling = scaling_command.parse(["digits", "--set", "a.b=1", "c.d=3", "--set", "a.b=2"])
    assert plan_options.again(scaling_command.parser(), scaling) == "tinymim scaling digits --set c.d=3 a.b=2"


@pytest.mark.parametrize("words", [["scratch", "student", "--quick"], ["--quick", "scratch", "student"]])
def test_rows__stand_before_options_or_behind(words: list[str]) -> None:
    args, rest = plan_options.overrides(
        search_command.parser(), ["digits", *words, "--trainer.precision", "32-true"], "search"
    )
    assert (args.name, args.rows, args.quick, rest) == (
        "digits", ["scratch", "student"], True, ["--trainer.precision=32-true"]
    )  # fmt: skip
    with pytest.raises(TinymimError, match="no option of a study: scratch"):
        plan_options.overrides(study_command.parser(), ["digits", "--quick", "scratch"], "study")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "relation_digits []"),
        (["--trainer.max_epochs", "5", "--jobs", "2"], "relation_digits ['--trainer.max_epochs=5']"),
        (["cls_digits", "--print_config"], "cls_digits ['--print_config']"),
        (["--seeds", "2", "cls_digits"], "no option of a comparison: cls_digits; tinymim distill --help lists them"),
        (["relation_digits", "--nope"], "--nope: no such option; tinymim distill --help lists them"),
        (["--seed"], "--seed: no such option; did you mean --seeds?"),
        (["relation_digits", "--trainer.max_epochs"], "--trainer.max_epochs: its value is missing"),
        (["--jobs", "0"], "--jobs: 0 is not a whole number, 1 or more"),
    ],
)
def test_distill__without_a_recipe_is_the_demo(words: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(recipe: str, overrides: list[str], choose: object) -> None:
        raise TinymimError(f"{recipe} {overrides}")

    monkeypatch.setattr(distill_command.compare, "read", read)
    with pytest.raises(TinymimError, match=re.escape(told)):
        distill_command.main(words)


@pytest.mark.parametrize(
    ("command", "words", "told"),
    [
        (distill_command.main, ["relation_digits"], "--seeds 3 is a number of them, --seeds 0,4 lists them"),
        (study_command.read, ["digits", "--quick"], "--seeds names others, as in --seeds 0,1"),
        (search_command.main, ["digits"], "the file's `search` names them, from which every combination is tried"),
        (plan_command.main, ["relation_digits"], "--seeds names others, as in --seeds 0,1"),
        (plan_command.main, ["digits", "--quick"], "--seeds names others, as in --seeds 0,1"),
    ],
)
def test_seeds__among_settings_of_recipes_lead_to_what_names_them(
    command: Callable[[list[str]], object], words: list[str], told: str
) -> None:
    """A chain and a scaling study take ``--set seeds=[0]``, as their help alone says."""
    with pytest.raises(TinymimError, match=re.escape(f"--set seeds=[0]: seeds are no option of a recipe; {told}")):
        command([*words, "--set", "seeds=[0]"])


def test_help__of_settings_is_the_commands_own() -> None:
    of_seeds = {
        name: "seeds=[0]" in getattr(plan_command_options, name)().format_help()
        for name in ("distill", "study", "search", "plan", "scaling")
    }
    assert of_seeds == {"distill": False, "study": False, "search": False, "plan": False, "scaling": True}
