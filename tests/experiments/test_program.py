"""Programs: what their commands become, and every mistake in them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinymim.cli import scaling_command as scaling
from tinymim.cli import study_command
from tinymim.config import recipe
from tinymim.errors import TinymimError
from tinymim.experiments import chain as chains
from tinymim.experiments import program

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
            _, study, place = study_command.read(words[1:])
            assert study.compared.rows
            assert place == part.place
        elif part.kind == "chain":
            settings = words[words.index("--set") + 1 :]
            found = chains.load(words[2], [text for text in settings if text != "--set"])
            assert (found.seeds == [0]) == quick
            stages = found.stages
            assert stages["medium"].config["model"]["init_args"]["student"]["options"]["embed_dim"] == 96
            assert stages["tiny"].config["model"]["init_args"]["student"]["options"]["embed_dim"] == 48
            assert stages["tiny"].config["data"]["init_args"]["batch_size"] == 32
        elif part.kind == "analysis":
            assert len(part.commands) == 3
            for fit in part.commands[:-1]:
                config = recipe.resolve(fit[1:])[0]
                assert config["data"]["init_args"]["batch_size"] == 32
                assert f"={config['run_dir']}/checkpoints/last.ckpt" in " ".join(words)
        elif part.kind == "scaling":
            asked = scaling.parse(words[1:])
            assert len(scaling.load(asked).cells) > 5


NAMED = """
vars: {teacher: digits_mae, data: {data.batch_size: 8}}
parts:
  first: {study: digits, quick: true, questions: [tap, loss], set: {vars.teacher: "${vars.teacher}"}}
  second:
    fits: {one: {recipe: mae_digits, set: {data.batch_size: 4, trainer.max_epochs: 2}, data: "${vars.data}"}}
    networks: {taught: one, teacher: "${vars.teacher}", blank: random:one}
    images: digits
  third: {chain: digits_l_m_s, set: {seeds: [0, 1]}}
  fourth: {scaling: digits, jobs: 2}
"""


def test_load__experiments_by_name_become_commands(tmp_path: Path) -> None:
    first, second, third, fourth = program.load(written(tmp_path, NAMED), Path("r")).parts
    assert [part.kind for part in (first, second, third, fourth)] == ["study", "analysis", "chain", "scaling"]
    (study,) = first.lines()
    assert study == (
        "tinymim study digits --quick --questions tap,loss --run-dir r/first --set 'vars.teacher=\"digits_mae\"'"
    )
    fit, analyze = second.lines()
    own = "--trainer.max_epochs=2"
    assert fit == (
        f"tinymim fit --config mae_digits --run_dir r/second_one --ckpt_path last --data.batch_size=8 {own}"
    ), "what is said of the data lies over the rest"
    last = "r/second_one/checkpoints/last.ckpt"
    assert analyze == (
        f"tinymim analyze taught={last} teacher=digits_mae blank=random:{last} --data digits --out r/second"
    )
    assert third.lines() == ["tinymim chain run digits_l_m_s --resume --run-dir r/third --set 'seeds=[0, 1]'"]
    assert fourth.lines() == ["tinymim scaling digits --jobs 2 --run-dir r/fourth"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("parts: {}", "parts: missing"),
        ("parts: {a: {kind: poem, commands: [[study]]}}", "parts.a.kind: 'poem' is not one of study, chain"),
        ("parts: {a: {kind: study, commands: study}}", "parts.a.commands: 'study' is not a list of commands"),
        ("parts: {a: {kind: study, comands: [[study]]}}", "parts.a.comands: no such key; did you mean commands?"),
        ("parts: {a: {kind: analysis, commands: [[x]], roles: {mim: a}}}", "parts.a.roles.supervised: missing"),
        ("parts: {a: {kind: study, commands: [['${vars.no}']]}}", "Interpolation key 'vars.no' not found"),
        ("parts: {a: {study: digits, sets: {}}}", "parts.a.sets: no such key; did you mean set?"),
        ("parts: {a: {chain: [x]}}", "parts.a.chain: ['x'] is not the name of a file"),
        ("parts: {a: {networks: {b: c}, fits: {d: {}}}}", "parts.a.images: missing"),
        ("parts: {a: {networks: {b: c}, images: digits, fits: {d: {}}}}", "parts.a.fits.d.recipe: missing"),
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
