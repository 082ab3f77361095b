"""Check the text of a study, before any of its recipes is looked at."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from msgspec.structs import asdict

from tinymim.experiments import schema
from tinymim.experiments.convergence import titles
from tinymim.experiments.questions import FIGURES, PRETRAIN
from tinymim.near_names import near

COMBINATIONS = 10_000
PREPARED = re.compile(r"\$\{prepare\.(\w+)\}")


def mistakes(content: dict[str, Any]) -> list[str]:
    """All of them, a line each; of keys and types first, and of what names what once those are right."""
    errors = schema.mistakes(content, schema.StudyText)
    return errors or [*_columns(content), *_ways(content), *_questions(content), *_search(content)]


def _columns(content: dict[str, Any]) -> list[str]:
    """Mistakes in stages, figures and curves."""
    errors, stages = [], content["stages"]
    for id in stages:
        if id == PRETRAIN or not re.fullmatch(r"\w+", id):
            errors.append(f"stages.{id}: is a folder's name, of letters, digits and _, and not {PRETRAIN}; rename it")
    if not content.get("figures"):
        missing = {figure.stage for figure in FIGURES.values()} - stages.keys()
        named = ", ".join(FIGURES)
        errors += [f"stages: {stage} missing; name the study's figures, or it has {named}" for stage in sorted(missing)]
    known = {"figures": [*stages, PRETRAIN], "curves": list(stages)}
    return errors + [
        f"{part}.{id}.stage: no stage {spec['stage']!r}{near(spec['stage'], names)}"
        for part, names in known.items()
        for id, spec in (content.get(part) or {}).items()
        if spec["stage"] not in names
    ]


def _ways(content: dict[str, Any]) -> list[str]:
    """Mistakes in rows and in what is prepared for them."""
    errors = []
    prepared, rows = content.get("prepare") or {}, content["rows"]
    needs = {}
    for part, specs in (("prepare", prepared), ("rows", rows)):
        for id, spec in specs.items():
            needs[id] = PREPARED.findall(json.dumps(spec))
            missing = [name for name in needs[id] if name not in prepared]
            errors += [f"{part}.{id}: ${{prepare.{name}}} is not in prepare" for name in missing]
    for id in prepared:
        errors += [f"prepare.{id}: a row has this name too; rename one"] if id in rows else []
        behind = list(needs[id])
        for name in behind:  # which grows by what each of them needs
            behind += [other for other in needs.get(name, []) if other not in behind]
        if id in behind:
            errors.append(f"prepare.{id}: needs itself, by way of {', '.join(dict.fromkeys(behind))}")
    for id, spec in rows.items():
        if spec.get("recipe") and spec.get("weights"):
            errors.append(
                f"rows.{id}.weights: the later stages start from what its recipe leaves; let recipe be null, or start "
                "the recipe from them in its `set`"
            )
        if spec.get("set") and not spec.get("recipe"):
            errors.append(f"rows.{id}.set: overrides of its recipe, and it has none; `later` is of the later stages")
    return errors


def _search(content: dict[str, Any]) -> list[str]:
    """Mistakes in how settings are searched, and where they lie."""
    search, errors = content.get("search") or {}, []
    if search and not content.get("settings"):
        errors.append("search: needs `settings`, the file that it writes")
    grid = search.get("grid") or {}
    if search and not grid:
        return [*errors, f"search.grid: {grid!r} is not a mapping of stages"]
    by = search.get("by") or {}
    figures = content.get("figures") or {title: asdict(figure) for title, figure in FIGURES.items()}
    for stage, tried in grid.items():
        where = f"search.grid.{stage}"
        if stage not in content["stages"]:
            errors.append(f"{where}: no such stage{near(stage, content['stages'])}")
        elif by.get(stage) is not None and figures.get(by[stage], {}).get("stage") != stage:
            errors.append(f"search.by.{stage}: {by[stage]!r} is no figure of this stage")
        elif all(figure["stage"] != stage for figure in figures.values()):
            errors.append(f"{where}: no figure is of this stage, so none can choose")
        if (count := sum(math.prod(map(len, grid.values())) for grid in schema.mappings(tried))) > COMBINATIONS:
            errors.append(f"{where}: {count:,} combinations, and each is fitted; at most {COMBINATIONS:,} are taken")
    return errors


def _questions(content: dict[str, Any]) -> list[str]:
    errors = []
    figures = list(content.get("figures") or FIGURES)
    curves = content.get("curves") or {stage: {} for stage in content["stages"]}
    claimable = [*figures, *(title for id, spec in curves.items() for title in titles(spec.get("title", id)))]
    for id, spec in content["questions"].items():
        rows = spec.get("rows") or []
        where = f"questions.{id}"
        errors += [f"{where}: no row {row!r}{near(row, content['rows'])}" for row in rows if row not in content["rows"]]
        errors += [
            f"{where}.paper: {row!r} is not among its rows" for row in spec.get("paper") or {} if row not in rows
        ]
        named = spec.get("figures") or figures
        errors += [f"{where}.figures: no figure {name!r}{near(name, figures)}" for name in named if name not in figures]
        pairs = [name for pair in (spec.get("against") or {}).items() for name in pair]
        errors += [f"{where}.against: no figure {name!r}{near(name, named)}" for name in pairs if name not in named]
        for number, claim in enumerate(spec.get("claims") or [], start=1):
            place = f"{where}.claims, number {number}"
            if claim["figure"] not in claimable:
                errors.append(f"{place}: no figure {claim['figure']!r}{near(claim['figure'], claimable)}")
            errors += [
                f"{place}: {claim[key]!r} is not among its rows" for key in ("better", "than") if claim[key] not in rows
            ]
    return errors
