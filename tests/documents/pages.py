"""Pages of the documents, and the blocks of code and commands within them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.commands import PROJECT

OUTSIDE = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *PROJECT.glob("[!.]*/README.md")]
PAGES = sorted([*(PROJECT / "docs").rglob("*.md"), *OUTSIDE])

STUBS = ("tinymim", "make", "python", "pip")
"""Programs that the documents name; a shell with these alone reads their commands."""

SHELL = (
    'set -euf; command_not_found_handle() { echo "no program $1" >&2; exit 1; }; source() { :; }\n'
    + "".join(f"{name}() {{ printf '%s\\x1f' {name} \"$@\"; printf '\\x1e'; }}\n" for name in STUBS)
    + "PATH=\n"
)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, the file that it is, if its title says so, and its text."""

    page: Path
    line: int
    language: str
    title: str
    text: str

    @property
    def place(self) -> str:
        """Page and line, for people."""
        return f"{self.page.relative_to(PROJECT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    matches = re.finditer(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', text, re.DOTALL | re.MULTILINE)
    return [Block(page, text[: m.start()].count("\n") + 1, m[1], m[2] or "", m[3]) for m in matches]


def commands(block: Block) -> list[list[str]]:
    """The commands of a block of shell, as a shell gives their words to programs."""
    done = subprocess.run(["bash", "-c", SHELL + block.text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block.place}: {done.stderr}"
    return [words.split("\x1f")[:-1] for words in done.stdout.split("\x1e")[:-1]]


def inline(page: Path) -> list[Block]:
    """Commands of tinymim within a page's text; those that leave something out are none."""
    prose = re.sub(r"^```.*?^```$", lambda m: "\n" * m[0].count("\n"), page.read_text(), flags=re.DOTALL | re.MULTILINE)
    matches = [
        m
        for m in re.finditer(r"(?<!`)`(tinymim [a-z][^`]*)`(?!`)", prose)
        if not re.search(r"[\[|]|\.\.\.|\b(FORM|N)\b", m[1])
    ]
    return [Block(page, prose[: m.start()].count("\n") + 1, "bash", "", " ".join(m[1].split())) for m in matches]
