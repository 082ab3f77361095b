"""Code in the documents: commands are read as the project reads them, Python is run, YAML is checked as recipes are."""

from __future__ import annotations

import argparse
import ast
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.commands import PROJECT, isolated
from tests.commands import tinymim as run
from tests.documents.pages import PAGES, Block, blocks, commands, inline
from tinymim.cli import (
    chain_command,
    distill_command,
    papers_command,
    plan_command,
)
from tinymim.cli.main import COMMANDS
from tinymim.config import recipe, validation
from tinymim.experiments import chain, plan_files
from tinymim.teachers import card
from tinymim.training import fit

LANGUAGES = {"bash", "python", "text", "yaml"}
FITS = {"fit", "validate", "test", "check"}
LOOKED_AT = {*FITS, "distill", "chain", "papers"}
"""Commands whose recipes and plans are read, up to where work would begin; of others the options alone."""

LISTED = {"study": ("study",), "scaling": ("scaling study",), "search": ("study", "chain"), "plan": plan_command.KINDS}
"""Commands of a file that lists fits, and its kinds; it is found, and tests of its own read it."""

FINDERS = {
    **{("teachers", action): card.find for action in ("show", "fetch", "verify")},
    **{("recipes", action): recipe.find for action in ("show", "copy")},
}
"""What finds the name after an action of a command."""

ALL = [block for page in PAGES for block in blocks(page)]


class Reached(Exception):  # noqa: N818
    """Where a command would begin its work."""


def of(language: str) -> list[Any]:
    """Blocks of a language, as parameters of a test."""
    return [pytest.param(block, id=block.place) for block in ALL if block.language == language]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """A working folder for each page, with the files that its blocks are."""
    places = {page: tmp_path_factory.mktemp("page") for page in PAGES}
    for block in ALL:
        if block.title:
            path = places[block.page] / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
    return places


def test_blocks__say_what_they_are() -> None:
    assert {block.place: block.language for block in ALL if block.language not in LANGUAGES} == {}


@pytest.mark.parametrize("block", of("bash"))
def test_shell(block: Block, folders: dict[Path, Path]) -> None:
    for words in commands(block):
        CHECKS[words[0]](words[1:], folders[block.page])


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(PROJECT))) for page in PAGES])
def test_shell__within_text(page: Path, folders: dict[Path, Path]) -> None:
    for block in inline(page):
        try:
            for words in commands(block):
                check_tinymim(words[1:], folders[page])
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{block.place}: {block.text}: {error}") from error


def check_tinymim(words: list[str], folder: Path) -> None:
    """Read a command: its options by its own parser, and the recipe, chain or study that it names."""
    name, *arguments = words
    assert name in COMMANDS, name
    placeholder = any(
        re.fullmatch(r"[A-Z_]+(/.*)?|runs/.+/.+/config.yaml", word) for word in recipes_of(name, arguments)
    )
    if len(words) == 1 and name in (*LOOKED_AT, *LISTED):  # the command as such
        return
    with isolated(folder, {"IMAGENET": "FOLDER", "PYTHONPATH": str(folder)}):
        if name == "resume":
            assert arguments[0][0] != "-"
            assert recipe.split(arguments[1:])[1] == []
        elif name in LOOKED_AT and "status" not in words and "resume" not in words[:2] and not placeholder:
            read_whole(name, [re.sub(r"^runs/(\w+)/config\.yaml$", r"\1", word) for word in arguments])
        elif name not in FITS and "--config" not in words:
            read_options(name, arguments)
            if name in LISTED and not placeholder and arguments[0][0] != "-":
                plan_files.find(arguments[0], LISTED[name])


def recipes_of(name: str, arguments: list[str]) -> list[str]:
    """The words that name a recipe or a plan."""
    named = [after for word, after in itertools.pairwise(arguments) if word == "--config"]
    return [*named, *(arguments[: 2 if name == "chain" else 1] if name not in ("fit", "test") else [])]


def read_options(name: str, arguments: list[str]) -> None:
    """Have a command's own parser read its options; cards and recipes that it names are there."""
    action, *named = [*arguments, "", ""][:2]
    if re.fullmatch(r"[a-z]\w+", *named) and (name, action) in FINDERS:
        FINDERS[name, action](*named)
    with stopped_parsers(), pytest.raises(Reached) as reached:
        COMMANDS[name].run(arguments)
    asked, rest = reached.value.args
    assert (recipe.split(rest)[1] if name in ("replay", *LISTED) else rest) == []
    assert asked is not None


