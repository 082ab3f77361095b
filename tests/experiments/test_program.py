"""Programs: what their commands become, and every mistake in them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinymim.cli import scaling_command as scaling
from tinymim.config import recipe
from tinymim.errors import TinymimError
from tinymim.experiments import chain as chains
from tinymim.experiments import grid, program
from tinymim.experiments import study as studies

TEXT = """
vars: {teacher: digits_mae, data: {}, sizes: {width: 48}}
parts:
  first:
    title: The first
    kind: study
    commands: [[study, digits, --run_dir, "${place}", {vars.teacher: "${vars.teacher}"}, "${vars.data}"]]
  second:
    kind: scaling
    commands:
      - [distill, "${places.first}/x.ckpt"]
      - [scaling, digits, {--set: {vars.sizes: "${vars.sizes}", seeds: [0, 1]}}, {--set: "${vars.data}"}]
quick:
  parts: {first: {commands: [[study, digits, --quick]]}}
"""


def written(tmp_path: Path, text: str = TEXT) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_load__fills_in_places_and_values(tmp_path: Path) -> None:
    found = program.load(written(tmp_path), Path("runs/mine"))
    first, second = found.parts
    assert first.commands == [["study", "digits", "--run_dir", "runs/mine/first", '--vars.teacher="digits_mae"']]
    assert second.commands[0] == ["distill", "runs/mine/first/x.ckpt"]
    assert second.commands[1] == ["scaling", "digits", "--set", 'vars.sizes={"width": 48}', "seeds=[0, 1]"]
    assert (first.title, second.title, second.place) == ("The first", "second", Path("runs/mine/second"))


def test_load__settings_take_the_place_of_vars_in_every_part(tmp_path: Path) -> None:
    data = {"data.root": "pictures"}
    first, second = program.load(written(tmp_path), Path("r"), settings={"teacher": "mine", "data": data}).parts
    assert first.commands[0][-2:] == ['--vars.teacher="mine"', '--data.root="pictures"']
    assert second.commands[1][-2:] == ["--set", 'data.root="pictures"']


def test_load__quick_lies_over_the_whole(tmp_path: Path) -> None:
    first, second = program.load(written(tmp_path), Path("r"), quick=True).parts
    assert first.commands == [["study", "digits", "--quick"]]
    assert len(second.commands) == 2


def test_load__the_shipped_program_is_whole_in_both_forms() -> None:
    for quick in (False, True):
        found = program.load("embedded", Path("runs/papers"), quick)
        assert [part.kind for part in found.parts] == ["study", "chain", "analysis", "study", "study", "scaling"]
        assert all(word != "{}" for part in found.parts for line in part.commands for word in line)


@pytest.mark.parametrize("quick", [False, True])
def test_load__the_shipped_programs_commands_are_understood(quick: bool, tmp_path: Path) -> None:
    """Each is read as far as its own command reads it before anything runs."""
    for part in program.load("embedded", tmp_path, quick, {"data": {"data.batch_size": 32}}).parts:
        words = part.commands[-1]
        if part.kind == "study":
            _, study, place = studies.read(words[1:])
            assert study.rows
            assert place == part.place
        elif part.kind == "chain":
            settings = words[words.index("--set") + 1 :]
            stages = chains.load(words[2], [text for text in settings if text != "--set"]).stages
            assert stages["medium"].config["model"]["init_args"]["student"]["options"]["embed_dim"] == 96
            assert stages["tiny"].config["model"]["init_args"]["student"]["options"]["embed_dim"] == 48
            assert stages["tiny"].config["data"]["init_args"]["batch_size"] == 32
        elif part.kind == "analysis":
            for fit in part.commands[:-1]:
                config = recipe.resolve(fit[1:])[0]
                assert config["data"]["init_args"]["batch_size"] == 32
                assert f"={config['run_dir']}/checkpoints/last.ckpt" in " ".join(words)
        elif part.kind == "scaling":
            asked = scaling.parser().parse_args(words[1:])
            assert len(grid.load(asked.study, asked.quick, asked.set).cells) > 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("parts: {}", "parts: missing"),
        ("parts: {a: {kind: poem, commands: [[study]]}}", "parts.a.kind: 'poem' is not one of study, chain"),
        ("parts: {a: {kind: study, commands: study}}", "parts.a.commands: not a list of commands"),
        ("parts: {a: {kind: study, comands: [[study]]}}", "parts.a.comands: no such key; did you mean commands?"),
        ("parts: {a: {kind: analysis, commands: [[x]], roles: {mim: a}}}", "parts.a.roles: "),
        ("parts: {a: {kind: study, commands: [['${vars.no}']]}}", "Interpolation key 'vars.no' not found"),
    ],
)
def test_load__says_what_is_wrong(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(TinymimError) as caught:
        program.load(written(tmp_path, text), Path("r"))
    assert said in str(caught.value)


def test_load__an_unknown_value_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match=r"vars.techer: no such key; did you mean teacher\?"):
        program.load(written(tmp_path), Path("r"), settings={"techer": "x"})


def test_load__quick_needs_a_quick_part(tmp_path: Path) -> None:
    with pytest.raises(TinymimError, match="no `quick` part"):
        program.load(written(tmp_path, "parts: {a: {kind: study, commands: [[study]]}}"), Path("r"), quick=True)
