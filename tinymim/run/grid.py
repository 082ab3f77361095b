"""A study as written in ``recipes/studies/NAME.yaml``: rows to train, and questions that lay some of them side by side.

seeds        list; every row is trained once for each
about        a few sentences for the report
budget       overrides of every pre-training, as ``{trainer.max_epochs: 10}``
stages       probe and finetune: ``{recipe, set}``, the same for every row
prepare      id: ``{title, recipe, set}``: fits that come first; ``${prepare.ID}`` in a row is the checkpoint
rows         id: ``{title, recipe, set}``: a way to pre-train the student; ``recipe: null`` leaves it random
questions    id: ``{title, source, expects, rows, paper}``; ``rows`` is a list, or gives them titles of their own;
             ``paper`` is its figure for some of the rows
quick        laid over all of the above by ``--quick``
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinymim import recipes
from tinymim.errors import TinymimError, several
from tinymim.run import cells, outline, preflight
from tinymim.run.cells import Stage
from tinymim.run.outline import laid_over, near, texts, unknown

KEYS = {
    "": {"seeds", "about", "budget", "stages", "prepare", "rows", "questions", "quick"},
    "stages": {"recipe", "set"},
    "prepare": {"title", "recipe", "set"},
    "rows": {"title", "recipe", "set"},
    "questions": {"title", "source", "expects", "rows", "paper"},
}
PREPARED = re.compile(r"\$\{prepare\.(\w+)\}")

Definition = dict[str, Any]


@dataclass
class Row:
    """One way to pre-train: what it is called, the recipe (``None``: none), overrides, and the prepared fits it
    needs."""

    title: str
    recipe: str | None
    overrides: list[str]
    needs: list[str] = field(default_factory=list)


@dataclass
class Question:
    """Rows side by side.

    Args:
        title: the question.
        rows: what each row is called here, by id.
        source: the table of the paper it repeats, or empty.
        expects: what the paper found, in words.
        paper: its figure for each row that it has.
    """

    title: str
    rows: dict[str, str]
    source: str = ""
    expects: str = ""
    paper: dict[str, float] = field(default_factory=dict)


@dataclass
class Study:
    """A parsed study; see the top of this file."""

    name: str
    seeds: list[int]
    about: str
    budget: dict[str, Any]
    later: list[Stage]
    prepare: dict[str, Row]
    rows: dict[str, Row]
    questions: dict[str, Question]
    _definitions: dict[str, Definition] = field(default_factory=dict)

    def stages(self, row: str, place: Path, cell: Path) -> list[Stage]:
        """The fits of a row's cell, or of a prepared one.

        Args:
            row: id of a row, or of an entry of ``prepare``.
            place: the study's folder, where the prepared checkpoints lie.
            cell: the cell's folder.
        """
        if row in self.prepare:
            fit = self.prepare[row]
            return [Stage("fit", str(fit.recipe), tuple(fit.overrides))]
        own = self.rows[row]
        overrides = [PREPARED.sub(lambda m: str(prepared(place, m[1])), text) for text in own.overrides]
        return cells.chain(own.recipe, overrides, self.later, cell)

    def definition(self, row: str) -> Definition:
        """Everything that decides a row's figures but the seed: the resolved recipe of each of its fits.

        Raises:
            TinymimError: an unknown recipe, or an override that is not YAML.
        """
        if row in self._definitions:
            return self._definitions[row]
        content: Definition = {}
        for stage in self.stages(row, Path(), Path("cell")):
            content[stage.name] = {k: v for k, v in _resolved(stage).items() if k not in ("name", "compare", "run_dir")}
        for need in self.rows[row].needs if row in self.rows else []:
            content[f"prepare.{need}"] = self.definition(need)
        self._definitions[row] = json.loads(json.dumps(content))  # as it will be read from a file again
        return self._definitions[row]

    def problems(self, rows: list[str]) -> list[str]:
        """Every mistake in the recipes of ``rows`` and of what they need, found without loading anything heavy."""
        found: list[str] = []
        needed = dict.fromkeys(need for row in rows for need in self.rows[row].needs)
        seen: set[Stage] = set()  # all rows share their later stages
        for row in [*needed, *rows]:
            for stage in self.stages(row, Path(), Path("cell")):
                if stage in seen:
                    continue
                seen.add(stage)
                try:
                    config = _resolved(stage)
                    later = any("weights=cell" in text for text in stage.overrides)  # of a checkpoint yet to come
                    unseen = later or (stage.name == "pretrain" and bool(self.rows[row].needs))
                    mistakes = recipes.mistakes(config)[0] if unseen else preflight.problems(config)
                except TinymimError as error:
                    mistakes = [str(error)]
                found += [f"{row}, {stage.name}: {mistake}" for mistake in mistakes]
        return found


@functools.cache
def _resolved(stage: Stage) -> recipes.Config:
    return recipes.resolve(["--config", stage.recipe, *stage.overrides])[0]


def prepared(place: Path, name: str) -> Path:
    """The checkpoint that the entry ``name`` of ``prepare`` leaves in the study's folder."""
    return place / "prepare" / name / "fit" / "checkpoints" / "last.ckpt"


