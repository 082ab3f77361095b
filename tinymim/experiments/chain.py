"""A chain as written in ``recipes/chains/NAME.yaml``: stages, each a recipe with overrides, and what each starts from.

about        a few sentences on what it is for
seeds        list; every stage is run once for each; without it, once with its recipe's own seed
set          overrides of every fit, as ``{trainer.precision: bf16-mixed}``
stages       list of ``{name, kind, recipe, teacher or weights, set}``, in any order:
  pretrain     MAE or another module that starts from nothing
  distill      ``teacher``: a card, a checkpoint's path, ``previous``, or a stage's name; without it the recipe's own
  finetune     ``weights``: likewise, or null to start from scratch
  probe        likewise
  export       ``weights``: likewise; writes student.safetensors
compare      the table at the end: ``{title, rows, source, expects, paper}``; ``rows`` gives each title its probe and
             fine-tuning, ``paper`` its figure for some of them

settings     a file of ``recipes/settings``: what each row of ``compare`` has chosen for its probe and fine-tuning
search       how they are chosen, see ``tinymim/experiments/search.py``

``recipe`` may be a list: those after the first are laid over it. ``previous`` is the nearest stage above that was
pre-trained or distilled; where a fine-tuned one lies between, it might be meant too, and has to be named.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tinymim.config import options, spec
from tinymim.config.spec import texts, unknown
from tinymim.errors import TinymimError, mistaken
from tinymim.experiments import schema
from tinymim.experiments import settings as settings_file
from tinymim.experiments.plan import CHECKPOINT, SETTLED, Plan, Stage, in_order, resolved
from tinymim.near_names import near
from tinymim.teachers import card, locate

Written = dict[str, Any]
"""A stage as the file has it."""

SOURCES = {"pretrain": "", "distill": "teacher", "finetune": "weights", "probe": "weights", "export": "weights"}
"""Kinds of stage, and the key by which each names what it starts from."""

EMPTY = {"name": "x", "kind": "export"}
"""A stage without mistakes."""

RESERVED = re.compile(r"recipes|logs|previous|seeds?\d*")


def load(name: str, settings: list[str] | None = None, configs: list[str] | None = None) -> Plan:
    """Read a chain.

    Args:
        name: of a file in ``recipes/chains``, or a path.
        settings: ``KEY=VALUE`` for every fit, ``STAGE.KEY=VALUE`` for one, or ``seeds=[0]``; over all that is written.
        configs: recipes laid over every fit's.

    Raises:
        TinymimError: no such chain, or mistakes in it, all of them together.
    """
    path = spec.find("chain", name)
    return build(path.stem, spec.read(path, "chain", "stages"), str(path), settings, configs)


def build(
    name: str, content: dict[str, Any], source: str, settings: list[str] | None = None, configs: list[str] | None = None
) -> Plan:
    """The plan of the chain called ``name`` with a file's ``content``; ``source`` names the file in errors, and the
    rest is as for :func:`load`."""
    errors = mistakes(content)
    if not errors:
        overrides, errors = settle(settings or [], content)
        errors += start_mistakes(content["stages"])
    if errors:
        raise mistaken(str(source), errors)
    chosen = settings_file.load(content.get("settings"))
    rows = (content.get("compare") or {}).get("rows") or {}
    stages = {}
    for written in content["stages"]:
        titles = [title for title, names in rows.items() if written["name"] in names]
        settings = [  # from the widest to the narrowest, and the command line over all
            *texts(content.get("set")),
            *texts(written.get("set")),
            *(text for title in titles for text in chosen.texts(title, written["kind"])),
            *overrides[""],
            *overrides[written["name"]],
        ]
        try:
            stages[written["name"]] = _stage(written, content["stages"], settings, configs or [])
        except TinymimError as error:
            errors.append(f"stages.{written['name']}: {error}")
    if errors:
        raise mistaken(str(source), errors)
    about = (content.get("about") or "").strip()
    kept = chosen if content.get("settings") or content.get("search") else None
    return Plan(name, in_order(stages), about, content.get("seeds"), content.get("compare") or {}, kept)


def _stage(written: Written, all: list[Written], overrides: list[str], configs: list[str]) -> Stage:
    kind, named = written["kind"], written.get("recipe") or []
    begin, parent = start(written, all)
    if kind == "export":
        return Stage(written["name"], kind, "", {}, begin, parent)
    listed = [*(named if isinstance(named, list) else [named]), *configs]
    path = f"{parent}/{CHECKPOINT}" if parent else begin
    if kind == "distill" and path:
        overrides = [*overrides, f"--model.teacher={json.dumps(path)}"]
    elif path:  # the record of the weights says the architecture
        overrides = [*overrides, f"--model.weights={json.dumps(path)}", "--model.architecture=null"]
    elif kind in ("finetune", "probe"):
        overrides = [*overrides, "--model.weights=null"]
    config = resolved(listed, overrides)
    if kind == "distill" and not begin:
        begin = ((config.get("model") or {}).get("init_args") or {}).get("teacher")
        if not begin:
            raise TinymimError(
                "teacher: missing, and its recipe names none; give a card, a checkpoint, or a stage's name"
            )
    return Stage(written["name"], kind, " + ".join(listed), config, begin, parent)


def start(written: Written, all: list[Written]) -> tuple[str | None, str | None]:
    """The start of a stage as it will be kept, and the stage that it names, if any."""
    key = SOURCES[written["kind"]]
    named = written.get(key)
    if named is None:
        return None, None
    names = [stage["name"] for stage in all]
    if named in names:
        return named, named
    if named != "previous":
        return (str(Path(named).resolve()) if Path(named).is_file() else named), None
    position = names.index(written["name"])
    above = [stage["name"] for stage in all[:position] if stage["kind"] in ("pretrain", "distill", "finetune")]
    if not above:
        raise TinymimError(f"{key}: previous, and no stage above gives a backbone; name one")
    tuned = [stage["name"] for stage in all[:position] if stage["kind"] == "finetune"]
    if above[-1] in tuned:
        raise TinymimError(
            f"{key}: previous might mean {above[-1]}, which is fine-tuned, or what is above it; name one"
        )
    return above[-1], above[-1]


def mistakes(content: dict[str, Any]) -> list[str]:
    """Mistakes in the text, stage by stage."""
    stages = content.get("stages")
    errors = schema.mistakes({**content, "stages": [EMPTY]}, schema.ChainText)  # each stage is told by its name
    if not isinstance(stages, list) or not stages:
        return [*errors, "stages: missing; a chain is a list of {name, kind, recipe, ...}"]
    if len(stages) > schema.MOST_STAGES:
        return [f"stages: {len(stages):,} of them, and {schema.MOST_STAGES:,} are taken"]
    for number, stage in enumerate(stages, start=1):
        if not isinstance(stage, dict):
            errors.append(f"stages: number {number} is {stage!r}, not a mapping of name, kind, recipe, ...")
        else:
            errors += _stage_mistakes(stage, f"stages.{stage.get('name') or number}")
    names = [str(stage["name"]) for stage in stages if isinstance(stage, dict) and stage.get("name")]
    errors += [f"stages.{name}: {names.count(name)} stages have this name" for name in names if names.count(name) > 1]
    if errors or not content.get("compare"):
        return list(dict.fromkeys(errors))
    return _compare_mistakes(content["compare"], {stage["name"]: stage["kind"] for stage in stages})


def _stage_mistakes(stage: Written, path: str) -> list[str]:
    name, kind = stage.get("name"), stage.get("kind")
    errors = []
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]{0,19}", name) or RESERVED.fullmatch(name):
        errors.append(
            f"{path}.name: {name!r} names no folder; take up to 20 letters, digits, - and _, and not recipes, logs, "
            "previous or seedN"
        )
    if not isinstance(kind, str) or kind not in SOURCES:
        return [*errors, f"{path}.kind: {kind!r} is no kind of stage{near(str(kind), SOURCES)}"]
    source = SOURCES[kind]
    allowed = {"name", "kind"} | ({source} - {""}) | ({"recipe", "set"} if kind != "export" else set())
    errors += unknown(stage, path, allowed)
    errors += schema.mistakes(
        {key: stage[key] for key in stage if key in allowed} | {"name": "x"}, schema.StageText, path
    )
    if kind != "export" and not stage.get("recipe"):
        errors.append(f"{path}.recipe: missing")
    settled = stage.get("set") or {}
    if isinstance(settled, dict) and (wrong := [key for key in settled if key in SETTLED]):
        errors.append(f"{path}.set: {', '.join(wrong)}: the chain settles this itself")
    if source == "weights" and source not in stage:
        scratch = "" if kind == "export" else "; null starts from scratch"
        errors.append(f"{path}.weights: missing; give previous, a stage's name, a checkpoint or a card{scratch}")
    elif kind == "export" and stage["weights"] is None:
        errors.append(f"{path}.weights: null is no name of a stage or card, and no path")
    return errors


def start_mistakes(stages: list[Written]) -> list[str]:
    """Mistakes in what the stages start from: unknown, of a kind that gives nothing, in a ring."""
    errors, parents = [], {}
    kinds = {stage["name"]: stage["kind"] for stage in stages}
    for stage in stages:
        path = f"stages.{stage['name']}"
        try:
            named, parent = start(stage, stages)
            parents[stage["name"]] = parent
            if named and not parent and "/" not in named and not Path(named).suffix:
                known = card.paths()
                if named not in known and not locate.is_published(named):
                    raise TinymimError(
                        f"{named!r} is neither a stage nor a teacher card{near(named, [*kinds, *known])} (a checkpoint "
                        "is named by its path)"
                    )
        except TinymimError as error:
            errors.append(f"{path}.{error}" if str(error).startswith(("teacher", "weights")) else f"{path}: {error}")
            continue
        if parent and kinds[parent] in ("probe", "export"):
            what = "a linear layer on frozen weights" if kinds[parent] == "probe" else "an export of weights"
            errors.append(f"{path}.{SOURCES[stage['kind']]}: {parent} is {what}; name the stage it starts from")
    rings = []
    for name in parents:
        way: list[str] = [name]
        while (above := parents.get(way[-1])) and above not in way:
            way.append(above)
        if above == name and set(way) not in rings:
            rings.append(set(way))
            errors.append(f"stages: {' -> '.join(reversed([*way, name]))} is a ring, and none of them can come first")
    return errors


def _compare_mistakes(compare: Written, kinds: dict[str, str]) -> list[str]:
    errors = []
    for title, stages in compare["rows"].items():
        for name in stages:
            if name not in kinds:
                errors.append(f"compare.rows.{title}: no stage {name!r}{near(str(name), kinds)}")
            elif kinds[name] not in ("probe", "finetune"):
                errors.append(
                    f"compare.rows.{title}: {name} is of kind {kinds[name]}, and figures come from probe and finetune"
                )
        measured = [kinds[name] for name in stages if name in kinds]
        errors += [f"compare.rows.{title}: {kind} twice" for kind in set(measured) if measured.count(kind) > 1]
    paper = compare.get("paper") or {}
    return errors + [f"compare.paper: {row!r} is not among its rows" for row in paper if row not in compare["rows"]]


def settle(settings: list[str], content: dict[str, Any]) -> tuple[dict[str, list[str]], list[str]]:
    """``--set`` of the command line as overrides by stage, those of all under an empty name; ``seeds`` goes into
    ``content``."""
    names = [stage["name"] for stage in content["stages"]]
    overrides: dict[str, list[str]] = {name: [] for name in ["", *names]}
    errors, known = [], [*names, *options.KEYS]
    for setting in settings:
        key, equals, value = setting.partition("=")
        first, _, rest = key.partition(".")
        if not equals:
            errors.append(f"--set {setting}: is not KEY=VALUE, STAGE.KEY=VALUE or seeds=[0]")
        elif key in SETTLED or (first in names and rest in SETTLED):
            errors.append(f"--set {setting}: the chain settles this itself")
        elif key == "seeds":
            content["seeds"] = [int(word) for word in re.findall(r"-?\d+", value)]
            errors += [f"--set {mistake}" for mistake in mistakes(content)]
        elif first in names and rest:
            overrides[first].append(f"--{rest}={value}")
        elif first in (*options.KEYS, "vars"):
            overrides[""].append(f"--{key}={value}")
        else:
            errors.append(f"--set {setting}: {first} is neither a stage nor a part of a recipe{near(first, known)}")
    return overrides, errors
