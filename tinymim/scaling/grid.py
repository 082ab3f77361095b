"""A scaling study as written in ``recipes/scaling/NAME.yaml``: a grid of pre-trainings, run as a chain.

about        a few sentences for the report
objectives   id: ``{recipe, set, sizes, fractions, lengths}``: what is trained; ``recipe`` pre-trains or distils (a list
             lays recipes over the first); the last three take a part of the grid, such as ``sizes: [S]``
sizes        id: ``{width, depth, heads}`` of the encoder, or of the student where the recipe distils
fractions    shares of the training images, as ``[0.1, 1.0]``; a larger one has all images of a smaller one
lengths      optimiser steps, the same whatever the fraction
warmup       share of the steps in which the learning rate rises
seeds        list; every cell is run once for each
mask_seeds   fixed masks under which each image is measured; distillation without masks has none to draw
evaluations  how often held-out and training losses are measured in a run, at equal distances and at its end
finetune     ``{recipe, set, of}``: what every cell is fine-tuned by; ``of: longest`` takes those of the longest
             length alone, without it ``all``; without ``finetune`` there are no accuracies
set          overrides of every pre-training, as ``{data.batch_size: 64}``
quick        laid over all of the above by ``--quick``
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl

from tinymim import recipes
from tinymim.chain import plan, promises
from tinymim.chain.changes import decisive
from tinymim.chain.plan import Chain
from tinymim.errors import TinymimError, several
from tinymim.run import outline, preflight
from tinymim.run.outline import laid_over, near, unknown

Written = dict[str, Any]

KEYS = {
    "": {
        *("about", "objectives", "sizes", "fractions", "lengths", "warmup", "seeds", "mask_seeds", "evaluations"),
        *("finetune", "set", "quick"),
    },
    "objectives": {"recipe", "set", "sizes", "fractions", "lengths"},
    "sizes": {"width", "depth", "heads"},
    "finetune": {"recipe", "set", "of"},
}
NEEDED = ("objectives", "sizes", "fractions", "lengths")
AXES = ("sizes", "fractions", "lengths")
DEFAULTS: Written = {"warmup": 0.05, "seeds": [0], "mask_seeds": 3, "evaluations": 5}
TIMM = {"width": "embed_dim", "depth": "depth", "heads": "num_heads"}
TUNED = "-ft"
"""Ends the name of a cell's fine-tuning."""

LONGEST_NAME = 20
"""Letters that the name of a stage may have (see ``tinymim/chain/grammar.py``)."""


@dataclass(frozen=True)
class Cell:
    """A pre-training of the grid.

    Args:
        objective: its id.
        size: its id.
        fraction: of the training images.
        length: optimiser steps.
        tuned: whether it is fine-tuned.
    """

    objective: str
    size: str
    fraction: float
    length: int
    tuned: bool = False

    @property
    def name(self) -> str:
        """Of its stage in the chain, and of its folder."""
        share = f"{100 * self.fraction:g}".replace(".", "_")
        steps = f"{self.length // 1000}k" if self.length % 1000 == 0 else str(self.length)
        return f"{self.objective}-{self.size}-{share}-{steps}"

    @property
    def data(self) -> str:
        """Its training set, for people."""
        return f"{100 * self.fraction:g}%"


@dataclass
class Study:
    """A parsed study; see the top of this file. ``cells`` are by the names of their stages in ``chain``."""

    name: str
    about: str
    cells: dict[str, Cell]
    chain: Chain


def load(name: str, quick: bool = False, settings: list[str] | None = None) -> Study:
    """Read a study.

    Args:
        name: of a file in ``recipes/scaling``, or a path.
        quick: lay its ``quick`` part over it.
        settings: as :func:`tinymim.chain.plan.load` takes them; cells are its stages.

    Raises:
        TinymimError: no such study, or mistakes in it, all of them together.
    """
    path = outline.find("scaling study", name)
    content = outline.read(path, "scaling study", "objectives and sizes")
    brief = content.pop("quick", None)
    if quick:
        if not isinstance(brief, dict):
            raise TinymimError(f"--quick: {path} has no `quick` part that says what is shorter")
        content = laid_over(content, brief)
    content = {**DEFAULTS, **content}
    if found := _mistakes(content):
        raise several(f"{path} has {len(found)} mistake(s)", found)
    cells = {cell.name: cell for cell in _cells(content)}
    about = (content.get("about") or "").strip()
    stages = [stage for cell in cells.values() for stage in _stages(cell, content)]
    whole = {"about": about, "seeds": content["seeds"], "stages": stages}
    return Study(path.stem, about, cells, plan.build(path.stem, whole, str(path), settings))


