"""The folder of a plan, and the one file that says how far it is.

DIR/chain.json, plan.json  the state: for each fit how it went, and the sha256 of its recipe, inputs and outputs;
                           at the end, the plan itself. The first is of chains and scaling studies, which are gone on
                           with from the folder alone, the second of all others
DIR/recipes/STAGE.yaml     the resolved recipe of each stage, from which it runs
DIR/STAGE/                 its run folder; an export's has student.safetensors
DIR/seedN/STAGE/           in their place where a chain names seeds; the folders of others stand in their readers
DIR/logs/                  output of the fits where several run at once
DIR/table.md, table.json   the comparison, where a chain has one
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from msgspec import Meta, Struct

from tinymim.config import spec
from tinymim.errors import TinymimError
from tinymim.experiments.plan import Fit, Plan, Stage
from tinymim.experiments.schema import CompareText, SettingsText
from tinymim.experiments.settings import Settings
from tinymim.files import write_json, write_text
from tinymim.safety import text
from tinymim.safety.names import PLAIN
from tinymim.teachers import record_schemas
from tinymim.teachers.record_schemas import Line, Plain, Whole

NAME, OTHERS = "chain.json", "plan.json"
FORMS = (1, 2)
"""Numbers of the forms of the file that are read; the first has chains alone. The last is written."""

MOST = 8_000
"""Stages and fits of a plan; text.MOST_JSON leaves room for no more."""

Progress = Literal["waiting", "running", "interrupted", "failed", "done"]


Steps = Annotated[str, Meta(pattern=rf"^{PLAIN}(/{PLAIN})*\Z")]
"""A folder below a plan's."""


class StageState(Struct, forbid_unknown_fields=True):
    """A stage as the state of a plan has it."""

    name: Steps
    kind: Line
    recipe: Line
    config: Plain
    start: Line | None = None
    parent: Line | None = None
    sources: dict[Line, Line] = {}


class SettingsState(SettingsText):
    """Settings as the state of a plan has them."""

    source: Line = ""


class FitState(Struct, forbid_unknown_fields=True):
    """A fit as the state of a plan has it."""

    stage: Line
    seed: Whole | None = None


class PlanState(Struct, forbid_unknown_fields=True):
    """A plan as its state has it."""

    name: Line
    stages: Annotated[dict[Steps, StageState], Meta(max_length=MOST)]
    kind: Literal["chain", "scaling study", "study", "comparison", "search", "program"] = "chain"
    fits: Annotated[dict[Steps, FitState], Meta(max_length=MOST)] = {}
    command: Line = ""
    about: str = ""
    seeds: list[Whole] | None = None
    compare: Plain | None = None
    settings: SettingsState | None = None


class CompareState(CompareText, forbid_unknown_fields=False):
    """A chain's comparison as its state has it."""


class EntryState(Struct, forbid_unknown_fields=True):
    """How far a stage is."""

    state: Literal["waiting", "running", "interrupted", "failed", "done"] = "waiting"
    recipe: Line | None = None
    inputs: dict[str, Line] = {}
    outputs: dict[str, Line] = {}
    started: Line | None = None
    ended: Line | None = None
    process: Plain | None = None
    exit_code: int | None = None
    error: str | None = None


class FileState(Struct):
    """``chain.json``."""

    form: int
    chain: PlanState
    stages: dict[str, EntryState]
    launch: Line


@dataclass
class Entry:
    """One stage from one seed.

    Args:
        state: how far it is; ``running`` of a chain that nobody runs any more was cut off.
        recipe: sha256 of all that decides its results.
        inputs: sha256 of what it started from, by the name the recipe gives it.
        outputs: sha256 of what it left, by path in its folder.
        started: when it was begun first.
        ended: when it was left last.
        process: ``host`` and ``pid`` of what runs it, or ran it last.
        exit_code: of that.
        error: why it failed.
    """

    state: Progress = "waiting"
    recipe: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    started: str | None = None
    ended: str | None = None
    process: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    error: str | None = None


@dataclass
class State:
    """A plan in its folder."""

    place: Path
    plan: Plan
    entries: dict[str, Entry]
    launch: str = ""

    def save(self) -> None:
        """Write the file, whole or not at all."""
        content = {
            "form": FORMS[-1],
            "written": now(),
            "launch": self.launch,
            "stages": {key: asdict(entry) for key, entry in self.entries.items()},
            "chain": asdict(self.plan),
        }
        write_json(self.place / file_name(self.plan), content)

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
        """Have these fits run again, and all that read their checkpoints."""
        for key in self.entries:
            if key in keys or keys.intersection(self.plan.sources(key).values()):
                keys = keys | {key}
                self.entries[key] = Entry()

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


def file_name(plan: Plan) -> str:
    """The name of the file that says how far a plan is."""
    return NAME if plan.kind in ("chain", "scaling study") else OTHERS


def recipe_path(place: Path, stage: str) -> Path:
    """The path of the resolved recipe of a stage."""
    return place / "recipes" / f"{stage}.yaml"


def begin(place: Path, plan: Plan, launch: str = "") -> State:
    """The state of a plan that was never run."""
    return State(place, plan, {key: Entry() for key in plan.fits}, launch)


def holds(place: Path) -> bool:
    """Whether a folder holds the state of a plan."""
    return any((place / name).is_file() for name in (NAME, OTHERS))


def load(place: Path) -> State:
    """Read the folder of a plan.

    Raises:
        TinymimError: no plan there, or a file that cannot be read.
    """
    path = next((place / name for name in (NAME, OTHERS) if (place / name).is_file()), None)
    if path is None:
        raise TinymimError(f"{place} holds no chain: there is no {place / NAME}, and no {OTHERS} of another plan")
    try:
        content = text.mapping(text.read_json(path, str(path)), str(path))
        if content.get("form", FORMS[0]) not in FORMS:
            raise TinymimError(
                f"{path} has form {content['form']}, and this version of tinymim reads {' and '.join(map(str, FORMS))}"
            )
        record_schemas.fit(content, FileState, str(path))
        written = content["chain"]
        stages = {name: Stage(**stage) for name, stage in written["stages"].items()}
        chosen = Settings(**written["settings"]) if written.get("settings") else None
        fits = {key: Fit(**fit) for key, fit in (written.get("fits") or {}).items()}
        plan = Plan(**{**written, "stages": stages, "settings": chosen, "fits": fits})
        if plan.compare:
            record_schemas.fit(plan.compare, CompareState, f"{path}: compare")
        shlex.split(content["launch"])
        if strange := [*(content["stages"].keys() - plan.fits.keys()), *_strange(plan)]:
            raise TinymimError(
                f"{path} cannot be read: stages: {', '.join(sorted(strange)[:4])}: none of its {plan.kind}'s"
            )
        entries = {key: Entry(**entry) for key, entry in content["stages"].items()}
        return State(place, plan, entries, content["launch"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TinymimError(f"{path} cannot be read ({type(error).__name__}: {error}); restore it from a copy") from None


def _strange(plan: Plan) -> list[str]:
    """Names that a plan uses and has no stage of, or none above that which starts from it; commands without words."""
    found = [fit.stage for fit in plan.fits.values()]
    found += [name for names in (plan.compare.get("rows") or {}).values() for name in names]
    found += [source for stage in plan.stages.values() for source in stage.sources.values()]
    strange, above = [name for name in found if name not in plan.stages], set[str]()
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
