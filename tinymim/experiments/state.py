"""The folder of a plan, and the one file that says how far it is.

DIR/chain.json, plan.json  the state: for each fit how it went, and the sha256 of its recipe, inputs and outputs;
                           at the end, the plan itself. The first is of chains and scaling studies, which are gone on
                           with from the folder alone, the second of all others
DIR/recipes/STAGE.yaml     the resolved recipe of each stage, from which it runs
DIR/STAGE/                 its run folder; an export's has student.safetensors
DIR/seedN/STAGE/           in their place where a chain names seeds; the folders of others stand in their readers
DIR/logs/                  output of the fits where several run at once
DIR/table.md, table.json   the comparison, where a chain has one
DIR/index.html             its page
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

import yaml
from msgspec import Struct

from tinymim.config import spec
from tinymim.errors import TinymimError
from tinymim.experiments.plan import Plan
from tinymim.experiments.schema import CompareText
from tinymim.files import write_json, write_text
from tinymim.safety import text
from tinymim.teachers import record_schemas
from tinymim.teachers.record_schemas import Line, Plain
from tinymim.training.run_folder import RECIPE

NAME, OTHERS = "chain.json", "plan.json"
FORMS = (1, 2)
"""Numbers of the forms of the file that are read; the first has chains alone. The last is written."""


class CompareState(CompareText, forbid_unknown_fields=False):
    """A chain's comparison as its state has it."""


@dataclass
class Entry:
    """One stage from one seed.

    Args:
        state: how far it is; ``running`` of a chain that nobody runs any more was cut off.
        recipe: sha256 of all that decides its results.
        inputs: sha256 of what it started from, by the name the recipe gives it.
        outputs: sha256 of what it left, by path in its folder.
        started, ended: when it was begun first, and left last.
        process: ``host`` and ``pid`` of what runs it, or ran it last.
        left_out: no command has asked for it, as for a study's rows that ``--rows`` does not name.
    """

    state: Literal["waiting", "running", "interrupted", "failed", "done"] = "waiting"
    recipe: Line = ""
    inputs: dict[str, Line] = field(default_factory=dict)
    outputs: dict[str, Line] = field(default_factory=dict)
    started: Line | None = None
    ended: Line | None = None
    process: Plain = field(default_factory=dict)
    exit_code: int | None = None
    error: str | None = None
    left_out: bool = False

    @property
    def seconds(self) -> float:
        """Time from its beginning to its end; 0 where that is not known."""
        try:
            begun, ended = (datetime.fromisoformat(str(time)) for time in (self.started, self.ended))
            return (ended - begun).total_seconds()
        except (ValueError, TypeError):
            return 0.0


class FileState(Struct):
    """The file; ``stages`` are the fits."""

    form: Literal[1, 2]
    chain: Plan
    stages: dict[str, Entry]
    launch: Line


@dataclass
class State:
    """A plan in its folder."""

    place: Path
    plan: Plan
    entries: dict[str, Entry]
    launch: str = ""

    @property
    def again(self) -> str:
        """The command that goes on with it."""
        return self.plan.command or f"tinymim chain resume {shlex.quote(str(self.place))}"

    @property
    def asked(self) -> dict[str, Entry]:
        """The fits that some command has asked for."""
        return {key: entry for key, entry in self.entries.items() if not entry.left_out}

    def ask(self, keys: set[str], known: Iterable[str]) -> None:
        """Note that a command asks for the fits ``keys``; others are left out, but for those ``known`` before."""
        before = set(known)
        for key, entry in self.entries.items():
            new = entry.state == "waiting" and key not in before
            entry.left_out = key not in keys and (entry.left_out or new)

    def save(self) -> None:
        """Write the file, whole or not at all."""
        content = {
            "form": FORMS[-1],
            "written": now(),
            "launch": self.launch,
            "stages": {key: asdict(entry) for key, entry in self.entries.items()},
            "chain": asdict(self.plan),
        }
        write_json(self.place / (NAME if self.plan.kind in ("chain", "scaling study") else OTHERS), content)

    def write_recipes(self) -> None:
        """Write each stage's recipe where it differs."""
        plan = self.plan
        for name, stage in plan.stages.items():
            path = recipe_path(self.place, name)
            head = f"# Stage {name} of {plan.kind} {plan.name}: {stage.recipe}, resolved."
            content = f"{head} The {plan.kind} runs it from here.\n{yaml.safe_dump(stage.config, sort_keys=False)}"
            if stage.config and not (path.is_file() and path.read_text() == content):
                write_text(path, content)

    def forget(self, keys: set[str]) -> None:
        """Mark fits to run again, and all that read their checkpoints."""
        for key in self.entries:
            if key in keys or keys.intersection(self.plan.sources(key).values()):
                keys = keys | {key}
                self.entries[key] = Entry(left_out=self.entries[key].left_out)

    def follow(self, plan: Plan, changed: Iterable[str]) -> list[str]:
        """Go over to ``plan``: the stages that ``changed``, and what starts from them, are to run again.

        Returns:
            The folders of fits that are no longer there; they are left as they are.
        """
        gone = [key for key in self.entries if key not in plan.fits]
        self.plan = plan
        self.entries = {key: self.entries.get(key, Entry()) for key in plan.fits}
        self.forget({key for key, fit in plan.fits.items() if fit.stage in set(changed)})
        for name in plan.stages:  # before the state is written: an old one beside a new state would be a change
            recipe_path(self.place, name).unlink(missing_ok=True)
        return gone