def stopped_parsers() -> Any:
    """Parsers end the command once they have read all of it."""
    original, depth = argparse.ArgumentParser.parse_known_args, 0

    def parse_known_args(*arguments: Any, **options: Any) -> Any:
        nonlocal depth
        depth += 1  # parsers of actions are called by the command's
        try:
            read = original(*arguments, **options)
        finally:
            depth -= 1
        if depth == 0:
            raise Reached(*read)
        return read

    return mock.patch.object(argparse.ArgumentParser, "parse_known_args", parse_known_args)


def read_whole(name: str, arguments: list[str]) -> None:
    """Run a command up to its first fit: what it names is found, composed and checked as text."""

    def fitted(command: str, words: list[str], **_: bool) -> Path:
        config, rest = recipe.resolve(words)
        assert validation.mistakes(config)[0] == []
        assert rest == []
        raise Reached

    begun = mock.Mock(side_effect=Reached)
    with (
        mock.patch.object(fit, "run", fitted),
        mock.patch.object(papers_command.lock, "hold", begun),
        mock.patch.object(chain_command, "opened", begun),
        mock.patch.object(distill_command, "opened", begun),
        mock.patch.object(plan_command, "shown", begun),
        pytest.raises(Reached),
    ):
        COMMANDS[name].run(arguments)


def check_make(words: list[str], folder: Path) -> None:
    """The target is there, and what it would run can be read."""
    done = subprocess.run(["make", "-n", *words], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        if line.startswith(".venv/bin/tinymim "):
            check_tinymim(shlex.split(line)[1:], folder)


def check_python(words: list[str], folder: Path) -> None:
    """The script is there, and knows the options; or the tests are."""
    if words[:2] == ["-m", "pytest"]:
        assert all((PROJECT / word).exists() for word in words[2:] if "/" in word), words
        return
    script = (PROJECT / words[0]).read_text()
    assert [word for word in words[1:] if word.startswith("--") and word.partition("=")[0] not in script] == []


def check_pip(words: list[str], folder: Path) -> None:
    """The extras are the project's."""
    project = (PROJECT / "pyproject.toml").read_text()
    extras = [extra for word in words for listed in re.findall(r"\[(.*?)\]", word) for extra in listed.split(",")]
    assert [extra for extra in extras if not re.search(rf"^{extra} = \[", project, re.MULTILINE)] == []


CHECKS = {"tinymim": check_tinymim, "make": check_make, "python": check_python, "pip": check_pip}


@pytest.mark.parametrize("block", of("yaml"))
def test_yaml(block: Block, folders: dict[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(block.text)
    with isolated(folders[block.page], {"PYTHONPATH": str(folders[block.page])}):
        if "architecture:" in block.text:
            card.read(tmp_path / "recipe.yaml")
        elif "stages:" in block.text:
            chain.load(str(tmp_path / "recipe.yaml"))
        else:
            config, _ = recipe.resolve(["--config", str(tmp_path / "recipe.yaml")])
            assert validation.mistakes(config)[0] == []


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem) for page in PAGES if any(b.language == "python" for b in blocks(page))]
)
def test_python(page: Path, folders: dict[Path, Path]) -> None:
    """A page's blocks after each other, as its reader would run them."""
    written = [block for block in blocks(page) if block.language == "python"]
    if any("exports/student" in block.text for block in written):
        done = run("export", PROJECT / "teachers/digits_mae.safetensors", "--to", "timm", "--out", "exports/student",
                   cwd=folders[page])  # fmt: skip
        assert done.returncode == 0, done.stderr
    names: dict[str, Any] = {"__name__": "documents"}
    with isolated(folders[page], {"PYTHONPATH": str(folders[page])}), mock.patch.dict(sys.modules):
        for block in written:
            exec(compile("\n" * block.line + block.text, str(block.page), "exec"), names)


def test_messages__are_the_projects() -> None:
    """Troubleshooting quotes messages; what stands between the dots is in the code, in one text or two."""
    literals = [
        node.value
        for path in (PROJECT / "tinymim").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    known = lambda text: any(text in literal for literal in literals)  # noqa: E731
    quoted = [
        part.strip()
        for block in blocks(PROJECT / "docs/troubleshooting.md")
        if block.language == "text"
        for line in block.text.splitlines()
        for part in line.split("…")
    ]
    assert [part for part in quoted if not known(part)] == []
    assert len(quoted) > 20


def test_links__of_pages_that_are_not_the_sites() -> None:
    """Those of the site are checked as it is built."""
    outside = [*PROJECT.glob("*.md"), *PROJECT.glob("[!.]*/README.md")]
    links = [
        (page, link)
        for page in outside
        for link in re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)|(?:src|srcset)="([^":]+)"', page.read_text())
    ]
    missing = [(page.name, link) for page, link in links if not (page.parent / (link[0] or link[1])).exists()]
    assert missing == []
    assert len(links) > 20
