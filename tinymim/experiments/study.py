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

RUN/cells/ROW/seedN/STAGE  the fits of a row
RUN/prepare/NAME/fit       fits that rows need first
RUN/study.md, study.json   everything, written anew after each finished cell
RUN/tables/                QUESTION.md, QUESTION.csv and QUESTION_convergence.csv, likewise
RUN/index.html, curves/    the page with the curves, once all cells have run
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tinymim.config import spec as outline
from tinymim.config.spec import shortened, texts
from tinymim.errors import TinymimError, mistaken
from tinymim.experiments import settings as settings_file
from tinymim.experiments import study_check
from tinymim.experiments.plan import CHECKPOINT, Fit, Plan, Stage, in_order, resolved
from tinymim.experiments.questions import FIGURES, PRETRAIN, Claim, Comparison, Curve, Figure, Question
from tinymim.experiments.settings import Settings
from tinymim.experiments.study_check import PREPARED
from tinymim.near_names import near

SHARED = ("data", "vars", "trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.precision")
"""Overrides that every fit takes, whichever recipe they were given for."""

CELL = f"cell/{PRETRAIN}/{CHECKPOINT}"
"""Stands in the recipes of a row's later stages for the weights that its pre-training leaves."""


@dataclass
class Row:
    """A way to pre-train, or a fit that is prepared; ``known`` is what files of settings call it."""

    title: str
    recipe: str | None
    overrides: list[str]
    weights: str | None
    later: list[str]
    known: str


@dataclass(frozen=True)
class Written:
    """A recipe and its overrides, as a fit of a row takes them."""

    recipe: str
    overrides: tuple[str, ...]

    def stage(self, name: str, row: str) -> Stage:
        """The stage of that name, of a row.

        Raises:
            TinymimError: an unknown recipe, or an override that is not YAML.
        """
        config = resolved(self.recipe, self.overrides)
        content = json.dumps(config)
        sources = {prepared(id): f"prepare/{id}/fit" for id in REFERENCE.findall(content)}
        if CELL in content:
            sources[CELL] = f"{row}/{PRETRAIN}"
        options = (config.get("model") or {}).get("init_args") or {}
        start = options.get("teacher") or options.get("weights")
        parent = sources.get(start) if isinstance(start, str) else None
        return Stage(
            name, "fit", self.recipe, config, parent or (start if isinstance(start, str) else None), parent, sources
        )


@dataclass
class Study:
    """A parsed study; see the top of this file.

    Args:
        rows: by id, and what is prepared for them.
        later: what every row's weights are used for.
        shared: overrides of every fit.
        cells: the fits of each row under each seed.
    """

    plan: Plan
    compared: Comparison
    rows: dict[str, Row]
    later: dict[str, Written]
    budget: dict[str, Any]
    search: dict[str, Any]
    shared: list[str]
    cells: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    def keys(self, rows: Iterable[str]) -> list[str]:
        """The fits of some rows, one seed after the other."""
        wanted = set(rows)
        return [key for (row, _), keys in self.cells.items() if row in wanted for key in keys]


def load(name: str, quick: bool = False, overrides: list[str] | None = None, seeds: list[int] | None = None) -> Study:
    """Read a study.

    Args:
        name: of a file in ``recipes/studies``, or a path.
        quick: lay its ``quick`` part over it.
        overrides: of every pre-training; those in :data:`SHARED` reach the other fits too.
        seeds: in place of the study's.

    Raises:
        TinymimError: no such study, or mistakes in it, all of them together.
    """
    path = outline.find("study", name)
    content = shortened(outline.read(path, "study", "rows and questions"), path, quick)
    study = parse(content, path.stem, str(path), overrides or [], seeds)
    study.compared.search = f"tinymim search {name}{' --quick' if quick else ''}"
    return study


