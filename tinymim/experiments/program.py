"""A program as written in ``recipes/papers/NAME.yaml``: experiments, run one after the other, and one report of all.

about        a few sentences for the report
vars         values to be pointed at, such as ``${vars.teacher}``; the command's options change them
parts        id: an experiment, by its kind and name, and what is changed of it:
               title                  of its chapter in the report
               study, chain, scaling  name of a file of ``recipes/studies``, ``chains``, ``scaling``; or of an analysis:
               networks               title: a card, a checkpoint, ``timm:NAME``, the id of one of ``fits``, or
                                      ``random:`` and one of these
               fits                   id: ``{recipe, set, data}``: fitted first
               images                 what an analysis looks at: digits, shapes, a folder or a recipe
               roles                  titles of the networks of the papers' findings, ``mim`` and ``supervised``
               set                    overrides of every pre-training of a study, of every fit of a chain or a scaling
                                      study (``STAGE.KEY`` of one), and of a fit
               data                   overrides that lie over ``set``, such as ``${vars.data}``
               quick                  the experiment's own short form
               questions, jobs        as the options of its command
             or ``{title, kind, commands, roles}``: ``kind`` is study, chain, analysis or scaling; ``commands`` a list
             of lists, each what would follow ``tinymim`` in a terminal, where ``{KEY: VALUE}`` stands for --KEY=VALUE
             and ``{--set: {KEY: VALUE}}`` for --set KEY=VALUE. The last one writes into ``${place}``, the part's
             folder (analyze by --out, others by --run-dir); ``${places.ID}`` is another's
quick        laid over all of the above by ``--quick``
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, Struct
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tinymim.config import spec as outline
from tinymim.config.spec import shortened, unknown
from tinymim.errors import TinymimError, mistaken, plural, several
from tinymim.experiments import schema, state
from tinymim.experiments.plan import CHECKPOINT, Plan, Stage
from tinymim.experiments.state import Entry, State
from tinymim.near_names import near
from tinymim.safety.text import WRONG, brief, json_or_empty, unreadable
from tinymim.teachers.record_schemas import Line

SHIPPED = "embedded"
"""The program that is run where none is named."""

BEFORE = "papers.json"
"""What earlier versions kept of each part."""

KINDS = ("study", "chain", "analysis", "scaling")
"""Kinds of parts: ``tinymim study``, ``chain run``, ``analyze`` or ``scaling``."""

NAMED = {"study": "study", "chain": "chain", "scaling": "scaling", "networks": "analysis"}
"""Kinds of parts, by the key that names their experiment."""


def _text(required: dict[str, Any], others: str) -> Any:
    """The schema of a part; values may be references that are not resolved yet, which are of any type."""
    optional = [(name, {"title": schema.Text, "roles": Roles}.get(name, Any) | None, None) for name in others.split()]
    return msgspec.defstruct("PartText", [*required.items(), *optional], forbid_unknown_fields=True)


class Roles(Struct, forbid_unknown_fields=True):
    """Titles of networks, by what the papers' findings are of."""

    mim: Line
    supervised: Line


FileName = Annotated[str, Meta(description="the name of a file")]
Lines = Annotated[
    list[Annotated[list[Any], Meta(min_length=1)]],
    Meta(min_length=1, description="a list of commands, each a list of words"),
]
KIND = Annotated[Literal[KINDS], Meta(description=f"one of {', '.join(KINDS)}")]  # type: ignore[valid-type]
TEXTS = {
    "commands": _text({"kind": KIND, "commands": Lines}, "title roles"),
    "study": _text({"study": FileName}, "title set data quick questions jobs"),
    "chain": _text({"chain": FileName}, "title set data jobs"),
    "scaling": _text({"scaling": FileName}, "title set data quick jobs"),
    "networks": _text({"networks": dict[str, Any], "images": Line}, "title fits roles"),
    "fits": _text({"recipe": Line}, "set data"),
}
"""Schemas of a part, by the key that names its experiment."""


