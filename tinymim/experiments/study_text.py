"""What is wrong with the text of a study, before any of its recipes is looked at."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from tinymim.config.spec import near, seed_mistakes, unknown
from tinymim.experiments import file_schemas
from tinymim.experiments.convergence import titles
from tinymim.experiments.question import FIGURES, PRETRAIN
from tinymim.safety import names, text
from tinymim.teachers import record_schemas

KEYS = {
    "": {
        "seeds",
        "about",
        "budget",
        "stages",
        "figures",
        "curves",
        "prepare",
        "rows",
        "questions",
        "settings",
        "search",
        "quick",
    },
    "stages": {"recipe", "set"},
    "figures": {"stage", "metric", "unit", "better"},
    "curves": {"title", "stage", "loss"},
    "prepare": {"title", "recipe", "set"},
    "rows": {"title", "recipe", "set", "weights", "later", "known"},
    "questions": {"title", "source", "expects", "rows", "paper", "figures", "against", "claims"},
}
PARTS: dict[str, tuple[type, ...]] = {
    "rows": (list, dict),
    "paper": (dict,),
    "figures": (list,),
    "against": (dict,),
    "claims": (list,),
}
"""Of a question, and what each may be."""

FILES = ("rows", "prepare", "questions")
"""What folders and tables are named after."""

SEARCH = {"share", "seeds", "grid", "by"}
COMBINATIONS = 10_000
CLAIM = {"figure", "better", "than"}
PREPARED = re.compile(r"\$\{prepare\.(\w+)\}")


def mistakes(content: dict[str, Any]) -> list[str]:
    """All of them, a line each; of keys and types first, and of what names what once those are right."""
    try:
        found = _shape(content) or [*_columns(content), *_ways(content), *_questions(content), *_search(content)]
    except text.WRONG:  # a type that nothing above looks for
        found = []
    return found or record_schemas.mistake(content, file_schemas.StudyText, "study")


def _shape(content: dict[str, Any]) -> list[str]:
    found = [f"{key}: missing" for key in ("seeds", "stages", "rows", "questions") if not content.get(key)]
    found += unknown(content, "", KEYS[""])
    if found:
        return found
    found += seed_mistakes(content["seeds"], "seeds")
    for part in [key for key in KEYS if key]:
        specs = content.get(part) or {}
        if not isinstance(specs, dict):
            found.append(f"{part}: {specs!r} is not a mapping of names")
            continue
        for id, spec in specs.items():
            if part in FILES and not names.is_plain(str(id)):
                found.append(f"{part}.{id}: is the name of files and folders, without / and without a dot before it")
            if isinstance(spec, dict):
                found += unknown(spec, f"{part}.{id}", KEYS[part])
            else:
                found.append(f"{part}.{id}: {spec!r} is not a mapping of {', '.join(sorted(KEYS[part]))}")
    return found


def _columns(content: dict[str, Any]) -> list[str]:
    """Of stages, figures and curves."""
    found = []
    stages = content["stages"]
    for id, spec in stages.items():
        found += [] if spec.get("recipe") else [f"stages.{id}: names no recipe"]
        if id == PRETRAIN or not re.fullmatch(r"\w+", id):
            found.append(f"stages.{id}: is a folder's name, of letters, digits and _, and not {PRETRAIN}; rename it")
    if not content.get("figures"):
        missing = {figure.stage for figure in FIGURES.values()} - stages.keys()
        named = ", ".join(FIGURES)
        found += [f"stages: {stage} missing; name the study's figures, or it has {named}" for stage in sorted(missing)]
    for title, spec in (content.get("figures") or {}).items():
        known = [*stages, PRETRAIN]
        found += [f"figures.{title}: names no {key}" for key in ("stage", "metric") if not spec.get(key)]
        if spec.get("stage", PRETRAIN) not in known:
            found.append(f"figures.{title}.stage: no stage {spec['stage']!r}{near(spec['stage'], known)}")
        if spec.get("better", "higher") not in ("higher", "lower"):
            found.append(f"figures.{title}.better: {spec['better']!r} is neither higher nor lower")
        if not isinstance(spec.get("unit", ""), str):
            found.append(f"figures.{title}.unit: {spec['unit']!r} is no text, such as px; % and '' are others")
    for id, spec in (content.get("curves") or {}).items():
        if spec.get("stage") not in stages:
            found.append(f"curves.{id}.stage: no stage {spec.get('stage')!r}{near(str(spec.get('stage')), stages)}")
    return found


def _ways(content: dict[str, Any]) -> list[str]:
    """Of rows and of what is prepared for them."""
    found = []
    prepared, rows = content.get("prepare") or {}, content["rows"]
    needs = {}
    for part, specs in (("prepare", prepared), ("rows", rows)):
        for id, spec in specs.items():
            needs[id] = PREPARED.findall(json.dumps(spec))
            found += [
                f"{part}.{id}: ${{prepare.{name}}} is not in prepare" for name in needs[id] if name not in prepared
            ]
    for id, spec in prepared.items():
        found += [] if spec.get("recipe") else [f"prepare.{id}: names no recipe"]
        found += [f"prepare.{id}: a row has this name too; rename one"] if id in rows else []
        if id in _behind(id, needs):
            found.append(f"prepare.{id}: needs itself, by way of {', '.join(_behind(id, needs))}")
    for id, spec in rows.items():
        if spec.get("recipe") and spec.get("weights"):
            found.append(
                f"rows.{id}.weights: the later stages start from what its recipe leaves; let recipe be null, or start "
                "the recipe from them in its `set`"
            )
        if spec.get("set") and not spec.get("recipe"):
            found.append(f"rows.{id}.set: overrides of its recipe, and it has none; `later` is of the later stages")
    return found


def _search(content: dict[str, Any]) -> list[str]:
    """Of how settings are found, and where they lie."""
    name, search = content.get("settings"), content.get("search") or {}
    found = [] if name is None or isinstance(name, str) else [f"settings: {name!r} names no file of settings"]
    if not isinstance(search, dict):
        return [*found, f"search: {search!r} is not a mapping of {', '.join(sorted(SEARCH))}"]
    found += unknown(search, "search", SEARCH)
    found += ["search: needs `settings`, the file that it writes"] if search and not name else []
    share, seeds, grid = search.get("share", 0.2), search.get("seeds", [0]), search.get("grid") or {}
    if not isinstance(share, float) or not 0 < share < 1:
        found.append(f"search.share: {share!r} is not a share of the training images between 0 and 1")
    found += seed_mistakes(seeds, "search.seeds")
    if search and (not isinstance(grid, dict) or not grid):
        return [*found, f"search.grid: {grid!r} is not a mapping of stages"]
    by = search.get("by") or {}
    figures = content.get("figures") or {title: vars(figure) for title, figure in FIGURES.items()}
    for stage, tried in grid.items():
        where = f"search.grid.{stage}"
        if stage not in content["stages"]:
            found.append(f"{where}: no such stage{near(stage, content['stages'])}")
        elif by.get(stage) is not None and figures.get(by[stage], {}).get("stage") != stage:
            found.append(f"search.by.{stage}: {by[stage]!r} is no figure of this stage")
        elif all(figure["stage"] != stage for figure in figures.values()):
            found.append(f"{where}: no figure is of this stage, so none can choose")
        if not isinstance(tried, dict) or not all(isinstance(values, list) and values for values in tried.values()):
            found.append(f"{where}: {tried!r} is not a mapping such as {{model.optim.base_lr: [0.002, 0.008]}}")
        elif (count := math.prod(map(len, tried.values()))) > COMBINATIONS:
            found.append(f"{where}: {count:,} combinations, and each is fitted; at most {COMBINATIONS:,} are taken")
    return found


def _behind(id: str, needs: dict[str, list[str]]) -> list[str]:
    """Everything that ``id`` needs, at any remove."""
    found: dict[str, None] = {}
    pending = list(needs[id])
    while pending:
        if (name := pending.pop()) not in found:
            found[name] = None
            pending += needs.get(name, [])
    return list(found)


def _questions(content: dict[str, Any]) -> list[str]:
    found = []
    figures = list(content.get("figures") or FIGURES)
    curves = content.get("curves") or {stage: {} for stage in content["stages"]}
    claimable = [*figures, *(title for id, spec in curves.items() for title in titles(spec.get("title", id)))]
    for id, spec in content["questions"].items():
        rows = spec.get("rows") or []
        where = f"questions.{id}"
        wrong = [key for key, kinds in PARTS.items() if not isinstance(spec.get(key) or kinds[0](), kinds)]
        if wrong:
            found += [f"{where}.{key}: {spec[key]!r} is no {PARTS[key][0].__name__} of names" for key in wrong]
            continue
        found += [f"{where}: no row {row!r}{near(row, content['rows'])}" for row in rows if row not in content["rows"]]
        found += [f"{where}.paper: {row!r} is not among its rows" for row in spec.get("paper") or {} if row not in rows]
        found += [] if spec.get("title") and rows else [f"{where}: needs a title and rows"]
        own = spec.get("figures") or figures
        found += [f"{where}.figures: no figure {name!r}{near(name, figures)}" for name in own if name not in figures]
        pairs = [name for pair in (spec.get("against") or {}).items() for name in pair]
        found += [f"{where}.against: no figure {name!r}{near(name, own)}" for name in pairs if name not in own]
        for number, claim in enumerate(spec.get("claims") or [], start=1):
            place = f"{where}.claims, number {number}"
            if not isinstance(claim, dict) or claim.keys() != CLAIM:
                found.append(f"{place}: {claim!r} is not a mapping of {', '.join(sorted(CLAIM))}")
                continue
            if claim["figure"] not in claimable:
                found.append(f"{place}: no figure {claim['figure']!r}{near(claim['figure'], claimable)}")
            found += [
                f"{place}: {claim[key]!r} is not among its rows" for key in ("better", "than") if claim[key] not in rows
            ]
    return found
