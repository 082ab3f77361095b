"""The source of a search: a recipe's comparison, a study, or a chain's comparison, read as a study of its rows."""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict

from tinymim.config import recipe as recipes
from tinymim.config import spec
from tinymim.errors import TinymimError, mistaken
from tinymim.experiments import chain, compare, plan_files, settings, study, study_check
from tinymim.experiments.questions import FIGURES
from tinymim.experiments.search import DEFAULT_SHARE
from tinymim.experiments.study import Study


def read(name: str, quick: bool, overrides: list[str]) -> tuple[Study, str]:
    """Read what is compared, every fit of it on a part of the training images; and the name of its file of settings.

    Raises:
        TinymimError: nothing of that name, no ``search`` in it, or mistakes.
    """
    kind, content, path = plan_files.find(name, ("study", "chain"))
    if quick and kind != "study":
        raise TinymimError(f"--quick: {name} is a {kind}, and a study alone has a short form")
    if kind == "study":
        content = spec.shortened(content, path, quick)
        errors = study_check.mistakes(content)
    elif kind == "chain":
        errors = chain.mistakes(content) or chain.start_mistakes(content["stages"])
    else:
        plain, errors = compare.read(name, overrides, searching=True), []
        named = recipes.resolve(["--config", name, *overrides])[0].get("compare")
        content = {"search": plain.search if plain else {}, "settings": (named or {}).get("settings")}
    if errors:
        raise mistaken(str(path), errors)
    if not content.get("search") or not content.get("settings"):
        raise TinymimError(f"{name} has no `search` that says what to try, and `settings` that it goes into")
    settings.check_place(str(content["settings"]), path.parent)
    split = [*overrides, f"--data.choice_split={content['search'].get('share', DEFAULT_SHARE)}"]
    if kind == "recipe":
        compared = compare.read(name, split, searching=True)
        assert compared
        return compared, content["settings"]
    whole = as_study(content) if kind == "chain" else content
    return study.parse(whole, path.stem, str(path), split, searching=True), content["settings"]


def as_study(content: dict[str, Any]) -> dict[str, Any]:
    """A chain's comparison as a study's content: its rows are what the probes and fine-tunings of one row start from,
    and what those start from is prepared.

    Raises:
        TinymimError: rows that differ in more than their start.
    """
    stages = {stage["name"]: stage for stage in content["stages"]}
    common = content.get("set") or {}
    rows: dict[str, Any] = {}
    later: dict[str, Any] = {}
    prepare: dict[str, Any] = {}
    for title, names in ((content.get("compare") or {}).get("rows") or {}).items():
        starts = {chain.start(stages[name], content["stages"]) for name in names}
        if len(starts) > 1:
            raise TinymimError(
                f"compare.rows.{title}: its stages start from different weights, and are searched as one row"
            )
        named, parent = starts.pop()
        start = _prepared(parent, stages, content, prepare) if parent else named
        id = "".join(letter if letter.isalnum() else "_" for letter in title).strip("_")
        rows[id] = {"title": title, "recipe": None, "known": title, **({"weights": start} if start else {})}
        for name in names:
            fit = {"recipe": _one(stages[name]), "set": {**common, **(stages[name].get("set") or {})}}
            if later.setdefault(stages[name]["kind"], fit) != fit:
                raise TinymimError(f"compare: {name} and others of kind {stages[name]['kind']} differ in recipe or set")
    figures = {title: asdict(figure) for title, figure in FIGURES.items() if figure.stage in later}
    return {
        "seeds": [0],
        "stages": later,
        "figures": figures,
        "prepare": prepare,
        "rows": rows,
        "questions": {"compared": {"title": "compared", "rows": list(rows)}},
        "settings": content.get("settings"),
        "search": content.get("search") or {},
    }


def _prepared(name: str, stages: dict[str, Any], content: dict[str, Any], prepare: dict[str, Any]) -> str:
    """Add a stage and those before it to what is prepared; its checkpoint as a study writes it."""
    stage = stages[name]
    key, reference = chain.SOURCES[stage["kind"]], f"${{prepare.{name}}}"
    if name not in prepare:
        named, parent = chain.start(stage, content["stages"])
        start = _prepared(parent, stages, content, prepare) if parent else named
        settings = {**(content.get("set") or {}), **(stage.get("set") or {})}
        if start and key == "weights":
            settings |= {"model.architecture": None}
        prepare[name] = {"recipe": _one(stage), "set": settings | ({f"model.{key}": start} if start else {})}
    return reference


def _one(stage: dict[str, Any]) -> str:
    named = stage["recipe"]
    if isinstance(named, list):
        if len(named) > 1:
            raise TinymimError(
                f"stages.{stage['name']}.recipe: {named}: a search fits one recipe a stage, over which it lays what it "
                f"tries; put them into one, a file with `extends: {named}`, and name that".replace("'", "")
            )
        return str(named[0])
    return str(named)
