"""A chain as written in ``recipes/chains/NAME.yaml``: stages, each a recipe with overrides, and what each starts from.

about        a few sentences on what it is for
seeds        list; every stage is run once for each, in a folder of its own; without it, once with its recipe's own seed
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
from dataclasses import dataclass, field
from typing import Any

from tinymim.config import recipe as recipes
from tinymim.config import spec
from tinymim.config.spec import texts
from tinymim.errors import TinymimError, several
from tinymim.experiments import chain_schema
from tinymim.experiments import settings as settings_file
from tinymim.experiments.settings import Settings

CHECKPOINT = "checkpoints/last.ckpt"
"""Where a fit leaves its weights, in its run folder."""

SEED = "${seed_everything}"
MARK = "seed-goes-here"


@dataclass
class Stage:
    """One stage.

    Args:
        name: of the stage, and of its folder.
        kind: one of :data:`tinymim.experiments.chain_schema.SOURCES`.
        recipe: its name, for people.
        config: the resolved recipe; :data:`SEED` stands wherever it uses the seed. Empty for an export.
        start: what it starts from, as written: nothing, a card's name or a file's path, or the name of :attr:`parent`.
        parent: the stage it starts from, if it is one.
    """

    name: str
    kind: str
    recipe: str
    config: recipes.Config
    start: str | None = None
    parent: str | None = None


@dataclass
class Chain:
    """A chain; its ``stages`` are in an order in which they can run."""

    name: str
    stages: dict[str, Stage]
    about: str = ""
    seeds: list[int] | None = None
    compare: dict[str, Any] = field(default_factory=dict)
    settings: Settings | None = None

    def runs(self) -> dict[str, int | None]:
        """What there is to run, seed by seed: a key such as ``seed0/tiny``, which is also its folder; and the seed."""
        if self.seeds is None:
            return dict.fromkeys(self.stages)
        return {f"seed{seed}/{name}": seed for seed in self.seeds for name in self.stages}

    def parent(self, key: str) -> str | None:
        """The key of the stage that ``key`` starts from."""
        base, between, name = key.rpartition("/")
        parent = self.stages[name].parent
        return f"{base}{between}{parent}" if parent else None


def load(name: str, settings: list[str] | None = None, configs: list[str] | None = None) -> Chain:
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
    name: str,
    content: dict[str, Any],
    source: str,
    settings: list[str] | None = None,
    configs: list[str] | None = None,
) -> Chain:
    """The chain that a file's content describes.

    Args:
        name: of the chain.
        content: as the file has it.
        source: where the content comes from, for the error.
        settings: as :func:`load` takes them.
        configs: likewise.

    Raises:
        TinymimError: mistakes in it, all of them together.
    """
    found = chain_schema.mistakes(content)
    if not found:
        overrides, found = chain_schema.settle(settings or [], content)
        found += chain_schema.start_mistakes(content["stages"])
    if not found:
        chosen = settings_file.load(content["settings"]) if content.get("settings") else Settings()
        rows = (content.get("compare") or {}).get("rows") or {}
        stages = {}
        for written in chain_schema.in_order(content["stages"]):
            try:
                own = [
                    *texts(content.get("set")),
                    *texts(written.get("set")),
                    *_own(written, rows, chosen),
                    *overrides[""],
                    *overrides[written["name"]],
                ]
                stages[written["name"]] = _stage(written, content["stages"], own, configs or [])
            except TinymimError as error:
                found.append(f"stages.{written['name']}: {error}")
    if found:
        raise several(f"{source} has {len(found)} mistake(s)", found)
    about = (content.get("about") or "").strip()
    settled = chosen if content.get("settings") or content.get("search") else None
    return Chain(name, stages, about, content.get("seeds"), content.get("compare") or {}, settled)


def _own(written: dict[str, Any], rows: dict[str, list[str]], chosen: Settings) -> list[str]:
    """The settings that the row of a stage has chosen for it."""
    titles = [title for title, names in rows.items() if written["name"] in names]
    return [text for title in titles for text in chosen.texts(title, written["kind"])]


def _stage(written: dict[str, Any], all: list[dict[str, Any]], overrides: list[str], configs: list[str]) -> Stage:
    kind, named = written["kind"], written.get("recipe") or []
    start, parent = chain_schema.start(written, all)
    if kind == "export":
        return Stage(written["name"], kind, "", {}, start, parent)
    listed = [*(named if isinstance(named, list) else [named]), *configs]
    path = f"{parent}/{CHECKPOINT}" if parent else start
    if kind == "distill" and path:
        overrides = [*overrides, f"--model.teacher={json.dumps(path)}"]
    elif path:  # the record of the weights says the architecture
        overrides = [*overrides, f"--model.weights={json.dumps(path)}", "--model.architecture=null"]
    elif kind in ("finetune", "probe"):
        overrides = [*overrides, "--model.weights=null"]
    arguments = [*(text for recipe in listed for text in ("--config", recipe)), *overrides]
    seed = recipes.resolve(arguments)[0].get("seed_everything", 0)
    marked = recipes.resolve([*arguments, f"--seed_everything={MARK}"])[0]
    config = {key: value for key, value in _unmarked(marked).items() if key not in chain_schema.OWN} | {
        "seed_everything": seed
    }
    if kind == "distill" and not start:
        start = _teacher(config)
    return Stage(written["name"], kind, " + ".join(listed), json.loads(json.dumps(config)), start, parent)


def _teacher(config: recipes.Config) -> str:
    """The teacher that a recipe names by itself."""
    named = ((config.get("model") or {}).get("init_args") or {}).get("teacher")
    if not named:
        raise TinymimError("teacher: missing, and its recipe names none; give a card, a checkpoint, or a stage's name")
    return str(named)


def _unmarked(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _unmarked(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_unmarked(value) for value in node]
    return node.replace(MARK, SEED) if isinstance(node, str) else node