@dataclass
class Part:
    """One of a program's parts, its commands as words; ``id`` is also the name of its folder."""

    id: str
    title: str
    kind: str
    place: Path
    commands: list[list[str]]
    roles: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The commands as they would be typed."""
        return [shlex.join(["tinymim", *words]) for words in self.commands]


@dataclass
class Program:
    """A parsed program; see the top of this file."""

    name: str
    about: str
    parts: list[Part]
    quick: bool = False
    vars: dict[str, Any] = field(default_factory=dict)


def load(name: str, place: Path, quick: bool = False, settings: dict[str, Any] | None = None) -> Program:
    """Read a program.

    Args:
        name: of a file in ``recipes/papers``, or a path.
        place: its folder, in which every part has one.
        quick: lay its ``quick`` part over it.
        settings: in place of values in ``vars``.

    Raises:
        TinymimError: no such program, or mistakes in it, all of them together.
    """
    path = outline.find("program", name)
    content = OmegaConf.create(shortened(outline.read(path, "program", "parts"), path, quick))
    variables = settings or {}
    known = list(content.get("vars") or {})
    if wrong := [key for key in variables if key not in known]:
        raise several(
            f"{path} has no such {plural(len(wrong), 'value')} in vars",
            [f"vars.{key}: no such key{near(key, known)}" for key in wrong],
        )
    for key, value in variables.items():
        content.vars[key] = value
    errors = _mistakes(cast(dict[str, Any], OmegaConf.to_container(content, resolve=False)))
    if errors:
        raise mistaken(str(path), errors)
    places = {str(id): str(place / str(id)) for id in content.parts}
    parts, values = [], {}
    try:
        for id, where in places.items():
            whole = OmegaConf.merge(content, {"places": places, "place": where})
            parts.append(
                _part(id, cast(dict[str, Any], OmegaConf.to_container(whole, resolve=True))["parts"][id], where)
            )
        if content.get("vars"):
            values = cast(dict[str, Any], OmegaConf.to_container(content.vars, resolve=True))
    except OmegaConfBaseException as error:
        raise TinymimError(f"{path}: {str(error).splitlines()[0]}") from None
    return Program(path.stem, (content.get("about") or "").strip(), parts, quick, values)


def plan(program: Program, command: str) -> Plan:
    """The commands of a program as a plan: each is a stage, behind the one before it in its part."""
    stages: dict[str, Stage] = {}
    for part in program.parts:
        before: dict[str, str] = {}
        for name, words in zip(keys(part), part.commands, strict=True):
            stages[name] = Stage(name, "command", "", {"words": words}, sources=before)
            before = {"before": name}
    return Plan(program.name, stages, program.about, kind="program", command=command)


def current(program: Program, place: Path, command: str, again: Iterable[str] = ()) -> State:
    """The state of a program in its folder: the commands of ``again`` are as its file has them now, and wait, since
    each finds by itself what is done; the others are as they were run."""
    now = state.begin(place, plan(program, command))
    before, asked = _earlier(place), set(again)
    for key in now.entries.keys() & before.entries.keys() - asked:
        now.entries[key], now.plan.stages[key] = before.entries[key], before.plan.stages[key]
    now.ask(asked, before.entries)
    return now


def _earlier(place: Path) -> State:
    """The state that is there, and what earlier versions wrote beside it, as far as it says more."""
    current = state.load(place) if state.holds(place) else state.begin(place, Plan(place.name, {}, kind="program"))
    try:
        for id, part in (json_or_empty(place / BEFORE).get("parts") or {}).items():
            if current.entries.get(id, Entry()).state == "waiting":
                words = shlex.split(part["commands"][-1])[1:]
                current.plan.stages[id] = Stage(id, "command", "", {"words": words})
                current.entries[id] = Entry(part["status"], error=part.get("error"))
    except WRONG as error:
        raise unreadable(str(place / BEFORE), error) from None
    return current


def folder(name: str, quick: bool) -> Path:
    """The folder in which a program of that name is run by default."""
    folder_name = "papers" if name == SHIPPED else f"papers_{name}"
    return Path("runs") / f"{folder_name}{'_quick' if quick else ''}"


def keys(part: Part) -> list[str]:
    """The fits that its commands are in the plan; the last has the part's own name."""
    return [*(f"{part.id}.{number}" for number in range(1, len(part.commands))), part.id]


