"""The folder of a chain, and the one file that says how far it is.

DIR/chain.json             the state: for each stage how it went, and the sha256 of its recipe, inputs and outputs;
                           at the end, the chain itself, so that it can be resumed from this folder alone
DIR/recipes/STAGE.yaml     the resolved recipe of each stage, from which it runs
DIR/STAGE/                 its run folder; an export's has student.safetensors
DIR/seedN/STAGE/           in their place where the chain names seeds
DIR/logs/                  output of the stages where several run at once
DIR/table.md, table.json   the comparison, where the chain has one
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from tinymim.config import spec
from tinymim.errors import TinymimError
from tinymim.experiments import changes, file_schemas
from tinymim.experiments.plan import Chain, Stage
from tinymim.experiments.settings import Settings
from tinymim.files import write_json, write_text
from tinymim.safety import text
from tinymim.teachers import record_schemas

NAME = "chain.json"
FORM = 1
"""Number of this form of the file; another one is not read."""

Progress = Literal["waiting", "running", "interrupted", "failed", "done"]


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
    """A chain in its folder."""

    place: Path
    chain: Chain
    entries: dict[str, Entry]
    launch: str = ""

    def save(self) -> None:
        """Write the file, whole or not at all."""
        content = {
            "form": FORM,
            "written": now(),
            "launch": self.launch,
            "stages": {key: asdict(entry) for key, entry in self.entries.items()},
            "chain": asdict(self.chain),
        }
        write_json(self.place / NAME, content)

    def write_recipes(self) -> None:
        """Write each stage's recipe where it differs."""
        for name, stage in self.chain.stages.items():
            path = recipe_path(self.place, name)
            text = (
                f"# Stage {name} of chain {self.chain.name}: {stage.recipe}, resolved. The chain runs it from here.\n"
            )
            text += yaml.safe_dump(stage.config, sort_keys=False)
            if stage.config and not (path.is_file() and path.read_text() == text):
                write_text(path, text)

    def stage(self, key: str) -> Stage:
        """The stage of a key such as ``seed0/tiny``."""
        return self.chain.stages[key.rpartition("/")[2]]

    def forget(self, keys: set[str]) -> None:
        """Have these stages run again, and all that starts from them."""
        for key in self.entries:
            if key in keys or self.chain.parent(key) in keys:
                keys = keys | {key}
                self.entries[key] = Entry()

    def follow(self, chain: Chain) -> list[str]:
        """Go over to ``chain``: stages that changed, and what starts from them, are to run again.

        Returns:
            The folders of stages that are no longer there; they are left as they are.
        """
        changed, keys = changes.between(self.chain, chain), list(chain.runs())
        gone = [key for key in self.entries if key not in keys]
        self.chain = chain
        self.entries = {key: self.entries.get(key, Entry()) for key in keys}
        self.forget({key for key in keys if self.stage(key).name in changed})
        for name in chain.stages:  # before the state is written: an old one beside a new state would be a change
            recipe_path(self.place, name).unlink(missing_ok=True)
        return gone


def recipe_path(place: Path, stage: str) -> Path:
    """Where the resolved recipe of a stage lies."""
    return place / "recipes" / f"{stage}.yaml"


def begin(place: Path, chain: Chain, launch: str) -> State:
    """The state of a chain that was never run."""
    return State(place, chain, {key: Entry() for key in chain.runs()}, launch)


def load(place: Path) -> State:
    """Read a chain's folder.

    Raises:
        TinymimError: no chain there, or a file that cannot be read.
    """
    path = place / NAME
    if not path.is_file():
        raise TinymimError(f"{place} holds no chain: there is no {path}")
    try:
        content = text.mapping(text.read_json(path, str(path)), str(path))
        if content.get("form", FORM) != FORM:
            raise TinymimError(f"{path} has form {content['form']}, and this version of tinymim reads {FORM}")
        record_schemas.fit(content, file_schemas.ChainState, str(path))
        written = content["chain"]
        stages = {name: Stage(**stage) for name, stage in written["stages"].items()}
        chosen = Settings(**written["settings"]) if written.get("settings") else None
        chain = Chain(**{**written, "stages": stages, "settings": chosen})
        if strange := content["stages"].keys() - chain.runs().keys():
            raise TinymimError(f"{path} cannot be read: stages: {', '.join(sorted(strange)[:4])}: none of its chain's")
        entries = {key: Entry(**entry) for key, entry in content["stages"].items()}
        return State(place, chain, entries, content["launch"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TinymimError(f"{path} cannot be read ({type(error).__name__}: {error}); restore it from a copy") from None


def as_edited(state: State) -> Chain:
    """The chain with the recipes that lie in its folder, which somebody may have edited."""
    stages = {}
    for name, stage in state.chain.stages.items():
        path, config = recipe_path(state.place, name), stage.config
        if stage.config and path.is_file():
            config = json.loads(json.dumps(spec.read(path, "recipe", "model and data"), default=str))
        stages[name] = Stage(**{**asdict(stage), "config": config})
    return Chain(**{**vars(state.chain), "stages": stages})


def now() -> str:
    """Date and time, as they are written."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file, or nothing where it is not there or not whole."""
    try:
        content = text.read_json(path, str(path))
    except TinymimError:
        return {}
    return content if isinstance(content, dict) else {}
