"""``tinymim search``: settings of their own for the rows of what is compared: a recipe's, a study's or a chain's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tinymim.config import recipe as recipes
from tinymim.config import spec
from tinymim.config.spec import near
from tinymim.errors import TinymimError, several
from tinymim.experiments import chain, comparison, search, settings, study_grid, study_text, workers
from tinymim.experiments.question import FIGURES
from tinymim.experiments.study_grid import Study
from tinymim.training import lock

FURTHER = (
    "Further options are overrides of every pre-training, such as --trainer.precision 32-true, as they are to a study."
)


def parser() -> argparse.ArgumentParser:
    """The options of ``tinymim search``; others are overrides."""
    options = argparse.ArgumentParser(
        prog="tinymim search", description=__doc__.partition("\n")[0], allow_abbrev=False,
        epilog=f"{FURTHER}\n\n{search.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    options.add_argument("name", help="a recipe with `compare`, a study or a chain with `search`, or a path")
    options.add_argument("rows", nargs="*", help="these rows alone; by default all")
    options.add_argument("--quick", action="store_true", help="of a study's short form, which has settings of its own")
    options.add_argument("--jobs", type=int, help="fits at once, sharing the cores; by default as many as cores")
    options.add_argument("--run_dir", type=Path, help="by default runs/search_NAME, or runs/search_NAME_quick")
    options.add_argument("--overwrite", action="store_true", help="run fits again whose definition has changed")
    return options


def main(arguments: list[str]) -> int:
    """Search, and say where the settings are."""
    options, rest = parser().parse_known_args(arguments)
    pairs, unknown = recipes.split(rest)
    if unknown:
        raise TinymimError(f"no option of a search: {' '.join(unknown)}; tinymim search --help lists them")
    study, chosen = read(options.name, options.quick, [f"--{key}={value}" for key, value in pairs])
    jobs = options.jobs if options.jobs is not None else workers.cores()
    if jobs < 1:
        raise TinymimError(f"--jobs: {jobs} is not 1 or more")
    command = f"tinymim search {options.name}{' --quick' if options.quick else ''}"
    place = options.run_dir or Path("runs") / f"search_{study.name}{'_quick' if options.quick else ''}"
    with lock.hold(place, "run_dir"):
        path = search.run(study, chosen, options.rows, command, place, jobs, options.overwrite)
    print(f"\nthe settings: {path}\nall fits: {place}")
    return 0


def read(name: str, quick: bool, overrides: list[str]) -> tuple[Study, str]:
    """What is compared, every fit of it on a part of the training images; and the name of its file of settings.

    Raises:
        TinymimError: nothing of that name, no ``search`` in it, or mistakes.
    """
    kind, content, path = _find(name)
    if quick and kind != "study":
        raise TinymimError(f"--quick: {name} is a {kind}, and a study alone has a short form")
    if kind == "study":
        content = spec.shortened(content, path, quick)
        if found := study_text.mistakes(content):
            raise several(f"{path} has {len(found)} mistake(s)", found)
    elif kind == "chain":
        if found := chain.mistakes(content) or chain.start_mistakes(content["stages"]):
            raise several(f"{path} has {len(found)} mistake(s)", found)
        content = as_study(content)
    else:
        plain = comparison.read(name, overrides, searching=True)
        content = {"search": plain.study.search if plain else {}, "settings": _named(name, overrides)}
    if not content.get("search") or not content.get("settings"):
        raise TinymimError(f"{name} has no `search` that says what to try, and `settings` that it goes into")
    settings.check_place(str(content["settings"]), path.parent)
    split = [f"--data.choice_split={search.share_of(content['search'])}"]
    if kind == "recipe":
        compared = comparison.read(name, [*overrides, *split], searching=True)
        assert compared
        return compared.study, content["settings"]
    return study_grid.parse(content, path.stem, str(path), [*overrides, *split], searching=True), content["settings"]


def _named(recipe: str, overrides: list[str]) -> Any:
    compare = recipes.resolve(["--config", recipe, *overrides])[0].get("compare")
    return compare.get("settings") if isinstance(compare, dict) else None


def _find(name: str) -> tuple[str, dict[str, Any], Path]:
    """Whether a name is a study's, a chain's or a recipe's; a file shows it by its keys."""
    if Path(name).is_file():
        content = spec.read(Path(name), "study, chain or recipe", "rows, stages or model")
        kind = "study" if "questions" in content else "chain" if isinstance(content.get("stages"), list) else "recipe"
        return kind, content, Path(name)
    known: list[str] = []
    for kind in ("study", "chain"):
        try:
            path = spec.find(kind, name)
            return kind, spec.read(path, kind, "stages"), path
        except TinymimError:
            known += [path.stem for base in recipes.folders() for path in (base / spec.FOLDERS[kind]).glob("*.yaml")]
    if name not in recipes.names():
        raise TinymimError(f"{name!r} is no recipe, study or chain{near(name, [*recipes.names(), *known])}")
    return "recipe", {}, recipes.find(name)


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
        rows[_id(title)] = {"title": title, "recipe": None, "known": title, **({"weights": start} if start else {})}
        for name in names:
            own = {"recipe": _one(stages[name]), "set": {**common, **(stages[name].get("set") or {})}}
            if later.setdefault(stages[name]["kind"], own) != own:
                raise TinymimError(f"compare: {name} and others of kind {stages[name]['kind']} differ in recipe or set")
    figures = {title: vars(figure) for title, figure in FIGURES.items() if figure.stage in later}
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
        own = {**(content.get("set") or {}), **(stage.get("set") or {})}
        if start and key == "weights":
            own |= {"model.architecture": None}
        prepare[name] = {"recipe": _one(stage), "set": own | ({f"model.{key}": start} if start else {})}
    return reference


def _one(stage: dict[str, Any]) -> str:
    named = stage["recipe"]
    if isinstance(named, list):
        if len(named) > 1:
            raise TinymimError(f"stages.{stage['name']}.recipe: a search takes one recipe a stage, and this is {named}")
        return str(named[0])
    return str(named)


def _id(title: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in title).strip("_")
