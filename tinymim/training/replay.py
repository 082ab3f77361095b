"""``tinymim replay FILE``: run a captured step again, and show where it stops being finite."""

from __future__ import annotations

import argparse
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
from rich.table import Table
from torch import Tensor, nn

from tinymim import precision
from tinymim.config import recipe, references, validation
from tinymim.errors import TinymimError, misfit, several
from tinymim.log import hush, say
from tinymim.safety.console import PlainConsole
from tinymim.seeds import restore
from tinymim.teachers import record_schemas, safe_pickle, sizes
from tinymim.training import captured_step, looking, preflight, run_schemas
from tinymim.vit import conventions

ROWS = 8


@dataclass
class Place:
    """A tensor met in the forward pass: extremes of its finite values, and how many of its values are not."""

    name: str
    shape: tuple[int, ...]
    least: float
    most: float
    bad: int

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> Place:
        """Look at a tensor."""
        values = tensor.detach().float()
        right = values[values.isfinite()]
        least, most = (float(right.min()), float(right.max())) if len(right) else (float("nan"), float("nan"))
        return cls(name, tuple(tensor.shape), least, most, values.numel() - right.numel())


@dataclass
class Outcome:
    """What a replay saw: what was logged, the tensors in the order they were made, and the bad gradients."""

    terms: dict[str, float] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    gradients: list[Place] = field(default_factory=list)
    loss: bool = False
    operation: str = ""


def main(arguments: list[str]) -> int:
    """Run ``tinymim replay FILE [--precision 32-true] [overrides]``."""
    parser = argparse.ArgumentParser(prog="tinymim replay", description=__doc__, allow_abbrev=False)
    parser.add_argument("file", type=Path, help="RUN/nonfinite/step_N.pt")
    parser.add_argument("--precision", help="another than it ran in, such as 32-true or auto")
    looking.add_argument(parser, "the captured recipe or an override")
    hush()
    asked, overrides = parser.parse_known_args(arguments)
    content = captured_step.read(asked.file)
    if asked.precision:
        overrides = [*overrides, f"--trainer.precision={asked.precision}"]
    config = _config(content, overrides)
    with looking.trusted(config.get("model"), asked.trust, str(asked.file)):
        try:
            module, trainer = _build(content, config)
            outcome = replay(content, module, trainer)
        except (*safe_pickle.DAMAGED, ArithmeticError) as error:
            if asked.trust:  # a fault of one's own, whose place is wanted
                raise
            raise TinymimError(f"{asked.file} cannot be run again: {type(error).__name__}: {misfit(error)}") from None
    show(content, config, outcome, trainer)
    return 0


def _config(content: dict[str, Any], overrides: list[str]) -> recipe.Config:
    """The captured recipe, with overrides laid over it as over any other."""
    if not content["recipe"]:
        raise TinymimError("the run folder held no config.yaml when this step was captured; it cannot be built again")
    looking.checked(content["recipe"], "the captured recipe")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(content["recipe"])
        config, rest = recipe.resolve(["--config", str(path), *overrides])
    if rest:
        raise TinymimError(
            f"replay knows no {rest[0]}; give the file first, then overrides such as --precision 32-true"
        )
    return precision.settle({**config, "trainer": references.filled(config.get("trainer"))})


