"""The module of a captured step, as it was before the step."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from tinymim import precision
from tinymim.config import class_paths, recipe, references
from tinymim.errors import TinymimError, misfit, several
from tinymim.log import say
from tinymim.teachers import record_schemas, sizes
from tinymim.training import captured_step, looking, preflight, run_schemas
from tinymim.vit import conventions

MOST_CLASSES = 100
"""That the model of a capture may name: each takes time to be looked up and built."""


def written(content: dict[str, Any]) -> recipe.Config:
    """The captured recipe as plain data.

    Raises:
        TinymimError: there is none, or its parts are of other types.
    """
    if not content["recipe"]:
        raise TinymimError("the run folder held no config.yaml when this step was captured; it cannot be built again")
    return looking.checked(content["recipe"], "the captured recipe")


def config_of(content: dict[str, Any], overrides: list[str]) -> recipe.Config:
    """The captured recipe, with overrides laid over it as over any other."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(content["recipe"])
        config, rest = recipe.resolve(["--config", str(path), *overrides])
    if rest:
        raise TinymimError(
            f"replay knows no {rest[0]}; give the file first, then overrides such as --precision 32-true"
        )
    return precision.settle({**config, "trainer": references.filled(config.get("trainer"))})


def module_of(
    content: dict[str, Any], config: recipe.Config, trust: bool = False, changed: bool = False
) -> tuple[pl.LightningModule, pl.Trainer]:
    """The module as it was before the step, and a trainer that knows the epoch, the precision and the device.

    Args:
        content: of the capture.
        config: its recipe.
        trust: the recipe is one's own, and is built without looking at sizes first.
        changed: there are overrides in it.

    Raises:
        TinymimError: a recipe that does not build, weights that do not fit it, a teacher absent or another one.
    """
    options = record_schemas.fit(config.get("trainer") or {}, run_schemas.TrainerPart, "the captured recipe: trainer")
    model = references.filled(config.get("model"))  # the batch is in the file, and data is not needed
    found: list[str] = []
    if not trust and (count := len(class_paths.classes_in(model))) > MOST_CLASSES:
        raise TinymimError(f"the captured recipe: model: {count:,} classes, and at most {MOST_CLASSES} are built")
    if not class_paths.check_class(model, "model", found, (pl.LightningModule,)) or found:
        raise several("the captured recipe cannot be built", found)
    trainer = _trainer(options)
    trainer.datamodule = SimpleNamespace(**content["data"])  # type: ignore[attr-defined]
    trainer.fit_loop.epoch_progress.current.completed = content["epoch"]
    trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = (
        content["step"] - 1
    )

    def built() -> pl.LightningModule:
        module = preflight.build(pl.LightningModule, model, found)
        if found:
            raise several("the captured recipe cannot be built", found)
        module.trial = True  # of a module with a cache: the step is run again, and stores nothing where a file says
        module.trainer = trainer
        module.setup("fit")
        module.configure_model()
        return module

    misfit_ = f"the captured weights do not fit {'these overrides' if changed else 'the captured recipe'}"
    if not trust:  # one's own may do what needs numbers
        sizes.check_described(model, [value for _, value in captured_step.tensors(content["state_dict"])])
        sizes.check_built(built, content["state_dict"], misfit_)
    with trainer.strategy.tensor_init_context():  # as Lightning's fit does: a teacher is of the run's precision too
        module = built()
    if (here := captured_step.teacher(module)) != content["teacher"]:
        raise TinymimError(f"teacher: the step ran with weights of sha256 {content['teacher']}, and here are {here}")
    try:
        module.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise TinymimError(f"{misfit_}: {misfit(error)}") from None
    conventions.of(content).lay_on(module)
    module.to(trainer.strategy.root_device)
    trainer.precision_plugin.convert_module(module)
    return module, trainer


def _trainer(options: run_schemas.TrainerPart) -> pl.Trainer:
    device = options.accelerator or "auto"
    if device in ("gpu", "cuda") and not torch.cuda.is_available():
        say("there is no GPU here: the step runs on the CPU")
        device = "cpu"
    try:
        return pl.Trainer(
            accelerator=device,
            devices=1,
            precision=options.precision,  # type: ignore[arg-type]
            accumulate_grad_batches=options.accumulate_grad_batches or 1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
    except (MisconfigurationException, ModuleNotFoundError) as error:
        raise TinymimError(f"{error} Another device: --trainer.accelerator cpu") from None
