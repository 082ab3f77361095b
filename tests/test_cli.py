"""Help of every command, wherever it is asked for; and what is left of a command that was refused."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import PROJECT, refused, tinymim
from tests.experiments.compared import write_recipe
from tinymim.cli.main import COMMANDS

ASKED = [
    [name, *first]
    for name, command in COMMANDS.items()
    for first in ([], ["SOMENAME"], *([action] for action in command.actions))
]


def inside(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
@pytest.mark.parametrize("asked", [["--help"], ["--seeds", "2", "-h", "--run_dir=here"]], ids=["alone", "among others"])
def test_help__is_printed_and_nothing_is_run(words: list[str], asked: list[str], tmp_path: Path) -> None:
    result = tinymim(*words, *asked, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "usage: " in result.stdout
    assert result.stderr == ""
    assert inside(tmp_path) == []


@pytest.mark.parametrize("words", [["distill", "relation_digits"], ["check", "relation_digits"], ["resume", "run"]])
def test_help__of_commands_with_overrides_is_their_own(words: list[str], tmp_path: Path) -> None:
    told = tinymim(*words, "--trainer.max_epochs", "1", "--help", "all", cwd=tmp_path).stdout
    assert told.startswith(f"usage: tinymim {words[0]} ")
    assert ("--seeds" in told) == ("--ckpt-path" in told) == (words[0] == "distill")


@pytest.mark.parametrize("words", [words for words in ASKED if words[1:] != ["SOMENAME"]], ids=" ".join)
def test_help__is_a_page_that_fits_a_screen(words: list[str], tmp_path: Path) -> None:
    told = tinymim(*words, "--help", cwd=tmp_path, COLUMNS="80").stdout.splitlines()
    assert len(told) <= 25, "\n".join(told)
    whole = tinymim(*words, "--help", "all", cwd=tmp_path, COLUMNS="80").stdout.splitlines()
    assert len(whole) >= len(told) - 2, "the line that leads there, and an empty one"


def test_cards_and_help__are_read_without_torch(tmp_path: Path) -> None:
    code = """
import sys
from tinymim.cli.main import COMMANDS, main
helps = [[name, *action, "--help"] for name, row in COMMANDS.items() for action in [[], *([a] for a in row.actions)]]
for words in (["teachers"], ["teachers", "fetch", "digits_mae"], *helps):
    try:
        main(words)
    except SystemExit:
        pass
    assert not {"torch", "timm", "lightning"} & sys.modules.keys(), words
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "digits_mae" in result.stdout


def test_actions__are_those_of_the_commands() -> None:
    for name, command in COMMANDS.items():
        result = tinymim(name, "nosuchaction", "--nosuchoption")
        told = re.search(r"'nosuchaction' is none of (.*)", result.stderr)
        assert tuple(re.findall(r"\w+", told[1]) if told else ()) == command.actions, name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search", "{recipe}", "scrach"], "has no 'scrach'; did you mean scratch?"),
        (["distill", "{recipe}", "--seeds", "1,1"], "seed 1 stands twice"),
        (["distill", "{recipe}", "--model.mask_ratoi", "1"], "mask_ratoi"),
        (["study", "digits", "--rows", "nosuch"], "study digits has no 'nosuch'"),
        (["study", "digits", "--rows", "relation", "--trainer.max_epoch", "1"], "max_epoch"),
        (["chain", "run", "digits_l_m_s", "--set", "trainer.max_epoch=1"], "max_epoch"),
        (["scaling", "digits", "--quick", "--set", "trainer.max_epoch=1"], "max_epoch"),
        (["papers", "--parts", "nosuch"], "--parts: embedded has no 'nosuch'; there are "),
        (["fit", "--config", "{recipe}", "--model.mask_ratio", "2"], "mask_ratio"),
        (["fit", "--config", "{recipe}", "--model.teacher", "nosuch"], "nosuch"),
        (["analyze", "nosuch", "--data", "digits"], "nosuch"),
        (["report", "runs/nosuch"], "nosuch"),
    ],
)
def test_refused__a_command_leaves_nothing(words: list[str], said: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tmp_path / "own.yaml") if "search" in words else write_recipe(tmp_path, search={})
    before = inside(tmp_path)
    result = tinymim(*(word.format(recipe=recipe) for word in words), cwd=tmp_path)
    refused(result, said)
    assert inside(tmp_path) == before


LONG = "x" * 5000
"""A word that no file can be called by; some user's shell has pasted it."""


@pytest.mark.parametrize(
    "words",
    [
        *(["analyze", *rest] for rest in ([LONG, "--data", "digits"], ["digits_mae", "--data", LONG])),
        *(["scaling", *rest] for rest in ([LONG], ["--table", LONG], ["--table", "{table}", "--out", LONG])),
        *([name, LONG] for name in ("report", "resume", "check", "distill", "search", "study", "papers", "replay")),
        *(["teachers", action, LONG] for action in ("show", "verify", "fetch")),
        *(["chain", action, LONG] for action in ("run", "status", "plan")),
        *([["data", "check", LONG], ["export", LONG, "out"], ["fit", "--config", LONG]]),
        *([["predict", LONG, "--images", "."], ["predict", "digits_mae", "--images", LONG]]),
    ],
    ids=lambda words: " ".join(words).replace(LONG, "LONG"),
)
def test_refused__a_word_longer_than_a_files_name(words: list[str], tmp_path: Path) -> None:
    table = PROJECT / "tests/scaling/simmim_scaling.csv"
    result = tinymim(*(word.format(table=table) for word in words), cwd=tmp_path)
    assert result.returncode in (1, 2), result.stderr
    assert not inside(tmp_path)


def test_refused__a_full_disk_is_named_in_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "page.md"))

    monkeypatch.setattr("tinymim.cli.cache_command.main", full)
    refused(
        tinymim("cache", "list"), f"tinymim cache: {tmp_path / 'page.md'} cannot be written (No space left on device)"
    )
