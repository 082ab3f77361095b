"""A plan: fits that build on each other, each with its resolved recipe, its seed and its folder.

Every file that lists fits is read into one (``chain.py``, ``study.py``, ``grid.py``, ``compare.py``, ``search.py``),
and every plan is checked (``plan_check.py``), run (``runner.py``) and gone on with (``state.py``) in the same way.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from msgspec import Meta

from tinymim.config import recipe as recipes
from tinymim.experiments.settings import Settings
from tinymim.safety.names import PLAIN
from tinymim.teachers.record_schemas import Line, Plain, Whole

CHECKPOINT = "checkpoints/last.ckpt"
"""The weights that a fit leaves in its run folder."""

MOST = 8_000
"""Stages and fits of a plan; text.MOST_JSON leaves room for no more in its state."""

SEED = "${seed_everything}"
MARK = "seed-goes-here"

Steps = Annotated[str, Meta(pattern=rf"^{PLAIN}(/{PLAIN})*\Z")]
"""A folder below a plan's."""

SETTLED = ("name", "run_dir", "overwrite", "ckpt_path", "compare")
"""Keys of a recipe that the plan settles itself."""


@dataclass
class Stage:
    """One fit, test or export, run once for each seed.

    Args:
        name: of the stage, unique in its plan.
        kind: ``pretrain``, ``distill``, ``finetune``, ``probe`` or ``export`` of a chain; ``fit`` or ``test`` of
            others.
        recipe: its name, for people.
        config: the resolved recipe; :data:`SEED` stands wherever it uses the seed. Empty for an export.
        start: its teacher, or the weights it starts from, as written: nothing, a card's name, a file's path, or the
            name of :attr:`parent`.
        parent: the stage whose checkpoint that is, if it is one.
        sources: the stages whose checkpoints it reads, by the path that stands for each in ``config``.
    """

    name: Steps
    kind: Line
    recipe: Line
    config: Plain
    start: Line | None = None
    parent: Line | None = None
    sources: dict[Line, Line] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.parent and not self.sources:
            self.sources = {f"{self.parent}/{CHECKPOINT}": self.parent}


@dataclass(frozen=True)
class Fit:
    """A stage under one seed; ``None`` leaves its recipe's own."""

    stage: Line
    seed: Whole | None = None


@dataclass
class Plan:
    """Stages in an order in which they can run, and their fits.

    Args:
        name: of the plan.
        stages: by name.
        about: what it is for.
        seeds: of its fits; ``None`` leaves each recipe's own.
        compare: the comparison at the end of a chain.
        settings: what each row of a comparison has chosen.
        kind: of the file it was read from.
        fits: by key, which is the fit's folder below the plan's; by default every stage under every seed, in ``STAGE``
            or ``seedN/STAGE``.
        command: that began it, as text; empty for a chain.
    """

    name: Line
    stages: Annotated[dict[Steps, Stage], Meta(max_length=MOST)]
    about: str = ""
    seeds: list[Whole] | None = None
    compare: Plain = field(default_factory=dict)
    settings: Settings | None = None
    kind: Literal["chain", "scaling study", "study", "comparison", "search", "program"] = "chain"
    fits: Annotated[dict[Steps, Fit], Meta(max_length=MOST)] = field(default_factory=dict)
    command: str = ""

    def __post_init__(self) -> None:
        if self.fits:
            return
        if self.seeds is None:
            self.fits = {name: Fit(name) for name in self.stages}
        else:
            self.fits = {f"seed{seed}/{name}": Fit(name, seed) for seed in self.seeds for name in self.stages}

    def stage(self, key: str) -> Stage:
        """The stage of a fit."""
        return self.stages[self.fits[key].stage]

    @functools.cached_property
    def _keys(self) -> dict[str, dict[int | None, str]]:
        keys: dict[str, dict[int | None, str]] = {}
        for key, fit in self.fits.items():
            keys.setdefault(fit.stage, {})[fit.seed] = key
        return keys

    def key(self, stage: str, seed: int | None) -> str | None:
        """The fit of a stage under a seed; a stage with one fit has it for all seeds."""
        by_seed = self._keys.get(stage, {})
        return by_seed.get(seed) or (next(iter(by_seed.values())) if len(by_seed) == 1 else None)

    def sources(self, key: str) -> dict[str, str]:
        """The fits whose checkpoints a fit reads, by the path that stands for each in its recipe."""
        fit = self.fits[key]
        keys = {path: self.key(stage, fit.seed) for path, stage in self.stages[fit.stage].sources.items()}
        return {path: source for path, source in keys.items() if source}

    def parent(self, key: str) -> str | None:
        """The fit whose checkpoint ``key`` takes as its teacher or its first weights."""
        stage = self.stage(key)
        return self.key(stage.parent, self.fits[key].seed) if stage.parent else None

    def with_sources(self, keys: Iterable[str]) -> set[str]:
        """Some fits, and those whose checkpoints they read, at any remove."""
        wanted: set[str] = set()
        waiting = list(keys)
        while waiting:
            if (key := waiting.pop()) not in wanted:
                wanted.add(key)
                waiting += self.sources(key).values()
        return wanted

    def part(self, keys: Iterable[str]) -> Plan:
        """The plan of some fits alone, and of those whose checkpoints they read."""
        wanted = self.with_sources(keys)
        fits = {key: fit for key, fit in self.fits.items() if key in wanted}
        used = {fit.stage for fit in fits.values()}
        return replace(self, stages={name: stage for name, stage in self.stages.items() if name in used}, fits=fits)

    def with_descendants(self, stages: Iterable[str]) -> set[str]:
        """Some stages, and those that read their checkpoints, at any remove."""
        reached = set(stages)
        for stage in self.stages.values():  # sources stand above what reads them
            if reached.intersection(stage.sources.values()):
                reached.add(stage.name)
        return reached