def _build(content: dict[str, Any], config: recipe.Config) -> tuple[pl.LightningModule, pl.Trainer]:
    """The module as it was before the step, and a trainer that knows the epoch, the precision and the device.

    Raises:
        TinymimError: a recipe that does not build, weights that do not fit it, a teacher absent or another one.
    """
    options = record_schemas.fit(config.get("trainer") or {}, run_schemas.TrainerPart, "the captured recipe: trainer")
    found: list[str] = []
    model = references.filled(config.get("model"))  # the batch is in the file, and data is not needed
    if validation.check_class(model, "model", found, (pl.LightningModule,)) and not found:
        sizes.check_described(model, [value for _, value in captured_step.tensors(content["state_dict"])])
        module = preflight.build(pl.LightningModule, model, found)
    if found:
        raise several("the captured recipe cannot be built", found)
    assert module is not None
    module.trial = True  # of a module with a cache: the step is run again, and stores nothing where a file says
    trainer = _trainer(options)
    trainer.datamodule = SimpleNamespace(**content["data"])  # type: ignore[attr-defined]
    trainer.fit_loop.epoch_progress.current.completed = content["epoch"]
    trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = (
        content["step"] - 1
    )
    module.trainer = trainer
    module.setup("fit")
    module.configure_model()
    if (here := captured_step.teacher(module)) != content["teacher"]:
        raise TinymimError(f"teacher: the step ran with weights of sha256 {content['teacher']}, and here are {here}")
    _load(module, content)
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


def _load(module: pl.LightningModule, content: dict[str, Any]) -> None:
    try:
        module.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise TinymimError(f"the captured weights do not fit these overrides: {misfit(error)}") from None


def replay(content: dict[str, Any], module: pl.LightningModule, trainer: pl.Trainer) -> Outcome:
    """Forward and backward of the captured step; no weight changes.

    Gradients that hold NaN though the loss is finite are looked for a second time, with autograd's anomaly detection.
    """
    outcome = Outcome()
    stored = [content["state_dict"], *({"batch": batch} for _, batch in content["batches"])]
    for name, tensor in (pair for part in stored for pair in captured_step.tensors(part)):
        if tensor.is_floating_point() and tensor.numel():
            outcome.places.append(Place.of(name, tensor))
    handles = _watch(module, outcome)
    _step(content, module, trainer, outcome)
    for handle in handles:
        handle.remove()
    for name, parameter in reversed(list(module.named_parameters())):
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            outcome.gradients.append(Place.of(name, parameter.grad))
    if outcome.gradients and not outcome.loss:
        outcome.operation = _anomaly(content, module, trainer)
    return outcome


def _step(content: dict[str, Any], module: pl.LightningModule, trainer: pl.Trainer, outcome: Outcome) -> None:
    """One pass over the batches, from the captured weights, modes and random states."""
    device = trainer.strategy.root_device
    module.load_state_dict(content["state_dict"])
    module.train()
    for name in content["eval_modules"]:
        module.get_submodule(name).training = False
    module.zero_grad(set_to_none=True)
    module.log = lambda name, value, *args, **options: outcome.terms.update({name: float(value)})  # type: ignore[method-assign, misc]
    restore(content["rng"], device)
    for batch_idx, batch in copy.deepcopy(content["batches"]):
        batch = trainer.precision_plugin.convert_input(module.transfer_batch_to_device(batch, device, 0))
        with trainer.precision_plugin.train_step_context():
            output: Any = module.training_step(batch, batch_idx)
        loss = output["loss"] if isinstance(output, dict) else output
        outcome.places.append(Place.of("loss", loss))
        outcome.loss |= not bool(loss.isfinite().all())
        (loss / trainer.accumulate_grad_batches).backward()


def _watch(module: nn.Module, outcome: Outcome) -> list[Any]:
    """Hooks that look at what every module puts out, the teacher's included, which is no submodule."""
    watched = [(name or type(module).__name__, inner) for name, inner in module.named_modules()]
    if isinstance(teacher := getattr(module, "teacher", None), nn.Module):
        watched += [(f"teacher.{name}".rstrip("."), inner) for name, inner in teacher.named_modules()]

    def hook(name: str) -> Any:
        def look(_: nn.Module, inputs: Any, output: Any) -> None:
            for part, tensor in captured_step.tensors(output):
                if tensor.is_floating_point() and tensor.numel():
                    outcome.places.append(Place.of(f"{name} {part}".strip(), tensor))

        return look

    return [inner.register_forward_hook(hook(name)) for name, inner in watched]