def recipe_path(place: Path, stage: str) -> Path:
    """The path of the resolved recipe of a stage."""
    return place / "recipes" / f"{stage}.yaml"


def begin(place: Path, plan: Plan, launch: str = "") -> State:
    """The state of a plan that was never run."""
    return State(place, plan, {key: Entry() for key in plan.fits}, launch)


def holds(place: Path) -> bool:
    """Whether a folder holds the state of a plan."""
    return any((place / name).is_file() for name in (NAME, OTHERS))


def check_held(place: Path) -> None:
    """Raise where a folder holds neither a plan nor a run."""
    if not holds(place) and not (place / RECIPE).is_file():
        raise TinymimError(
            f"{place} holds neither a plan ({NAME} or {OTHERS}) nor a run ({RECIPE}); name the folder that a command "
            "wrote, such as runs/relation_digits"
        )


def load(place: Path) -> State:
    """Read the folder of a plan.

    Raises:
        TinymimError: no plan there, or a file that cannot be read.
    """
    path = next((place / name for name in (NAME, OTHERS) if (place / name).is_file()), None)
    if path is None:
        run = f"; it holds a run, of which `tinymim status {place}` tells" if (place / RECIPE).is_file() else ""
        raise TinymimError(f"{place} holds no chain: there is no {place / NAME}, and no {OTHERS} of another plan{run}")
    content = text.mapping(text.read_json(path, str(path)), str(path))
    if (form := content.get("form", FORMS[0])) not in FORMS:
        raise TinymimError(f"{path} has form {form}, and this version of tinymim reads {' and '.join(map(str, FORMS))}")
    written = record_schemas.fit(content, FileState, str(path))
    plan = written.chain
    if plan.compare:
        record_schemas.fit(plan.compare, CompareState, f"{path}: compare")
    try:
        shlex.split(written.launch)
    except ValueError as error:
        raise TinymimError(f"{path} cannot be read: launch: {error}") from None
    if strange := [*(written.stages.keys() - plan.fits.keys()), *_strange(plan)]:
        raise TinymimError(
            f"{path} cannot be read: stages: {', '.join(sorted(strange)[:4])}: none of its {plan.kind}'s"
        )
    return State(place, plan, written.stages, written.launch)


def _strange(plan: Plan) -> list[str]:
    """Names that a plan uses and has no stage of, or none above that which starts from it; commands without words."""
    names = [fit.stage for fit in plan.fits.values()]
    names += [name for names in (plan.compare.get("rows") or {}).values() for name in names]
    names += [source for stage in plan.stages.values() for source in stage.sources.values()]
    strange, above = [name for name in names if name not in plan.stages], set[str]()
    for name, stage in plan.stages.items():
        words = stage.config.get("words") if stage.kind == "command" else []
        texts = isinstance(words, list) and all(isinstance(word, str) for word in words)
        if not texts or (stage.parent and stage.parent not in above):
            strange.append(name)
        above.add(name)
    return strange


def as_edited(state: State) -> Plan:
    """The plan with the recipes that lie in its folder, which somebody may have edited."""
    stages = {}
    for name, stage in state.plan.stages.items():
        path, config = recipe_path(state.place, name), stage.config
        if stage.config and path.is_file():
            config = json.loads(json.dumps(spec.read(path, "recipe", "model and data"), default=str))
        stages[name] = dataclasses.replace(stage, config=config)
    return dataclasses.replace(state.plan, stages=stages)


def now() -> str:
    """Date and time, as they are written."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