def _cells(content: Written) -> list[Cell]:
    """The grid, short runs first: a mistake that only shows at the end of a run shows early."""
    finetune = content.get("finetune") or {}
    found = []
    for id, objective in content["objectives"].items():
        sizes, fractions, lengths = (objective.get(axis) or content[axis] for axis in AXES)
        every = bool(finetune) and finetune.get("of", "all") == "all"
        found += [
            Cell(id, str(size), float(fraction), length, every or (bool(finetune) and length == max(lengths)))
            for length in lengths
            for fraction in fractions
            for size in sizes
        ]
    return sorted(found, key=lambda cell: cell.length)


def _stages(cell: Cell, content: Written) -> list[Written]:
    """A cell as stages of a chain."""
    objective = content["objectives"][cell.objective]
    config = _resolved(objective["recipe"])
    options = (config.get("model") or {}).get("init_args") or {}
    distils = "teacher" in options
    network = "model.student" if distils else "model.architecture"
    accumulated = (config.get("trainer") or {}).get("accumulate_grad_batches") or 1
    own = {
        **(content.get("set") or {}),
        **(objective.get("set") or {}),
        **{f"{network}.options.{TIMM[key]}": value for key, value in content["sizes"][cell.size].items()},
        "data.fraction": cell.fraction,
        "trainer.max_epochs": -1,
        "trainer.max_steps": cell.length,
        "trainer.check_val_every_n_epoch": None,  # but every so many batches, however many an epoch has
        "trainer.val_check_interval": max(cell.length // content["evaluations"], 1) * accumulated,
        "model.optim.warmup_steps": round(cell.length * content["warmup"]),
        "model.train_loss": True,
        **({} if distils else {"model.mask_seeds": content["mask_seeds"]}),
    }
    kind = "distill" if distils else "pretrain"
    stages = [{"name": cell.name, "kind": kind, "recipe": objective["recipe"], "set": own}]
    if cell.tuned:
        tuning = content["finetune"]
        stages.append(
            {
                "name": cell.name + TUNED,
                "kind": "finetune",
                "recipe": tuning["recipe"],
                "weights": cell.name,
                "set": tuning.get("set") or {},
            }
        )
    return stages


def _resolved(recipe: str | list[str]) -> recipes.Config:
    listed = recipe if isinstance(recipe, list) else [recipe]
    return recipes.resolve([text for one in listed for text in ("--config", one)])[0]


def too_small(study: Study) -> list[str]:
    """Objectives whose smallest fraction has fewer images than a step takes, which would take another batch than the
    other cells. Lists the images; data that are not here are passed over."""
    found = []
    smallest: dict[str, Cell] = {}
    for cell in study.cells.values():
        smallest[cell.objective] = min(smallest.get(cell.objective, cell), cell, key=lambda one: one.fraction)
    for cell in smallest.values():
        stage = study.chain.stages[cell.name]
        data = preflight.build(pl.LightningDataModule, promises.seeded(stage.config).get("data"), [])
        try:
            images = promises.count(data)
        except (TinymimError, OSError, AttributeError):
            continue
        batch = decisive(stage)["total_batch"]
        batch = batch if isinstance(batch, int) else data.batch_size
        if images < batch:
            found.append(
                f"fractions: {cell.fraction:g} of the training images of {cell.objective} are {images}, fewer than a "
                f"step's {batch}, and all cells take the same batch; take a larger fraction or a smaller "
                "data.batch_size"
            )
    return found


def _mistakes(content: Written) -> list[str]:
    """What is wrong with the text of a study."""
    found = unknown(content, "", KEYS[""])
    found += [f"{key}: missing or empty" for key in NEEDED if not content.get(key)]
    if found:
        return found
    for part in ("objectives", "sizes"):
        if not isinstance(content[part], dict):
            return [f"{part}: {content[part]!r} is not a mapping of ids to {', '.join(sorted(KEYS[part]))}"]
    found += _list_mistakes("fractions", content["fractions"]) + _list_mistakes("lengths", content["lengths"])
    seeds = content["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        found.append(f"seeds: {seeds!r} is not a list of whole numbers from 0, such as [0, 1, 2]")
    for key in ("mask_seeds", "evaluations"):
        if type(content[key]) is not int or content[key] < 1:
            found.append(f"{key}: {content[key]!r} is not a whole number from 1")
    if not isinstance(content["warmup"], (int, float)) or not 0 <= content["warmup"] <= 1:
        found.append(f"warmup: {content['warmup']!r} is not a share of the steps, from 0 to 1")
    for id, size in content["sizes"].items():
        found += _size_mistakes(f"sizes.{id}", size)
    for id, objective in content["objectives"].items():
        found += _objective_mistakes(f"objectives.{id}", objective, content)
    found += _finetune_mistakes(content.get("finetune"))
    if not isinstance(content.get("set") or {}, dict):
        found.append(f"set: {content['set']!r} is not a mapping such as {{data.batch_size: 64}}")
    return found or _name_mistakes(_cells(content))


def _list_mistakes(path: str, values: Any) -> list[str]:
    """Of fractions or lengths."""
    shares = path.endswith("fractions")
    what = "shares of the training images, above 0 and up to 1" if shares else "optimiser steps, whole numbers from 1"
    if not isinstance(values, list) or not values:
        return [f"{path}: {values!r} is not a list of {what}"]

    def good(value: Any) -> bool:
        return type(value) in (int, float) and 0 < value <= 1 if shares else type(value) is int and value >= 1

    found = [f"{path}: {value!r} is not one of {what}" for value in values if not good(value)]
    return found or [f"{path}: {value} twice" for value in dict.fromkeys(values) if values.count(value) > 1]


def _size_mistakes(path: str, size: Any) -> list[str]:
    if not isinstance(size, dict):
        return [f"{path}: {size!r} is not a mapping of width, depth and heads"]
    found = unknown(size, path, KEYS["sizes"]) + [f"{path}.{key}: missing" for key in TIMM if key not in size]
    for key, value in size.items():
        if key in TIMM and (type(value) is not int or value < 1):
            found.append(f"{path}.{key}: {value!r} is not a whole number from 1")
    return found


def _objective_mistakes(path: str, objective: Any, content: Written) -> list[str]:
    if not isinstance(objective, dict):
        return [f"{path}: {objective!r} is not a mapping of {', '.join(sorted(KEYS['objectives']))}"]
    found = unknown(objective, path, KEYS["objectives"]) + _recipe_mistakes(path, objective)
    for axis in ("fractions", "lengths"):
        if axis in objective:
            found += _list_mistakes(f"{path}.{axis}", objective[axis])
    if "sizes" in objective:
        sizes = objective["sizes"]
        if not isinstance(sizes, list) or not sizes:
            found.append(f"{path}.sizes: {sizes!r} is not a list of sizes, such as {list(content['sizes'])}")
        else:
            found += [
                f"{path}.sizes: no size {size!r}{near(size, map(str, content['sizes']))}"
                for size in sizes
                if size not in content["sizes"]
            ]
    return found


def _recipe_mistakes(path: str, node: Written) -> list[str]:
    """Of a part that names a recipe: once here, not for each of its cells."""
    if not node.get("recipe"):
        return [f"{path}.recipe: missing"]
    found = []
    if not isinstance(node.get("set") or {}, dict):
        found.append(f"{path}.set: {node['set']!r} is not a mapping such as {{data.batch_size: 64}}")
    try:
        _resolved(node["recipe"])
    except TinymimError as error:
        found.append(f"{path}.recipe: {error}")
    return found


def _finetune_mistakes(finetune: Any) -> list[str]:
    if finetune is None:
        return []
    if not isinstance(finetune, dict):
        return [f"finetune: {finetune!r} is not a mapping of recipe, set and of"]
    found = unknown(finetune, "finetune", KEYS["finetune"]) + _recipe_mistakes("finetune", finetune)
    if finetune.get("of", "all") not in ("all", "longest"):
        found.append(f"finetune.of: {finetune['of']!r} is neither all nor longest")
    return found


def _name_mistakes(cells: list[Cell]) -> list[str]:
    """Cells whose names are too long for a folder of a chain."""
    names = [cell.name + TUNED * cell.tuned for cell in cells]
    long = max(names, key=len)
    if len(long) <= LONGEST_NAME:
        return []
    return [
        f"objectives, sizes: {long} would be the name of a stage and has {len(long)} letters, where {LONGEST_NAME} are "
        "the most; shorten their ids"
    ]