def parse(
    content: dict[str, Any],
    name: str,
    source: str,
    overrides: list[str],
    seeds: list[int] | None = None,
    searching: bool = False,
    folder: Callable[[str, int], str] = "cells/{}/seed{}".format,
) -> Study:
    """The study that a file's content describes.

    Args:
        content: as the file has it.
        name: of the study.
        source: where the content comes from, for the error.
        overrides, seeds: as for :func:`load`.
        searching: leave the settings out that a search is about to find; their file may be missing.
        folder: of a row's fits under a seed.

    Raises:
        TinymimError: mistakes in it, all of them together.
    """
    if errors := study_check.mistakes(content):
        raise mistaken(str(source), errors)
    shared = [text for text in overrides if text.removeprefix("--").startswith(SHARED)]
    budget = content.get("budget") or {}
    rows = {id: _row(id, spec, texts(budget), overrides) for id, spec in content["rows"].items()}
    prepare = {id: _row(id, spec, [], shared) for id, spec in (content.get("prepare") or {}).items()}
    later = {id: Written(spec["recipe"], tuple(texts(spec.get("set")))) for id, spec in content["stages"].items()}
    chosen = Settings() if searching else settings_file.load(content.get("settings"))
    errors = _unknown_stages(chosen, rows, list(later))
    fits = {f"prepare/{id}/fit": (id, Written(str(row.recipe), tuple(row.overrides))) for id, row in prepare.items()}
    for id, row in rows.items():
        fits |= {f"{id}/{role}": (id, fit) for role, fit in written(row, later, chosen, shared).items()}
    stages: dict[str, Stage] = {}
    for stage, (id, fit) in fits.items():
        try:
            stages[stage] = fit.stage(stage, id)
        except TinymimError as error:
            errors.append(f"{stage}: {error}")
    if errors:
        raise mistaken(str(source), list(dict.fromkeys(errors)))
    stages = in_order(stages)
    seeds = seeds or content["seeds"]
    cells = {
        (row, seed): [f"{folder(row, seed)}/{role}" for role in (PRETRAIN, *later) if f"{row}/{role}" in stages]
        for seed in seeds
        for row in rows
    }
    of_cells = {
        key: Fit(f"{row}/{key.rpartition('/')[2]}", seed) for (row, seed), keys in cells.items() for key in keys
    }
    of_all = {f"prepare/{id}/fit": Fit(f"prepare/{id}/fit", 0) for id in prepare} | of_cells
    about = (content.get("about") or "").strip()
    plan = Plan(name, stages, about, list(seeds), settings=chosen, kind="study", fits=of_all)
    named = content.get("curves") or {stage: {"stage": stage} for stage in later}
    compared = Comparison(
        rows={row: {role: f"{row}/{role}" for role in (PRETRAIN, *later) if f"{row}/{role}" in stages} for row in rows},
        questions={id: _question(spec, rows) for id, spec in content["questions"].items()},
        figures={title: Figure(**spec) for title, spec in (content.get("figures") or {}).items()} or FIGURES,
        curves={id: Curve(**{"title": id, **spec}) for id, spec in named.items()},
        known={id: row.known for id, row in rows.items()},
        settings=chosen if content.get("settings") or content.get("search") else None,
        search=f"tinymim search {name}",
    )
    return Study(plan, compared, rows | prepare, later, budget, content.get("search") or {}, shared, cells)


def written(row: Row, later: dict[str, Written], chosen: Settings, shared: list[str]) -> dict[str, Written]:
    """The fits of a row: its pre-training, if it has one, and the later stages, which start from what that leaves."""
    weights = CELL if row.recipe else row.weights
    start = [f"--model.init_args.weights={weights}", "--model.init_args.architecture=null"] if weights else []
    fits = {PRETRAIN: Written(row.recipe, tuple(row.overrides))} if row.recipe else {}
    for role, fit in later.items():
        settings = [*fit.overrides, *chosen.texts(row.known, role), *shared, *row.later, *start]
        fits[role] = Written(fit.recipe, tuple(settings))
    return fits


def prepared(id: str) -> str:
    """The path that stands for the checkpoint of a prepared fit."""
    return f"prepare/{id}/fit/{CHECKPOINT}"


REFERENCE = re.compile(prepared('([^/"]+)').replace(".", r"\."))


def _row(id: str, spec: dict[str, Any], below: list[str], above: list[str]) -> Row:
    settings = [*below, *texts(spec.get("set")), *above] if spec.get("recipe") else []

    def filled(text: str) -> str:
        return PREPARED.sub(lambda match: prepared(match[1]), text)

    weights, later = spec.get("weights"), [filled(text) for text in texts(spec.get("later"))]
    known, start = spec.get("known", id), filled(weights) if weights else None
    return Row(spec.get("title", id), spec.get("recipe"), [filled(text) for text in settings], start, later, known)


def _question(spec: dict[str, Any], rows: dict[str, Row]) -> Question:
    named = spec["rows"] if isinstance(spec["rows"], dict) else {}
    titles = {row: named.get(row) or rows[row].title for row in spec["rows"]}
    return Question(**{**spec, "rows": titles, "claims": [Claim(**claim) for claim in spec.get("claims") or []]})


def _unknown_stages(chosen: Settings, rows: dict[str, Row], stages: list[str]) -> list[str]:
    """Rows in the file of settings that are not of this study are of another; of its own rows, stages that it lacks are
    mistakes."""
    return [
        f"{chosen.source}: rows.{row.known}.{stage}: no such stage{near(stage, stages)}"
        for row in rows.values()
        for stage in chosen.rows.get(row.known, {})
        if stage not in stages
    ]
