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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tinymim.config import spec as outline
from tinymim.config.spec import near, shortened, unknown
from tinymim.errors import TinymimError, several
from tinymim.experiments.plan import CHECKPOINT, Plan, Stage
from tinymim.safety.text import brief

SHIPPED = "embedded"
"""The program that is run where none is named."""

KINDS = ("study", "chain", "analysis", "scaling")
"""Kinds of parts: ``tinymim study``, ``chain run``, ``analyze`` or ``scaling``."""

NAMED = {"study": "study", "chain": "chain", "scaling": "scaling", "networks": "analysis"}
"""Kinds of parts, by the key that names their experiment."""

KEYS = {
    "": {"about", "vars", "parts", "quick"},
    "commands": {"title", "kind", "commands", "roles"},
    "study": {"title", "study", "set", "data", "quick", "questions", "jobs"},
    "chain": {"title", "chain", "set", "data", "jobs"},
    "scaling": {"title", "scaling", "set", "data", "quick", "jobs"},
    "networks": {"title", "networks", "fits", "images", "roles"},
    "fits": {"recipe", "set", "data"},
}


@dataclass
class Part:
    """One of a program's parts.

    Args:
        id: also the name of its folder.
        title: of its chapter in the report.
        kind: one of :data:`KINDS`.
        place: its folder.
        commands: each as words.
        roles: of an analysis.
    """

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
    given = settings or {}
    known = list(content.get("vars") or {})
    if wrong := [key for key in given if key not in known]:
        raise several(
            f"{path} has no such value(s) in vars", [f"vars.{key}: no such key{near(key, known)}" for key in wrong]
        )
    for key, value in given.items():
        content.vars[key] = value
    found = _mistakes(cast(dict[str, Any], OmegaConf.to_container(content, resolve=False)))
    if found:
        raise several(f"{path} has {len(found)} mistake(s)", found)
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


def folder(name: str, quick: bool) -> Path:
    """The folder in which a program of that name is run by default."""
    own = "papers" if name == SHIPPED else f"papers_{name}"
    return Path("runs") / f"{own}{'_quick' if quick else ''}"


def keys(part: Part) -> list[str]:
    """The fits that its commands are in the plan; the last has the part's own name."""
    return [*(f"{part.id}.{number}" for number in range(1, len(part.commands))), part.id]


def _part(id: str, spec: dict[str, Any], place: str) -> Part:
    named = _named(spec)
    lines = [[word for entry in line for word in _words(entry)] for line in spec["commands"]] if not named else []
    kind = NAMED[named] if named else spec["kind"]
    if named == "networks":
        fits = {fit: f"{place}_{fit}" for fit in spec.get("fits") or {}}
        for fit, written in (spec.get("fits") or {}).items():
            own = ["--run_dir", fits[fit], "--ckpt_path", "last"]
            lines.append(["fit", "--config", written["recipe"], *own, *outline.texts(_overrides(written))])
        sources = [f"{title}={_source(source, fits)}" for title, source in spec["networks"].items()]
        lines.append(["analyze", *sources, "--data", spec["images"], "--out", place])
    elif named:
        set_ = [text.removeprefix("--") for text in outline.texts(_overrides(spec))]
        name = ["chain", "run", spec[named], "--resume"] if named == "chain" else [named, spec[named]]
        asked = {"questions": ",".join(spec.get("questions") or []), "jobs": spec.get("jobs"), "run-dir": place}
        options = [word for key, value in asked.items() if value for word in (f"--{key}", str(value))]
        lines.append(
            [*name, *(["--quick"] if spec.get("quick") else []), *options, *(["--set", *set_] if set_ else [])]
        )
    return Part(id, spec.get("title", id), kind, Path(place), lines, spec.get("roles") or {})


def _named(spec: dict[str, Any]) -> str:
    """The key that names the experiment of a part; empty where it is given by its commands."""
    return next((key for key in NAMED if key in spec), "")


def _overrides(spec: dict[str, Any]) -> dict[str, Any]:
    return {**(spec.get("set") or {}), **(spec.get("data") or {})}


def _source(source: str, fits: dict[str, str]) -> str:
    """A network of an analysis, where that is one of the part's own fits by its checkpoint."""
    first, colon, rest = source.rpartition(":")
    return f"{first}{colon}{fits[rest]}/{CHECKPOINT}" if rest in fits else source


def _words(entry: Any) -> list[str]:
    """An entry of a command: a word, a list of entries, ``{KEY: VALUE}`` for ``--KEY=VALUE``, or
    ``{--set: {KEY: VALUE}}`` for ``--set KEY=VALUE``; values as YAML on one line."""
    if isinstance(entry, list):
        return [word for one in entry for word in _words(one)]
    if isinstance(entry, dict):
        found: list[str] = []
        for key, value in entry.items():
            flagged = isinstance(value, dict) and key.startswith("--")
            own = [text.removeprefix("--") for text in outline.texts(value)] if flagged else outline.texts({key: value})
            found += [key, *own] if flagged and own else own
        return found
    return [] if entry is None else [str(entry)]


def _mistakes(content: dict[str, Any]) -> list[str]:
    """Mistakes in the text of a program."""
    found = unknown(content, "", KEYS[""])
    if not isinstance(content.get("about"), str | None):
        found.append(f"about: {brief(content['about'])} is no text")
    parts = content.get("parts")
    if not isinstance(parts, dict) or not parts:
        return [*found, "parts: missing, or not a mapping"]
    for id, spec in parts.items():
        found += _part_mistakes(f"parts.{id}", spec)
    return found


def _part_mistakes(path: str, spec: Any) -> list[str]:
    if not isinstance(spec, dict):
        return [f"{path}: {spec!r} is not a mapping such as {{study: digits, set: ...}}"]
    named = _named(spec)
    found = unknown(spec, path, KEYS[named or "commands"])
    if not isinstance(spec.get("title"), str | None):
        found.append(f"{path}.title: {brief(spec['title'])} is no text")
    roles = spec.get("roles")
    if roles is not None and (not isinstance(roles, dict) or set(roles) != {"mim", "supervised"}):
        found.append(f"{path}.roles: {roles!r} is not a mapping of mim and supervised")
    if not named:
        if spec.get("kind") not in KINDS:
            found.append(f"{path}.kind: {spec.get('kind')!r} is not one of {', '.join(KINDS)}")
        lines = spec.get("commands")
        if not isinstance(lines, list) or not lines or not all(isinstance(line, list) and line for line in lines):
            found.append(f"{path}.commands: not a list of commands, each a list of words")
        return found
    if named == "networks":
        found += [] if spec.get("images") else [f"{path}.images: missing; name digits, shapes, a folder or a recipe"]
        if not isinstance(spec["networks"], dict) or not spec["networks"]:
            found.append(f"{path}.networks: {spec['networks']!r} is not a mapping of titles to networks")
        for fit, written in (spec.get("fits") or {}).items():
            where = f"{path}.fits.{fit}"
            if not isinstance(written, dict) or not written.get("recipe"):
                found.append(f"{where}: {written!r} is not a mapping of recipe, set and data")
            else:
                found += unknown(written, where, KEYS["fits"])
    elif not isinstance(spec[named], str):
        found.append(f"{path}.{named}: {spec[named]!r} is not the name of a file")
    return found