def _anomaly(content: dict[str, Any], module: pl.LightningModule, trainer: pl.Trainer) -> str:
    """The operation whose backward pass gives the first NaN, and the line that called it; empty where there is none."""
    with warnings.catch_warnings(record=True) as said, torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("always")
        try:
            _step(content, module, trainer, Outcome())
        except RuntimeError as error:
            if "returned nan values" not in str(error):
                raise
            traceback = "".join(str(one.message) for one in said if "Traceback of forward call" in str(one.message))
            lines = re.findall(r'File "(.+?)", line (\d+), in (\w+)', traceback)
            own = [line for line in lines if "/site-packages/torch/" not in line[0]]
            where = ", called in {2}, {0}:{1}".format(*own[-1]) if own else ""
            return str(error).split("'")[1] + where
    return ""


def show(content: dict[str, Any], config: recipe.Config, outcome: Outcome, trainer: pl.Trainer) -> None:
    """Print the tables and the verdict."""
    console = PlainConsole(soft_wrap=True)
    print_ = console.print
    ran, now = content["precision"], str(trainer.precision)
    said = ran if ran == now else f"{now} instead of {ran}"
    print_(f"step {content['step']}, epoch {content['epoch'] + 1} of {config.get('name')}; {said}")
    terms = Table(title="losses", title_justify="left")
    terms.add_column("term")
    terms.add_column("value", justify="right")
    for name, value in outcome.terms.items():
        terms.add_row(name, f"{value:.6g}")
    print_(terms)
    bad = [place for place in outcome.places if place.bad]
    if bad:
        print_(_table("first values that are not finite, forward", bad))
    else:
        largest = sorted(outcome.places, key=lambda place: max(abs(place.least), abs(place.most)), reverse=True)
        print_(_table("all finite in the forward pass; the largest magnitudes", largest))
    if outcome.gradients:
        print_(_table("gradients that are not finite, from the loss backwards", outcome.gradients))
    if outcome.operation:
        print_(f"the first NaN of the backward pass comes from {outcome.operation}")
    for line in _notes(content, trainer):
        print_(f"note: {line}")
    print_(verdict(content, outcome))


def _table(title: str, places: list[Place]) -> Table:
    more = f" ({ROWS} of {len(places)})" if len(places) > ROWS else ""
    table = Table(title=title + more, title_justify="left")
    for column in ("tensor", "shape"):
        table.add_column(column, overflow="fold")
    for column in ("least", "greatest", "not finite"):
        table.add_column(column, justify="right")
    for place in places[:ROWS]:
        table.add_row(
            place.name,
            "x".join(map(str, place.shape)),
            f"{place.least:.4g}",
            f"{place.most:.4g}",
            f"{place.bad:,}",
        )
    return table


def _notes(content: dict[str, Any], trainer: pl.Trainer) -> list[str]:
    """Samples to look at, and what may make this run differ from the captured one."""
    notes = []
    for _, batch in content["batches"]:
        if indices := captured_step.bad_samples(batch):
            notes.append(f"the batch itself is not finite in the samples with index {', '.join(map(str, indices))}")
    if content["changed"]:
        notes.append("training_step changed its batch in place, and the file holds the changed one")
    if content["rng"]["cuda"] is not None and trainer.strategy.root_device.type != "cuda":
        notes.append("random numbers that were drawn on the GPU are drawn anew on the CPU")
    if content["world_size"] > 1:
        notes.append(f"this is process {content['rank']} of {content['world_size']}; gradients were averaged over all")
    return notes


def verdict(content: dict[str, Any], outcome: Outcome) -> str:
    """Whether the fault came back, in words."""
    then = "loss" if content["loss"] else "gradients"
    now = "loss" if outcome.loss else "gradients" if outcome.gradients else None
    if now is None:
        return f"not reproduced: the {then} had been captured as not finite, and here loss and gradients are finite"
    if now != then:
        return f"reproduced otherwise: captured with {then} that are not finite, and here it is the {now}"
    return f"reproduced: the {then} {'is' if then == 'loss' else 'are'} not finite again"
