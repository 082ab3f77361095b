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

import lightning.pytorch as pl

from tinymim.config import recipe, spec
from tinymim.config.spec import shortened
from tinymim.errors import TinymimError, mistaken
from tinymim.experiments import chain, grid_check, plan_check
from tinymim.experiments.grid_check import TUNED, Written
from tinymim.experiments.plan import Plan, seeded
from tinymim.experiments.plan_changes import decisive
from tinymim.training import preflight

AXES = ("sizes", "fractions", "lengths")
DEFAULTS: Written = {"warmup": 0.05, "seeds": [0], "mask_seeds": 3, "evaluations": 5}
PLACES = {"width": "options.embed_dim", "depth": "options.depth", "heads": "heads"}
"""Keys of a size's numbers in an architecture."""
LONGEST_NAME = 20
"""Letters that the name of a stage may have (see ``tinymim/experiments/chain.py``)."""


@dataclass(frozen=True)
class Cell:
    """A pre-training of the grid: ids of its objective and size, the fraction of the training images, optimiser steps,
    and whether it is fine-tuned."""

    objective: str
    size: str
    fraction: float
    length: int
    tuned: bool = False

    @property
    def name(self) -> str:
        """Name of its stage in the plan, and of its folder."""
        share = f"{100 * self.fraction:g}".replace(".", "_")
        steps = f"{self.length // 1000}k" if self.length % 1000 == 0 else str(self.length)
        return f"{self.objective}-{self.size}-{share}-{steps}"

    @property
    def data(self) -> str:
        """Its training set, for people."""
        return f"{100 * self.fraction:g}%"


@dataclass
class Grid:
    """A parsed study; see the top of this file. ``cells`` are by the names of their stages in ``plan``."""

    name: str
    about: str
    objectives: list[str]
    cells: dict[str, Cell]
    plan: Plan


def load(name: str, quick: bool = False, settings: list[str] | None = None) -> Grid:
    """Read a study.

    Args:
        name: of a file in ``recipes/scaling``, or a path.
        quick: lay its ``quick`` part over it.
        settings: as :func:`tinymim.experiments.chain.load` takes them; cells are its stages.

    Raises:
        TinymimError: no such study, or mistakes in it, all of them together.
    """
    path = spec.find("scaling study", name)
    content = shortened(spec.read(path, "scaling study", "objectives and sizes"), path, quick)
    content = {**DEFAULTS, **content}
    errors = grid_check.mistakes(content) + grid_check.setting_mistakes(settings or [])
    listed = [] if errors else _cells(content)
    cells = {cell.name: cell for cell in listed}
    names = [cell.name for cell in listed]
    for twice in sorted({name for name in names if names.count(name) > 1}):
        errors.append(f"objectives, sizes, fractions: two cells would be called {twice}; tell them apart")
    long = max((name + TUNED * cell.tuned for name, cell in cells.items()), key=len, default="")
    if not errors and len(long) > LONGEST_NAME:
        errors.append(
            f"objectives, sizes: {long} would be the name of a stage and has {len(long)} letters, where {LONGEST_NAME} "
            "are the most; shorten their ids"
        )
    if errors:
        raise mistaken(str(path), errors)
    about = (content.get("about") or "").strip()
    configs = {
        id: grid_check.resolved(objective["recipe"], {**(content.get("set") or {}), **(objective.get("set") or {})})
        for id, objective in content["objectives"].items()
    }
    stages = [stage for cell in cells.values() for stage in _stages(cell, content, configs[cell.objective])]
    whole = {"about": about, "seeds": content["seeds"], "stages": stages}
    plan = chain.build(path.stem, whole, str(path), settings)
    plan.kind = "scaling study"
    return Grid(path.stem, about, list(content["objectives"]), cells, plan)


def _cells(content: Written) -> list[Cell]:
    """The grid, short runs first: a mistake that only shows at the end of a run shows early."""
    finetune = content.get("finetune") or {}
    cells = []
    for id, objective in content["objectives"].items():
        sizes, fractions, lengths = (objective.get(axis) or content[axis] for axis in AXES)
        every = bool(finetune) and finetune.get("of", "all") == "all"
        cells += [
            Cell(id, str(size), float(fraction), length, every or (bool(finetune) and length == max(lengths)))
            for length in lengths
            for fraction in fractions
            for size in sizes
        ]
    return sorted(cells, key=lambda cell: cell.length)


def _stages(cell: Cell, content: Written, config: recipe.Config) -> list[Written]:
    """A cell as stages of a chain; ``config`` is its objective's recipe with what is set."""
    objective = content["objectives"][cell.objective]
    options = (config.get("model") or {}).get("init_args") or {}
    distils = "teacher" in options
    network = "model.student" if distils else "model.architecture"
    accumulated = (config.get("trainer") or {}).get("accumulate_grad_batches") or 1
    settings = {
        **(content.get("set") or {}),
        **(objective.get("set") or {}),
        **{f"{network}.{PLACES[key]}": value for key, value in content["sizes"][cell.size].items()},
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
    stages = [{"name": cell.name, "kind": kind, "recipe": objective["recipe"], "set": settings}]
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


def too_small(study: Grid) -> list[str]:
    """Objectives whose smallest fraction has fewer images than a step takes, which would take another batch than the
    other cells. Lists the images; data that are not here are passed over."""
    errors = []
    smallest: dict[str, Cell] = {}
    for cell in study.cells.values():
        smallest[cell.objective] = min(smallest.get(cell.objective, cell), cell, key=lambda cell: cell.fraction)
    for cell in smallest.values():
        stage = study.plan.stages[cell.name]
        data = preflight.build(pl.LightningDataModule, seeded(stage.config).get("data"), [])
        try:
            images = plan_check.count(data)
        except (TinymimError, OSError, AttributeError):
            continue
        batch = decisive(stage)["total_batch"]
        batch = batch if isinstance(batch, int) else data.batch_size
        if images < batch:
            errors.append(
                f"fractions: {cell.fraction:g} of the training images of {cell.objective} are {images}, fewer than a "
                f"step's {batch}, and all cells take the same batch; take a larger fraction or a smaller "
                "data.batch_size"
            )
    return errors
