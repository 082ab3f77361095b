"""A program as written in ``recipes/papers/NAME.yaml``: parts, each some ``tinymim`` commands and what is read of them.

about        a few sentences for the report
vars         values to be pointed at, such as ``${vars.teacher}``; the command's options change them
parts        id: ``{title, kind, commands, roles}``, run in this order
               kind       what its last command is, and so what is read of it: ``study`` (tinymim study), ``chain``
                          (chain run), ``analysis`` (analyze) or ``scaling`` (scaling)
               commands   a list of lists, each what would follow ``tinymim`` in a terminal, such as
                          ``[study, digits, --run_dir, "${place}"]``; an entry ``{KEY: VALUE}`` stands for --KEY=VALUE,
                          ``{--set: {KEY: VALUE}}`` for --set KEY=VALUE. The last command writes into ``${place}``, the
                          part's folder (analyze by --out, others by --run_dir); ``${places.ID}`` is another's
               roles      of an analysis: titles of the networks that the paper's findings are of, ``mim`` and
                          ``supervised``
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
from tinymim.safety.text import brief

KINDS = ("study", "chain", "analysis", "scaling")
"""What a part may be: ``tinymim study``, ``chain run``, ``analyze`` or ``scaling``."""

KEYS = {"": {"about", "vars", "parts", "quick"}, "parts": {"title", "kind", "commands", "roles"}}


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
            spec = cast(dict[str, Any], OmegaConf.to_container(whole, resolve=True))["parts"][id]
            commands = [[word for entry in line for word in _words(entry)] for line in spec["commands"]]
            parts.append(Part(id, spec.get("title", id), spec["kind"], Path(where), commands, spec.get("roles") or {}))
        if content.get("vars"):
            values = cast(dict[str, Any], OmegaConf.to_container(content.vars, resolve=True))
    except OmegaConfBaseException as error:
        raise TinymimError(f"{path}: {str(error).splitlines()[0]}") from None
    return Program(path.stem, (content.get("about") or "").strip(), parts, quick, values)


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
    """What is wrong with the text of a program."""
    found = unknown(content, "", KEYS[""])
    if not isinstance(content.get("about"), str | None):
        found.append(f"about: {brief(content['about'])} is no text")
    parts = content.get("parts")
    if not isinstance(parts, dict) or not parts:
        return [*found, "parts: missing, or not a mapping"]
    for id, spec in parts.items():
        if not isinstance(spec, dict):
            found.append(f"parts.{id}: {spec!r} is not a mapping of {', '.join(sorted(KEYS['parts']))}")
            continue
        found += unknown(spec, f"parts.{id}", KEYS["parts"])
        if not isinstance(spec.get("title"), str | None):
            found.append(f"parts.{id}.title: {brief(spec['title'])} is no text")
        if spec.get("kind") not in KINDS:
            found.append(f"parts.{id}.kind: {spec.get('kind')!r} is not one of {', '.join(KINDS)}")
        roles = spec.get("roles")
        if roles is not None and (not isinstance(roles, dict) or set(roles) != {"mim", "supervised"}):
            found.append(f"parts.{id}.roles: {roles!r} is not a mapping of mim and supervised")
        lines = spec.get("commands")
        if not isinstance(lines, list) or not lines or not all(isinstance(line, list) and line for line in lines):
            found.append(f"parts.{id}.commands: not a list of commands, each a list of words")
    return found
