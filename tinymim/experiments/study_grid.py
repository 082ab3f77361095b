"""A study as written in ``recipes/studies/NAME.yaml``: rows to train, and questions that lay some of them side by side.

seeds        list; every row is trained once for each
about        a few sentences for the report
budget       overrides of every pre-training, as ``{trainer.max_epochs: 10}``
stages       name: ``{recipe, set}``: what every row's weights are used for, such as probe and finetune
figures      title: ``{stage, metric, unit, better}``: the columns; ``metric`` as logged, such as ``val/top1``, ``unit``
             ``%`` (of a share) or another, ``better`` higher or lower; by default 10-NN, linear probe and fine-tuned. A
             figure of ``pretrain`` is there for the rows that have one
curves       id: ``{title, stage, loss}``: what is drawn against steps; by default ``loss`` of every stage
prepare      id: ``{title, recipe, set}``: fits that come first, once and with seed 0, whatever the seeds are;
             ``${prepare.ID}`` in a row or in another of them is the checkpoint
rows         id: ``{title, recipe, set, weights, later}``: a way to pre-train the student. With ``recipe: null`` the
             later stages start from ``weights`` (a card, a path, ``${prepare.ID}``), or without them from random ones;
             ``later`` is overrides of all of them
questions    id: ``{title, source, expects, rows, paper, figures, against, claims}``
               title    the question
               rows     ids of the rows side by side, or ``{ID: another title}``
               source   the table of the paper it repeats
               expects  what the paper found, in words
               paper    its figure for each row that it has, as ``{ID: 75.8}``; higher is better
               figures  titles of those it shows; without it all. Its curves are those of their stages
               against  ``{TITLE: TITLE}``, figures whose orders of the rows are compared
               claims   list of ``{figure: TITLE, better: ROW, than: ROW}``, findings of the paper that are checked
settings     a file of ``recipes/settings``: what a search has chosen for each row, laid over the ``set`` of stages
search       how they are chosen, see ``tinymim/experiments/search.py``
quick        laid over all of the above by ``--quick``
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tinymim import precision
from tinymim.config import recipe, references, validation
from tinymim.config import spec as outline
from tinymim.config.spec import shortened, texts
from tinymim.errors import TinymimError, several
from tinymim.experiments import cells, settings, study_text
from tinymim.experiments.cells import Figure, Stage
from tinymim.experiments.question import Claim, Curve, Question, Row
from tinymim.experiments.settings import Settings
from tinymim.experiments.study_text import PREPARED
from tinymim.training import preflight

Definition = dict[str, Any]


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
    figures: dict[str, Figure]
    curves: dict[str, Curve]
    precision: str | None = None
    """Of the fits whose recipe says ``auto``; ``None`` leaves it open."""
    settings: Settings = field(default_factory=Settings)
    search: dict[str, Any] = field(default_factory=dict)
    shared: list[str] = field(default_factory=list)
    asked: str = ""
    _definitions: dict[str, Definition] = field(default_factory=dict)

    def stages(self, row: str, place: Path, cell: Path) -> list[Stage]:
        """The fits of a row's cell, or of a prepared one.

        Args:
            row: id of a row, or of an entry of ``prepare``.
            place: the study's folder, where the prepared checkpoints lie.
            cell: the cell's folder.
        """

        def filled(text: str) -> str:
            return PREPARED.sub(lambda m: str(prepared(place, m[1])), text)

        return [self._settled(stage) for stage in self._written(row, filled, cell)]

    def _settled(self, stage: Stage) -> Stage:
        try:
            open_ = self.precision is not None and precision.is_auto(resolved(stage))
        except TinymimError:  # which :meth:`problems` tells with all others
            open_ = False
        return replace(stage, overrides=(*stage.overrides, f"--trainer.precision={self.precision}")) if open_ else stage

    def _written(self, row: str, filled: Callable[[str], str], cell: Path) -> list[Stage]:
        own = self.row(row)
        overrides = [filled(text) for text in own.overrides]
        if row in self.prepare:
            return [Stage("fit", str(own.recipe), tuple(overrides))]
        above = [*self.shared, *(filled(text) for text in own.later)]
        later = [
            replace(stage, overrides=(*stage.overrides, *self.settings.texts(own.known, stage.name), *above))
            for stage in self.later
        ]
        return cells.chain(own.recipe, overrides, later, cell, filled(own.weights) if own.weights else None)

    def remarks(self, question: Question) -> list[str]:
        """The settings of a question's rows, for the end of its table."""
        shown = {figure.stage for figure in self.shown(question).values()}
        stages = [stage.name for stage in self.later if stage.name in shown]
        if not self.settings.source and not self.search:
            return []
        rows = {self.rows[row].known: title for row, title in question.rows.items()}
        return self.settings.remarks(rows, stages, self.asked)

    def shown(self, question: Question) -> dict[str, Figure]:
        """The figures of a question."""
        return {title: self.figures[title] for title in question.figures or self.figures}

    def needed(self, rows: list[str]) -> list[str]:
        """The prepared fits behind ``rows``, each behind those it needs itself."""
        found: dict[str, None] = {}
        for row in rows:
            needs = self.row(row).needs
            found |= dict.fromkeys([*self.needed(needs), *needs])
        return list(found)

    def row(self, id: str) -> Row:
        """A row, or an entry of ``prepare``."""
        return self.prepare[id] if id in self.prepare else self.rows[id]

    def settle(self, recorded: Iterable[Definition]) -> None:
        """Settle what ``auto`` is here: what it was when cells were begun, on any machine, or is now.

        Args:
            recorded: the definitions of cells that are there.
        """
        if before := precision.first(config for one in recorded for config in one.values()):
            self.precision = before
        for row in self.rows:
            for stage in self.stages(row, Path(), Path("cell")):
                with contextlib.suppress(TinymimError):
                    settled = precision.settle(references.filled(resolved(stage)))
                    if self.precision is None and precision.is_auto(resolved(stage)):
                        self.precision = precision.of(settled)

    def definition(self, row: str) -> Definition:
        """Everything that decides a row's figures but the seed: the resolved recipe of each of its fits.

        Raises:
            TinymimError: an unknown recipe, or an override that is not YAML.
        """
        if row in self._definitions:
            return self._definitions[row]
        content: Definition = {}
        for stage in self.stages(row, Path(), Path("cell")):
            content[stage.name] = {k: v for k, v in resolved(stage).items() if k not in ("name", "compare", "run_dir")}
        for need in self.row(row).needs:
            content[f"prepare.{need}"] = self.definition(need)
        self._definitions[row] = json.loads(json.dumps(content))  # as it will be read from a file again
        return self._definitions[row]

    def problems(self, rows: list[str]) -> list[str]:
        """Every mistake in the recipes of ``rows`` and of what they need, found without loading anything heavy."""
        found: list[str] = []
        seen: set[Stage] = set()  # all rows share their later stages
        for row in [*self.needed(rows), *rows]:
            for stage in self.stages(row, Path(), Path("cell")):
                if stage in seen:
                    continue
                seen.add(stage)
                mistakes = self.mistakes(row, stage)
                if mistakes and (own := self.settings.texts(self.row(row).known, stage.name)):
                    plain = replace(stage, overrides=tuple(text for text in stage.overrides if text not in own))
                    before = self.mistakes(row, plain)
                    mistakes = [m if m in before else f"{self.settings.source}: {m}" for m in mistakes]
                found += [f"{row}, {stage.name}: {mistake}" for mistake in mistakes]
        return found + self._unsettled()

    def mistakes(self, row: str, stage: Stage) -> list[str]:
        """Those of a row's stage; where it starts from a file that is yet to be written, those of its text."""
        to_come = ["cell/pretrain/", *(str(prepared(Path(), need)) for need in self.row(row).needs)]
        try:
            config = resolved(stage)
            unseen = any(path in text for path in to_come for text in stage.overrides)
            return validation.mistakes(config)[0] if unseen else preflight.problems(config)
        except TinymimError as error:
            return [str(error)]

    def _unsettled(self) -> list[str]:
        """Rows and stages in the file of settings that are not of this study are of another; of its own rows, stages
        that it lacks are mistakes."""
        stages = [stage.name for stage in self.later]
        return [
            f"{self.settings.source}: rows.{row.known}.{stage}: no such stage{outline.near(stage, stages)}"
            for row in self.rows.values()
            for stage in self.settings.rows.get(row.known, {})
            if stage not in stages
        ]


