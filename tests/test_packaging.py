"""What ``pyproject.toml`` says of the package, as far as it shows without a build; ``make test-package`` builds it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import tinymim
from tests import package
from tests.commands import PROJECT
from tinymim.cli import distill_command

DECLARED: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())
INSTALLING = (PROJECT / "docs" / "installing.md").read_text()


def test_fallback_version__is_read_by_the_pattern_of_tags() -> None:
    version = DECLARED["tool"]["hatch"]["version"]
    pattern = re.compile(version["raw-options"]["tag_regex"])
    tags = {version["fallback-version"]: "0.0", "v0.1.0": "0.1.0", "1.2": "1.2", "0.0.0.dev0": None, "docs-2": None}
    assert {tag: match and match["version"] for tag in tags for match in [pattern.match(tag)]} == tags


def test_readme__of_an_index_names_no_file_of_a_clone() -> None:
    hook = DECLARED["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    (fragment,) = hook["fragments"]
    readme = (PROJECT / fragment["path"]).read_text()
    shown = readme
    for each in hook["substitutions"]:
        shown = re.sub(each["pattern"], each["replacement"], shown)
    assert not re.search(r"<(img|picture|p)\b", shown)
    assert [link for link in re.findall(r"\]\(([^)]+)\)", shown) if not link.startswith("https://")] == []
    assert len(shown.splitlines()) > len(readme.splitlines()) - 8, "what is left out is more than the pictures"


def test_pythons__are_the_same_everywhere() -> None:
    versions = re.findall(r"Python :: (3\.\d+)'", str(DECLARED["project"]["classifiers"]))
    assert DECLARED["project"]["requires-python"] == f">={versions[0]}"
    assert f"Python {versions[0]} to {versions[-1]} on Linux" in INSTALLING
    assert DECLARED["tool"]["ruff"]["target-version"] == f"py{versions[0].replace('.', '')}"
    assert DECLARED["tool"]["mypy"]["python_version"] == versions[0]


def test_extras__are_those_of_the_page() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", INSTALLING, re.M))
    extras = DECLARED["project"]["optional-dependencies"]
    assert rows.keys() == extras.keys() - {"dev"}
    for extra, brings in rows.items():
        named = [re.match(r"[\w-]+", text) for text in extras[extra]]
        lacking = [match[0] for match in named if match and match[0] != "tinymim" and match[0] not in brings.lower()]
        assert lacking == [], extra


def test_import__brings_nothing_but_pythons_own() -> None:
    code = "import sys; had = set(sys.modules); import tinymim; print(*set(sys.modules) - had, dir(tinymim), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *brought, public = done.stdout.splitlines()
    roots = {name.partition(".")[0] for name in brought}
    assert roots - sys.stdlib_module_names == {"tinymim"}
    assert [name for name in brought if name.startswith("tinymim.")] == []
    assert public.startswith("['Architecture', 'Distiller'")


def test_import__what_is_not_there_is_named() -> None:
    assert callable(tinymim.relation_kl)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = tinymim.nothing


def test_package__finds_the_next_steps_as_the_demo_says_them() -> None:
    steps = distill_command.next_steps(Path("runs/a"))
    assert package.named_next("\n  ".join(["next:", *steps])) == [
        "report runs/a",
        "export runs/a/checkpoints/last.ckpt --to timm",
    ]
