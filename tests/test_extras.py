"""Extras of the package: what only some commands need, and the line that names one before anything is done."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.commands import PROJECT, refused, tinymim
from tests.test_floors import modules
from tinymim import extras
from tinymim.data.hf import HFData
from tinymim.extras import EXTRAS

TEXT = (PROJECT / "pyproject.toml").read_text()
DECLARED: dict[str, Any] = tomllib.loads(TEXT)["project"]
OPTIONAL: dict[str, list[str]] = DECLARED["optional-dependencies"]


NAMED = {"PIL": "pillow", "yaml": "pyyaml", "markdown_it": "markdown-it-py"}
"""Packages whose modules have another name."""

BROUGHT = {"aiohttp": "fsspec", "triton": "torch", "typeshed-client": "jsonargparse"}
"""What is imported, and the dependency that brings it."""


def names(requirements: list[str]) -> set[str]:
    """Packages of requirements, without extras of this one."""
    parsed = [Requirement(text) for text in requirements]
    return {each.name for each in parsed if each.name != "tinymim"}


def brought(extra: str) -> set[str]:
    """Extras that one brings, itself among them."""
    inner = [
        name for text in OPTIONAL[extra] if Requirement(text).name == "tinymim" for name in Requirement(text).extras
    ]
    return {extra}.union(*map(brought, inner))


def test_extras__are_those_that_are_declared() -> None:
    declared = {name: extra for extra in OPTIONAL if extra != "dev" for name in names(OPTIONAL[extra])}
    assert declared == EXTRAS
    assert {extra: brought(extra) - {extra} for extra in extras.BRINGS} == {a: {b} for a, b in extras.BRINGS.items()}
    assert {extra for extra in OPTIONAL if brought(extra) != {extra}} == {*extras.BRINGS, "all", "dev"}
    assert brought("all") == OPTIONAL.keys() - {"dev"}
    assert "all" in brought("dev")


def test_imports__are_of_what_is_declared_and_of_all_of_it() -> None:
    roots: set[str] = set()
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                roots |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                roots.add(node.module.partition(".")[0])
    used = {NAMED.get(root, root.replace("_", "-")) for root in roots - {"tinymim", *sys.stdlib_module_names}}
    core = names(DECLARED["dependencies"])
    assert used - core - EXTRAS.keys() == BROUGHT.keys()
    assert core >= set(BROUGHT.values())
    assert core - used == set(), "declared, and imported nowhere"


def test_dependencies__each_has_its_reason() -> None:
    lines = re.findall(
        r'^    "(?!tinymim)[\w-]+[^\n]*', TEXT.split("[project.scripts]")[0].split("dependencies = [", 1)[1], re.M
    )
    assert len(lines) > 30
    assert [line for line in lines if not re.search(r'",\s+# \S+ \S+', line) and "#" not in line] == []


WITHOUT = [
    ("pandas", "analysis", ["analyze", "digits_mae", "--data", "digits"]),
    ("scipy", "analysis", ["scaling", "digits", "--quick"]),
    ("matplotlib", "analysis", ["papers", "--quick"]),
    ("pyarrow", "parquet", ["predict", "digits_mae", "--images", ".", "--out", "features.parquet"]),
    ("transformers", "hf", ["export", "digits_mae", "--to", "hf"]),
    ("onnxscript", "onnx", ["export", "digits_mae", "--to", "onnx"]),
    ("onnxruntime", "onnx", ["export", "digits_mae", "--to", "onnx", "--quantize", "int8", "--images", "digits"]),
    ("openvino", "openvino", ["export", "digits_mae", "--to", "openvino"]),
    ("pycocotools", "coco", ["fit", "--config", "detect_shapes", "--model.weights=null"]),
    ("transformers", "hf", ["fit", "--config", "segment_shapes"]),
    ("tensorboard", "tensorboard", ["fit", "--config", "mae_digits", "--trainer.logger", "TensorBoardLogger"]),
]


@pytest.mark.parametrize(("package", "extra", "words"), WITHOUT, ids=[f"{a} {c[0]}" for a, _, c in WITHOUT])
def test_missing__is_one_line_before_any_work(
    package: str, extra: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    result = tinymim(*words, cwd=tmp_path)
    refused(result, f"needs {package}, not installed here: pip install 'tinymim[{extra}]'")
    assert list(tmp_path.iterdir()) == []


def test_missing__is_among_the_mistakes_of_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    line, *others = HFData("owner/name", fraction=2.0).problems()
    assert line == "data: HFData needs datasets, not installed here: pip install 'tinymim[hf]'"
    assert others


def test_missing__several_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "installed", lambda package: package == "onnx")
    assert extras.missing("it needs", "onnx") == []
    assert extras.missing("it needs", "onnx", "onnxscript", "openvino") == [
        "it needs onnxscript and openvino, not installed here: pip install 'tinymim[openvino]'"
    ]
    for packages, extra in (
        (("onnxscript", "datasets"), "hf,onnx"),
        (("onnxscript", "onnx"), "onnx"),
        (("onnxscript", "openvino"), "openvino"),
        (("matplotlib",), "report"),
        (("matplotlib", "pandas", "scipy"), "analysis"),
    ):
        assert extras.missing("it needs", *packages)[0].endswith(f"pip install 'tinymim[{extra}]'")
    monkeypatch.setattr(extras, "installed", lambda package: package != "matplotlib")
    assert extras.missing("it needs", "matplotlib", "pandas", "scipy")[0].endswith("'tinymim[analysis]'")
