"""A captured step, run again: its module as it was before the step, and where its values stop being finite."""

from __future__ import annotations

import copy
import re
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from tinymim import precision
from tinymim.config import class_paths, recipe, references, validation
from tinymim.errors import TinymimError, misfit, several
from tinymim.log import say
from tinymim.seeds import restore
from tinymim.teachers import record_schemas, sizes
from tinymim.training import captured_step, inspection, preflight, run_schemas
from tinymim.training.run_folder import RECIPE
from tinymim.vit import conventions

MOST_CLASSES, MOST_STEPS = 32, 256
"""Classes that the model of a capture may name, and these times its batches: each takes time in each batch."""


def captured_recipe(content: dict[str, Any]) -> recipe.Config:
    """The captured recipe as plain data.

    Raises:
        TinymimError: there is none, or its parts are of other types.
    """
    if not content["recipe"]:
        raise TinymimError(f"the run folder held no {RECIPE} when this step was captured; it cannot be built again")
    return inspection.checked(content["recipe"], "the captured recipe")


def resolved_recipe(content: dict[str, Any], overrides: list[str]) -> recipe.Config:
    """The captured recipe, with overrides laid over it as over any other."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(content["recipe"])
        try:
            config, rest = recipe.resolve(["--config", str(path), *overrides])
        except TinymimError as error:  # of the text in the capture, and of no file that anybody knows
            raise TinymimError(str(error).replace(str(path.resolve()), "the captured recipe")) from None
    if rest:
        raise TinymimError(
            f"replay knows no {rest[0]}; give the file first, then overrides such as --precision 32-true"
        )
    return precision.settle({**config, "trainer": references.filled(config.get("trainer"))})


def build(
    content: dict[str, Any], config: recipe.Config, trust: bool = False, changed: bool = False
) -> tuple[pl.LightningModule, pl.Trainer]:
    """The module as it was before the step, and a trainer that knows the epoch, the precision and the device.

    Args:
        content: content of the capture.
        config: its recipe, resolved.
        trust: the recipe is one's own, and is built without looking at sizes first.
        changed: there are overrides in it.

    Raises:
        TinymimError: a recipe that does not build, weights that do not fit it, a teacher absent or another one.
    """
    options = record_schemas.fit(config.get("trainer") or {}, run_schemas.TrainerPart, "the captured recipe: trainer")
    model = references.filled(config.get("model"))  # the batch is in the file, and data is not needed
    errors: list[str] = []
    count, batches = len(class_paths.classes_in(model)), len(content["batches"])
    if not trust and (count > MOST_CLASSES or count * batches > MOST_STEPS):
        raise TinymimError(
            f"the captured recipe: model: {count:,} classes, for {batches:,} batches; {MOST_CLASSES} classes are "
            f"built, and {MOST_STEPS} over all batches, of a step that is only looked at; --trust runs any"
        )
    if not validation.check_class(model, "model", errors, (pl.LightningModule,)) or errors:
        raise several("the captured recipe cannot be built", errors)
    trainer = _trainer(options)
    trainer.datamodule = SimpleNamespace(**content["data"])  # type: ignore[attr-defined]
    trainer.fit_loop.epoch_progress.current.completed = content["epoch"]
    steps = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step
    steps.total.completed = content["step"] - 1

    def built() -> pl.LightningModule:
        module = preflight.build(pl.LightningModule, model, errors)
        if errors:
            raise several("the captured recipe cannot be built", errors)
        module.trial = True  # of a module with a cache: the step is run again, and stores nothing where a file says
        module.trainer = trainer
        module.setup("fit")
        module.configure_model()
        return module

    heading = f"the captured weights do not fit {'these overrides' if changed else 'the captured recipe'}"
    if not trust:  # one's own may do what needs numbers
        sizes.check_described(model, [value for _, value in captured_step.tensors(content["state_dict"])])
        sizes.check_built(built, content["state_dict"], heading)
    with trainer.strategy.tensor_init_context():  # as Lightning's fit does: a teacher is of the run's precision too
        module = built()
    if (here := captured_step.teacher(module)) != content["teacher"]:
        raise TinymimError(f"teacher: the step ran with weights of sha256 {content['teacher']}, and here are {here}")
    try:
        module.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise TinymimError(f"{heading}: {misfit(error)}") from None
    conventions.of(content).lay_on(module)
    module.to(trainer.strategy.root_device)
    trainer.precision_plugin.convert_module(module)
    return module, trainer


def _trainer(options: run_schemas.TrainerPart) -> pl.Trainer:
    device = options.accelerator or "auto"
    if device in ("gpu", "cuda") and not torch.cuda.is_available():
        say("there is no GPU here: the step runs on the CPU")
        device = "cpu"
    silent = dict.fromkeys(("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar"), False)
    try:
        return pl.Trainer(
            accelerator=device,
            devices=1,
            precision=options.precision,  # type: ignore[arg-type]
            accumulate_grad_batches=options.accumulate_grad_batches or 1,
            **silent,  # type: ignore[arg-type]
        )
    except (MisconfigurationException, ModuleNotFoundError) as error:
        raise TinymimError(f"{error} Another device: --trainer.accelerator cpu") from None


@dataclass
class TensorRange:
    """A tensor of the step: extremes of its finite values, and how many of its values are not finite."""

    name: str
    shape: tuple[int, ...]
    least: float
    greatest: float
    nonfinite: int

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> TensorRange:
        """Measure a tensor."""
        values = tensor.detach().float()
        finite = values[values.isfinite()]
        least, greatest = (float(finite.min()), float(finite.max())) if len(finite) else (float("nan"), float("nan"))
        return cls(name, tuple(tensor.shape), least, greatest, values.numel() - finite.numel())


@dataclass
class Replay:
    """Record of a step run again."""

    terms: dict[str, float] = field(default_factory=dict)  # logged values
    tensors: list[TensorRange] = field(default_factory=list)  # weights, batch, and outputs in the order of their making
    gradients: list[TensorRange] = field(default_factory=list)  # that are not finite, from the loss backwards
    bad_loss: bool = False  # it is not finite
    operation: str = ""  # the first whose backward pass gives NaN, and the line that called it

    def add(self, name: str, value: Any) -> None:
        """Measure the tensors in nested containers; whole numbers are finite."""
        for part, tensor in captured_step.tensors(value):
            if tensor.is_floating_point() and tensor.numel():
                self.tensors.append(TensorRange.of(f"{name} {part}".strip(), tensor))


def run(content: dict[str, Any], module: pl.LightningModule, trainer: pl.Trainer) -> Replay:
    """Forward and backward of the captured step; no weight changes.

    Gradients that hold NaN though the loss is finite are looked for a second time, with autograd's anomaly detection.
    """
    record = Replay()
    record.add("", content["state_dict"])
    for _, batch in content["batches"]:
        record.add("", {"batch": batch})
    hooks = _watch(module, record)
    _step(content, module, trainer, record)
    for hook in hooks:
        hook.remove()
    for name, parameter in reversed(list(module.named_parameters())):
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            record.gradients.append(TensorRange.of(name, parameter.grad))
    if record.gradients and not record.bad_loss:
        record.operation = _first_nan(content, module, trainer)
    return record


def _step(content: dict[str, Any], module: pl.LightningModule, trainer: pl.Trainer, record: Replay) -> None:
    """One pass over the batches, from the captured weights, modes and random states."""
    device = trainer.strategy.root_device
    module.load_state_dict(content["state_dict"])
    module.train()
    for name in content["eval_modules"]:
        module.get_submodule(name).training = False
    module.zero_grad(set_to_none=True)
    module.log = lambda name, value, *args, **options: record.terms.update({name: float(value)})  # type: ignore[method-assign, misc]
    restore(content["rng"], device)
    for batch_idx, batch in copy.deepcopy(content["batches"]):
        batch = trainer.precision_plugin.convert_input(module.transfer_batch_to_device(batch, device, 0))
        with trainer.precision_plugin.train_step_context():
            output: Any = module.training_step(batch, batch_idx)
        loss = output["loss"] if isinstance(output, dict) else output
        record.add("loss", loss)
        record.bad_loss |= not bool(loss.isfinite().all())
        (loss / trainer.accumulate_grad_batches).backward()


def _watch(module: nn.Module, record: Replay) -> list[Any]:
    """Hooks that measure every module's outputs, the teacher's included, which is no submodule."""
    watched = [(name or type(module).__name__, inner) for name, inner in module.named_modules()]
    if isinstance(teacher := getattr(module, "teacher", None), nn.Module):
        watched += [(f"teacher.{name}".rstrip("."), inner) for name, inner in teacher.named_modules()]

    def hook(name: str) -> Any:
        return lambda inner, inputs, output: record.add(name, output)

    return [inner.register_forward_hook(hook(name)) for name, inner in watched]


def _first_nan(content: dict[str, Any], module: pl.LightningModule, trainer: pl.Trainer) -> str:
    """The operation whose backward pass gives the first NaN, and the line that called it; empty where there is none."""
    with warnings.catch_warnings(record=True) as caught, torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("always")
        try:
            _step(content, module, trainer, Replay())
        except RuntimeError as error:
            if "returned nan values" not in str(error):
                raise
            texts = [str(warning.message) for warning in caught]
            traceback = "".join(text for text in texts if "Traceback of forward call" in text)
            lines = re.findall(r'File "(.+?)", line (\d+), in (\w+)', traceback)
            ours = [line for line in lines if "/site-packages/torch/" not in line[0]]
            where = ", called in {2}, {0}:{1}".format(*ours[-1]) if ours else ""
            return str(error).split("'")[1] + where
    return ""
