"""The floors of the package: imports run down only, and a file's name says where a concept lives.

``python -m tests.test_floors`` writes the map of them into docs/architecture.md.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
MAP = PROJECT / "docs" / "architecture.md"

FLOORS = {
    "errors near_names argument_types extras system files seeds safety log device precision": "errors and messages for "
    "people, names near a misspelt one, types of arguments, packages that may be missing, the operating system, whole "
    "files, seeded randomness, safe reading of others' files, device and precision",
    "vit ops": "the Vision Transformer as the project reads it; the relation loss as an operation",
    "targets": "what is distilled: relations, features, attention, CLS, logits",
    "teachers": "who teaches: cards, public checkpoints, their formats and licences",
    "teacher_cache": "what a teacher gave for views of images, on disk for all runs",
    "data": "images in, batches out, in an order that a resumed run repeats",
    "evaluation": "how good: accuracy on test sets, kNN",
    "methods": "LightningModules that learn without labels: distillation, MAE, SimMIM",
    "tasks": "LightningModules that use labels: classification, segmentation, detection, scenes",
    "modules": "old class paths of methods and tasks",
    "config": "recipes: composed, overridden, checked as text",
    "training": "one fit, never lost: run folder, checkpoints, exact resume, pre-emption, guard",
    "export": "checkpoints for timm, Hugging Face, ONNX and PyTorch, with a model card",
    "report": "Markdown, HTML and figures; the page of a run",
    "analysis scaling": "what networks learned; what a table of runs shows",
    "experiments": "many fits as one plan: chains, studies, grids, comparisons, the papers",
    "cli": "one file a command",
}
"""Floors from low to high, packages and modules of each; an import runs down, or stays on its floor."""


def modules() -> dict[str, Path]:
    """Every file of the package by its dotted name below ``tinymim``."""
    files = sorted((PROJECT / "tinymim").rglob("*.py"))
    return {".".join(path.relative_to(PROJECT / "tinymim").with_suffix("").parts): path for path in files}


def imports() -> dict[str, set[str]]:
    """The files of the package that each one imports when it runs, at its top or inside of a function."""
    known, found = modules(), defaultdict(set)
    for name, path in known.items():
        tree = ast.parse(path.read_text())
        tree.body = [node for node in tree.body if not ast.unparse(node).startswith("if TYPE_CHECKING")]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tinymim":
                module = (node.module or "").removeprefix("tinymim").lstrip(".")
                for alias in node.names:
                    inner = f"{module}.{alias.name}".lstrip(".")
                    face = f"{module}.__init__".lstrip(".")
                    found[name] |= {next((n for n in (inner, module, face) if n in known), name)} - {name}
    return found


def floor(module: str) -> int:
    """Number of the floor that a file is on, from 0."""
    if module in ("__init__", "__main__"):
        return len(FLOORS)
    return next(number for number, names in enumerate(FLOORS) if module.split(".")[0] in names.split())


def test_imports__run_down() -> None:
    upward = {f"{a} -> {b}" for a, inner in imports().items() for b in inner if floor(b) > floor(a) and b != "__init__"}
    assert upward == set()


def test_imports__no_circle() -> None:
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        raise AssertionError(f"files import each other: {' -> '.join(error.args[1])}") from None


def test_names__a_file_and_a_class_are_called_so_once() -> None:
    stems = Counter(name.rpartition(".")[2] for name in modules() if not name.endswith(("__init__", ".base")))
    classes = Counter(
        node.name
        for path in modules().values()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in (*stems.items(), *classes.items()) if count > 1} == set()


def test_files__none_is_long() -> None:
    long = {name for name, path in modules().items() if len(path.read_text().splitlines()) > 300}
    assert long == set()


def picture() -> str:
    """The floors as a table, highest first, and their packages' sentences."""
    rows = [f"| {', '.join(f'`{name}`' for name in names.split())} | {what} |" for names, what in FLOORS.items()]
    return "\n".join(["| floor | holds |", "|---|---|", *reversed(rows)])


def test_map__is_made_from_this_list() -> None:
    assert picture() in MAP.read_text(), "python -m tests.test_floors"


def test_map__names_what_is_there() -> None:
    named = re.findall(r"`((?:\w+/)+(?:\w+\.py)?|\w+\.py)`", MAP.read_text())
    missing = [name for name in named if not (PROJECT / "tinymim" / name).exists() and "NAME" not in name]
    assert [name for name in missing if not (PROJECT / name).exists()] == []


if __name__ == "__main__":
    before, begin, rest = MAP.read_text().partition("<!-- floors -->\n")
    _, end, after = rest.partition("<!-- end of floors -->")
    MAP.write_text(f"{before}{begin}{picture()}\n{end}{after}")
