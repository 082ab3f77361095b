"""Each command in the help of the command line and in the Makefile runs: as far as its first fit, its picture or its
download, on a folder of four images, or to the weights and runs that are not here. tests/documents has the pages'."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from unittest import mock

import pytest

from tests.commands import PROJECT, tinymim
from tests.data.images import class_folders
from tinymim.cli.main import COMMANDS
from tinymim.errors import TinymimError

TARGETS = ("distill", "check", "chain", "study", "study QUICK=1", "study-digits", "analyze", "teacher", "teachers")

BEGINNINGS = (
    "training.fit.readable_errors", "experiments.runner.Runner.run", "cli.scaling_command.report",
    "cli.teachers_command.fetch_weights", "teachers.new_card.write_card", "cli.analyze_command.measure",
    "export.export_forms.export_folder", "cli.data_command.check", "export.bench.measure",
)  # fmt: skip
"""What is stood in for: all before it has read the command, its recipes and its data."""

NOT_HERE = re.compile(
    r"weights (of|are)|no weights|fetch|there is no|no such (file|folder)|is no folder|no file|holds no|no checkpoint|"
    r"neither a plan|has no run|no classifier|unknown recipe 'runs?/"
)
"""Words of a refusal that names nothing but what a documented command needs and this test has not."""

MANY = ("study", "scaling", "search", "papers")
"""Commands of so many fits that building each to check it takes long: theirs are checked in tests of their own."""

STANDING = {
    "RECIPE": "relation_digits", "RUN": "run", "MODEL": "digits_mae", "WHAT": "digits", "CHECKPOINT": "digits_mae",
    "FILE.csv": "tests/scaling/simmim_scaling.csv", "STUDY": "digits", "DIR": "images", "FOLDER": "images",
    "FORM": "timm", "STUDENT": "digits_mae", "FILE": "mine.pth",
}  # fmt: skip
"""What stands for a word in capitals."""

NAMES = {"plan": "digits_l_m_s", "study": "digits", "scaling": "digits", "show": "digits_mae"}
"""What NAME is behind a word; elsewhere a recipe."""


class Begins(TinymimError):  # noqa: N818
    """In place of what would take minutes."""


def begins(*_: object, **__: object) -> None:
    raise Begins("it begins")


def documented() -> list[str]:
    """The commands, behind ``tinymim``, each once, without the comments beside them."""
    lines = [part for command in COMMANDS.values() for part in re.findall(r"tinymim .*", command.help)]
    for target in TARGETS if shutil.which("make") else ():
        recipe = subprocess.run(["make", "-n", *target.split()], cwd=PROJECT, capture_output=True, text=True).stdout
        lines += [line.replace(".venv/bin/", "") for line in recipe.splitlines()]
    commands = [re.split(r"\s+# |; ", line)[0] for line in lines if line.startswith("tinymim ")]
    actions = [text for text in commands if "|" in text]  # which tests/test_cli.py asks for
    return sorted({filled(text) for text in commands if text not in actions} - set(COMMANDS) | {"teachers", "papers"})


def filled(command: str) -> str:
    """A command without what is in brackets or another choice, and with something in the place of words in capitals."""
    command = re.sub(r" \[[-A-Z][^\]]*\]|(, [A-Z]+)+( or [A-Z]+)?", "", command).replace(" ...", "")
    command = command.replace("${args[@]}", "data.root=FOLDER").replace("weights CHECKPOINT", "weights gone.ckpt")
    words = shlex.split(command)[1:]
    for place in range(len(words)):
        for stands, text in {"NAME": NAMES.get(words[max(place - 1, 0)], "relation_digits"), **STANDING}.items():
            words[place] = re.sub(rf"\b{re.escape(stands)}\b", text, words[place])
    return shlex.join(words)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    for split in ("train", "val"):
        class_folders(folder / "images" / split, each=2)
    (folder / "tests").symlink_to(PROJECT / "tests")
    return folder


@pytest.mark.parametrize("command", documented())
def test_command__is_understood_and_runs_until_it_begins(command: str, place: Path) -> None:
    words = shlex.split(command)
    (place / "predictions.parquet").unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for path in (*BEGINNINGS, *(["experiments.resume._check"] if words[0] in MANY else [])):
            patch.setattr(f"tinymim.{path}", begins)
        with mock.patch.dict("os.environ", {"HF_HUB_OFFLINE": "1"}):
            result = tinymim(*words, cwd=place)
    lines = [line for line in result.stderr.splitlines() if line.startswith(("tinymim ", "  - ")) and line[-1] != ":"]
    begun = any(line.endswith("it begins") for line in lines)
    told = f"{' '.join(words)}: exit {result.returncode}\n{result.stdout[-500:]}{result.stderr[-2000:]}"
    assert result.returncode in (0, 1), told
    assert result.returncode == 0 or begun or all(map(NOT_HERE.search, lines)), told
    assert "Traceback" not in result.stderr, told