def load(name: str, quick: bool = False, overrides: list[str] | None = None) -> Study:
    """Read a study.

    Args:
        name: of a file in ``recipes/studies``, or a path.
        quick: lay its ``quick`` part over it.
        overrides: of every pre-training; those in :data:`cells.SHARED` reach the other fits too.

    Raises:
        TinymimError: no such study, or mistakes in it, all of them together.
    """
    path = outline.find("study", name)
    content = outline.read(path, "study", "rows and questions")
    brief = content.pop("quick", None)
    if quick:
        if not brief:
            raise TinymimError(f"--quick: {path} has no `quick` part that says what is shorter")
        content = laid_over(content, brief)
    if found := _mistakes(content):
        raise several(f"{path} has {len(found)} mistake(s)", found)
    given = overrides or []
    shared = [text for text in given if text.removeprefix("--").startswith(cells.SHARED)]
    budget = content.get("budget") or {}
    rows = {id: _row(id, spec, texts(budget), given) for id, spec in content["rows"].items()}
    return Study(
        name=path.stem,
        seeds=content["seeds"],
        about=content.get("about", "").strip(),
        budget=budget,
        later=[
            Stage(stage, spec["recipe"], (*texts(spec.get("set")), *shared))
            for stage, spec in content["stages"].items()
        ],
        prepare={id: _row(id, spec, [], shared) for id, spec in (content.get("prepare") or {}).items()},
        rows=rows,
        questions={
            id: Question(
                **{**spec, "rows": {row: _title(spec["rows"], row) or rows[row].title for row in spec["rows"]}}
            )
            for id, spec in content["questions"].items()
        },
    )


def _row(id: str, spec: dict[str, Any], below: list[str], above: list[str]) -> Row:
    settings = [*below, *texts(spec.get("set")), *above] if spec.get("recipe") else []
    needs = dict.fromkeys(name for text in settings for name in PREPARED.findall(text))
    return Row(spec.get("title", id), spec.get("recipe"), settings, list(needs))


def _title(rows: list[str] | dict[str, str], row: str) -> str | None:
    return rows[row] if isinstance(rows, dict) else None


def _mistakes(content: dict[str, Any]) -> list[str]:
    """What is wrong with the text of a study."""
    found = [f"{key}: missing" for key in ("seeds", "stages", "rows", "questions") if not content.get(key)]
    found += unknown(content, "", KEYS[""])
    if found:
        return found
    if not isinstance(content["seeds"], list) or not all(isinstance(seed, int) for seed in content["seeds"]):
        found.append(f"seeds: {content['seeds']!r} is not a list of whole numbers")
    for part in ("stages", "prepare", "rows", "questions"):
        for id, spec in (content.get(part) or {}).items():
            if not isinstance(spec, dict):
                found.append(f"{part}.{id}: {spec!r} is not a mapping of {', '.join(sorted(KEYS[part]))}")
                continue
            found += unknown(spec, f"{part}.{id}", KEYS[part])
            if part in ("stages", "prepare") and not spec.get("recipe"):
                found.append(f"{part}.{id}: names no recipe")
            if part == "prepare" and id in content["rows"]:
                found.append(f"prepare.{id}: a row has this name too; rename one")
    if found:
        return found
    if missing := {stage for stage, _ in cells.FIGURES.values()} - content["stages"].keys():
        found.append(f"stages: {', '.join(sorted(missing))} missing")
    for id, spec in content["rows"].items():
        for name in PREPARED.findall(json.dumps(spec)):
            if name not in (content.get("prepare") or {}):
                found.append(f"rows.{id}: ${{prepare.{name}}} is not in prepare")
    for id, spec in content["questions"].items():
        rows = spec.get("rows") or []
        found += [
            f"questions.{id}: no row {row!r}{near(row, content['rows'])}" for row in rows if row not in content["rows"]
        ]
        found += [
            f"questions.{id}.paper: {row!r} is not among its rows" for row in spec.get("paper") or {} if row not in rows
        ]
        found += [] if spec.get("title") and rows else [f"questions.{id}: needs a title and rows"]
    return found