@functools.lru_cache(maxsize=4096)
def _resolved(files: tuple[tuple[str, int], ...], overrides: tuple[str, ...]) -> str:
    arguments = [*(text for path, _ in files for text in ("--config", path)), *overrides]
    seed = recipes.resolve(arguments)[0].get("seed_everything", 0)
    marked = recipes.resolve([*arguments, f"--seed_everything={MARK}"])[0]
    kept = {key: value for key, value in marked.items() if key not in SETTLED}
    return json.dumps(_filled(kept, re.compile(MARK), SEED) | {"seed_everything": seed})


def resolved(recipe: str | list[str], overrides: Iterable[str]) -> recipes.Config:
    """A resolved recipe as stages keep it, with :data:`SEED` wherever it uses the seed.

    Args:
        recipe: its name or path, or several that are laid over each other.
        overrides: of a command line.

    Raises:
        TinymimError: an unknown recipe, or an override that is not YAML.
    """
    paths = [recipes.find(name) for name in (recipe if isinstance(recipe, list) else [recipe])]
    files = tuple((str(path), path.stat().st_mtime_ns) for path in paths)  # rows share most stages: resolve each once
    config: recipes.Config = json.loads(_resolved(files, tuple(overrides)))
    return config


def _filled(node: Any, pattern: re.Pattern[str], value: Any) -> Any:
    """``node`` with ``value`` wherever the pattern matches; where it matches the whole text, of the value's type."""
    if isinstance(node, dict):
        return {key: _filled(inner, pattern, value) for key, inner in node.items()}
    if isinstance(node, list):
        return [_filled(inner, pattern, value) for inner in node]
    if not isinstance(node, str):
        return node
    return value if pattern.fullmatch(node) else pattern.sub(lambda _: str(value), node)


def seeded(config: recipes.Config, seed: int | None = None) -> recipes.Config:
    """A stage's recipe with its seed in place, its own where ``None``."""
    number = config.get("seed_everything", 0) if seed is None else seed
    return _filled(copy.deepcopy(config), re.compile(re.escape(SEED)), number) | {"seed_everything": number}


def with_paths(node: Any, paths: dict[str, str]) -> Any:
    """A recipe, or a part of one, with other paths in place of those that stand for checkpoints."""
    for path, actual in paths.items():
        node = _filled(node, re.compile(rf"(?<![\w/.-]){re.escape(path)}"), actual)
    return node


def overrides(node: Any, paths: dict[str, str], key: str = "") -> list[str]:
    """:func:`with_paths` as overrides of the recipe ``node``; a list is given as a whole."""
    if isinstance(node, dict):
        below = {name: key if name == "init_args" else f"{key}.{name}".lstrip(".") for name in node}
        return [text for name, path in below.items() for text in overrides(node[name], paths, path)]
    changed = with_paths(node, paths)
    return [] if changed == node else [f"--{key}={json.dumps(changed)}"]


def in_order(stages: dict[str, Stage]) -> dict[str, Stage]:
    """Stages behind those whose checkpoints they read, else as they are."""
    ordered: dict[str, Stage] = {}

    def add(stage: Stage) -> None:
        if stage.name not in ordered:
            for source in stage.sources.values():
                add(stages[source])
            ordered[stage.name] = stage

    for stage in stages.values():
        add(stage)
    return ordered


def keeps_checkpoint(stage: Stage) -> bool:
    """Whether a fit leaves a checkpoint."""
    return (stage.config.get("trainer") or {}).get("enable_checkpointing") is not False