@functools.cache
def resolved(stage: Stage) -> recipe.Config:
    """The whole recipe of a stage."""
    return recipe.resolve(["--config", stage.recipe, *stage.overrides])[0]


def prepared(place: Path, name: str) -> Path:
    """The checkpoint that the entry ``name`` of ``prepare`` leaves in the study's folder."""
    return place / "prepare" / name / "fit" / "checkpoints" / "last.ckpt"


def load(name: str, quick: bool = False, overrides: list[str] | None = None, searching: bool = False) -> Study:
    """Read a study.

    Args:
        name: of a file in ``recipes/studies``, or a path.
        quick: lay its ``quick`` part over it.
        overrides: as for :func:`parse`.
        searching: likewise.

    Raises:
        TinymimError: no such study, or mistakes in it, all of them together.
    """
    path = outline.find("study", name)
    content = shortened(outline.read(path, "study", "rows and questions"), path, quick)
    study = parse(content, path.stem, str(path), overrides or [], searching)
    study.asked = f"tinymim search {name}{' --quick' if quick else ''}"
    return study


def parse(content: dict[str, Any], name: str, source: str, given: list[str], searching: bool = False) -> Study:
    """The study that a file's content describes.

    Args:
        content: as the file has it.
        name: of the study.
        source: where the content comes from, for the error.
        given: overrides of every pre-training; those in :data:`cells.SHARED` reach the other fits too.
        searching: leave the settings out that a search is about to find; their file may be missing.

    Raises:
        TinymimError: mistakes in it, all of them together.
    """
    if found := study_text.mistakes(content):
        raise several(f"{source} has {len(found)} mistake(s)", found)
    shared = [text for text in given if text.removeprefix("--").startswith(cells.SHARED)]
    budget = content.get("budget") or {}
    rows = {id: _row(id, spec, texts(budget), given) for id, spec in content["rows"].items()}
    stages = content["stages"]
    return Study(
        name=name,
        seeds=content["seeds"],
        about=content.get("about", "").strip(),
        budget=budget,
        later=[Stage(stage, spec["recipe"], tuple(texts(spec.get("set")))) for stage, spec in stages.items()],
        prepare={id: _row(id, spec, [], shared) for id, spec in (content.get("prepare") or {}).items()},
        rows=rows,
        questions={id: _question(spec, rows) for id, spec in content["questions"].items()},
        figures={title: Figure(**spec) for title, spec in (content.get("figures") or {}).items()} or cells.FIGURES,
        curves={
            id: Curve(**{"title": id, **spec})
            for id, spec in (content.get("curves") or {stage: {"stage": stage} for stage in stages}).items()
        },
        settings=Settings() if searching else settings.load(content.get("settings")),
        search=content.get("search") or {},
        shared=shared,
    )


def _row(id: str, spec: dict[str, Any], below: list[str], above: list[str]) -> Row:
    above_all = [*below, *texts(spec.get("set")), *above] if spec.get("recipe") else []
    weights, later = spec.get("weights"), texts(spec.get("later"))
    needs = dict.fromkeys(name for text in [*above_all, weights or "", *later] for name in PREPARED.findall(text))
    return Row(spec.get("title", id), spec.get("recipe"), above_all, list(needs), weights, later, spec.get("known", id))


def _question(spec: dict[str, Any], rows: dict[str, Row]) -> Question:
    titles = {row: _title(spec["rows"], row) or rows[row].title for row in spec["rows"]}
    return Question(**{**spec, "rows": titles, "claims": [Claim(**claim) for claim in spec.get("claims") or []]})


def _title(rows: list[str] | dict[str, str], row: str) -> str | None:
    return rows[row] if isinstance(rows, dict) else None