def how(current: State, part: Part) -> tuple[str, str | None]:
    """State of a part, ``not run`` where that is not known, and why it failed."""
    entries = [current.entries.get(key, Entry()) for key in keys(part)]
    went = next((entry.state for entry in entries if entry.state not in ("done", "waiting")), entries[-1].state)
    error = next((entry.error for entry in entries if entry.error), None)
    return "not run" if went == "waiting" else went, error


def _part(id: str, spec: dict[str, Any], place: str) -> Part:
    named = _named(spec)
    lines = [[word for entry in line for word in _words(entry)] for line in spec["commands"]] if not named else []
    kind = NAMED[named] if named else spec["kind"]
    if named == "networks":
        fits = {fit: f"{place}_{fit}" for fit in spec.get("fits") or {}}
        for fit, written in (spec.get("fits") or {}).items():
            resumed = ["--run_dir", fits[fit], "--ckpt_path", "last"]
            lines.append(["fit", "--config", written["recipe"], *resumed, *outline.texts(_overrides(written))])
        sources = []
        for title, source in spec["networks"].items():
            first, colon, rest = source.rpartition(":")
            sources.append(f"{title}={first}{colon}{fits[rest]}/{CHECKPOINT}" if rest in fits else f"{title}={source}")
        lines.append(["analyze", *sources, "--data", spec["images"], "--out", place])
    elif named:
        set_ = [text.removeprefix("--") for text in outline.texts(_overrides(spec))]
        name = ["chain", "run", spec[named], "--resume"] if named == "chain" else [named, spec[named]]
        settings = {"questions": ",".join(spec.get("questions") or []), "jobs": spec.get("jobs"), "run-dir": place}
        options = [word for key, value in settings.items() if value for word in (f"--{key}", str(value))]
        lines.append(
            [*name, *(["--quick"] if spec.get("quick") else []), *options, *(["--set", *set_] if set_ else [])]
        )
    return Part(id, spec.get("title", id), kind, Path(place), lines, spec.get("roles") or {})


def _named(spec: dict[str, Any]) -> str:
    """The key that names the experiment of a part; empty where it is given by its commands."""
    return next((key for key in NAMED if key in spec), "")


def _overrides(spec: dict[str, Any]) -> dict[str, Any]:
    return {**(spec.get("set") or {}), **(spec.get("data") or {})}


def _words(entry: Any) -> list[str]:
    """An entry of a command: a word, a list of entries, ``{KEY: VALUE}`` for ``--KEY=VALUE``, or
    ``{--set: {KEY: VALUE}}`` for ``--set KEY=VALUE``; values as YAML on one line."""
    if isinstance(entry, list):
        return [word for inner in entry for word in _words(inner)]
    if isinstance(entry, dict):
        words: list[str] = []
        for key, value in entry.items():
            flagged = isinstance(value, dict) and key.startswith("--")
            texts = (
                [text.removeprefix("--") for text in outline.texts(value)] if flagged else outline.texts({key: value})
            )
            words += [key, *texts] if flagged and texts else texts
        return words
    return [] if entry is None else [str(entry)]


def _mistakes(content: dict[str, Any]) -> list[str]:
    """Mistakes in the text of a program."""
    errors = unknown(content, "", ("about", "vars", "parts"))
    if not isinstance(content.get("about"), str | None):
        errors.append(f"about: {brief(content['about'])} is no text")
    parts = content.get("parts")
    if not isinstance(parts, dict) or not parts:
        return [*errors, "parts: missing, or not a mapping"]
    for id, spec in parts.items():
        path = f"parts.{id}"
        if not isinstance(spec, dict):
            errors.append(f"{path}: {spec!r} is not a mapping such as {{study: digits, set: ...}}")
            continue
        errors += schema.mistakes(spec, TEXTS[_named(spec) or "commands"], path)
        fits = spec.get("fits") or {}
        for fit, written in fits.items() if isinstance(fits, dict) else ():
            errors += schema.mistakes(written, TEXTS["fits"], f"{path}.fits.{fit}")
    return errors
