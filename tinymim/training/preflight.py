"""Checks before the first step: a recipe's mistakes at once, the run in a table, then speed and time of a few steps."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonargparse
import lightning.pytorch as pl
import torch
from typing_extensions import override

from tinymim.config import causes, recipe, references, trainer_parts, validation, value_types
from tinymim.config.options import Saving
from tinymim.data.corruptions import Corruptions
from tinymim.data.data_module import ImageData
from tinymim.data.named_sets import NamedSets
from tinymim.errors import TinymimError
from tinymim.files import write_text
from tinymim.log import Details, say
from tinymim.methods.base import Method
from tinymim.methods.optim import total_batch
from tinymim.safety import names
from tinymim.safety.console import PlainConsole
from tinymim.safety.escaping import terminal
from tinymim.system import free_memory, peak_memory, start_timer
from tinymim.teachers.locate import Teacher
from tinymim.training import overview
from tinymim.training.measurement import Growth, Measurement
from tinymim.training.messages import unmade
from tinymim.training.progress import clock
from tinymim.training.run_folder import SUMMARY

ENOUGH = 10.0
"""Seconds that a check may spend, from when all is built, on each of: a batch to validate, loading the first one to
train on, and steps."""


def problems(config: recipe.Config, fits: bool = True) -> list[str]:
    """All mistakes in a resolved recipe: of its text, its trainer, its data, its teacher, and how the two networks fit.

    Nothing heavy is loaded: sizes and the presence of files decide. What keeps a recipe from training alone is passed
    over where it is not to be ``fit``.
    """
    return inspect(config, fits=fits).problems


@dataclass
class Inspected:
    """Mistakes of a recipe, and its two parts, ``None`` where their description was too wrong to build them."""

    problems: list[str]
    data: Any
    model: Any


def inspect(config: recipe.Config, start: Teacher | None = None, fits: bool = True) -> Inspected:
    """Like :func:`problems`, with the parts that were built on the way.

    Args:
        config: a resolved recipe.
        start: what the path that the recipe names as teacher or weights will hold, where the file is yet to be written.
        fits: it is to be trained.
    """
    kept = list(references.places(config))
    config = references.filled(config)
    trainer_parts.place_loggers(config)
    if "name" in config:
        names.check(config["name"], "name")
    errors, pruned = validation.mistakes(config)
    errors += causes.alone(trainer_parts.option_errors(pruned.get("trainer"), fits), errors)
    data = build(pl.LightningDataModule, pruned.get("data"), errors)
    model = build(pl.LightningModule, pruned.get("model"), errors)
    if start and isinstance(model, Method):
        model.use_source(start)
    if hasattr(data, "problems"):
        errors += causes.alone(data.problems(), errors)
    if isinstance(model, Method):
        known = not {"data", "data.image_size"} & causes.fields(errors)  # else the network's own
        size = (getattr(data, "image_size", None) or 224) if known else None
        errors += causes.alone(model.problems(size, data), errors)
    if isinstance(saving := pruned.get("checkpoint"), dict):
        errors += Saving(**saving).problems()
    if isinstance(corruptions := pruned.get("corruptions"), dict):
        errors += Corruptions(**corruptions).problems()
    sets = corruptions is not None or isinstance(data, NamedSets)
    if sets and model and not getattr(model, "takes_test_sets", False):
        what = "data: its test sets" if isinstance(data, NamedSets) else "corruptions: they"
        errors.append(f"{what} are for a classifier, and model is {type(model).__name__}; take a recipe of fine-tuning")
    trainer = config.get("trainer")
    strategy = str(trainer.get("strategy")) if isinstance(trainer, dict) else ""
    if config.get("on_nonfinite") == "rewind" and any(word in strategy for word in ("spawn", "fork", "notebook")):
        errors.append(f"on_nonfinite: rewind cannot restart the processes of strategy {strategy}; take ddp, or stop")
    return Inspected([references.hidden(line, kept) for line in dict.fromkeys(errors)], data, model)


def build(base: type, node: Any, errors: list[str]) -> Any:
    """Build the object that a recipe describes; ``None`` where its description was too wrong, which is an error."""
    parser = value_types.parser()
    parser.add_subclass_arguments(base, "part")
    try:
        return parser.instantiate(parser.parse_object({"part": references.filled(node)})).part
    except TinymimError as error:
        errors.append(str(error))
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:
        if not errors:
            errors.append(unmade(error))
    return None


class MeasuredEnough(Exception):  # noqa: N818  # no error
    """The time that a check may take is over."""


class Preflight(pl.Callback):
    """Print in a few lines what is trained before the first step, and memory, speed and time after the first few; all
    lines where it only checks, or where all details are asked for. The run folder keeps them.

    A check on a CPU takes a few images of each batch, and more as long as time and memory allow.

    Args:
        measured: steps that are timed, after what warms up.
        stop: end the run after them, or after :data:`ENOUGH` seconds: ``tinymim check``.
        details: of the run.
    """

    def __init__(self, measured: int = 5, stop: bool = False, details: Details | None = None):
        self.measured, self.stop, self.details = measured, stop, details or Details()
        self._started = False

    @override
    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            short, self._whole = overview.short(trainer, module, self.details), overview.whole(trainer, module)
            self._remarks = overview.remarks(trainer, module)
            if self.stop or self.details.shown:
                overview.print_table(self._whole, PlainConsole(stderr=True))
            else:
                for title, text in short:
                    say(f"{title:<{overview.WIDTH}}{text}")
            for remark in self._remarks:
                say(remark)
        whole, growth = _images(trainer), None
        # a compiled network would be compiled anew for each size
        if self.stop and whole and module.device.type == "cpu" and not getattr(module, "compiled", False):
            trained = sum(4 * parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
            growth = Growth(whole, ENOUGH / (self.measured + 3), free_memory(), 3 * trained)
            trainer.datamodule.taken = growth.images  # type: ignore[attr-defined]
        most = self.measured * trainer.accumulate_grad_batches
        if not self.stop:  # a run of few batches is measured by all but the first
            most = max(min(most, int(trainer.estimated_stepping_batches) * trainer.accumulate_grad_batches - 1), 1)
        self._measurement = Measurement(whole or 1, most, growth)
        self._began, self._ended, self._filling = time.monotonic(), time.monotonic(), _filled(module)
        self._limit_time(trainer, module)

    @override
    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero and not self.stop:
            self._write(trainer)
        self._limit_time(trainer, module)

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        self._began = time.monotonic()
        if not self._started:
            self._started = True
            self._limit_time(trainer, module)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        if (measurement := self._measurement).done:
            return
        if measurement.last and module.device.type == "cuda":
            torch.cuda.synchronize()
        measurement.add(time.monotonic() - self._began, self._began - self._ended)
        if measurement.growth:
            trainer.datamodule.taken = measurement.images  # type: ignore[attr-defined]
        if not measurement.batches:
            self._filling = _filled(module)
        if measurement.done:
            self._report(trainer, module)
            trainer.should_stop |= self.stop
        self._ended = time.monotonic()

    @override
    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._measurement.done:
            return
        if self.stop and self._measurement.end():  # a run of a few batches
            self._report(trainer, module)
        elif not self.stop and trainer.is_global_zero:  # it went on for too little to measure
            say(f"{'run':<{overview.WIDTH}}{trainer.default_root_dir}")

    @override
    def teardown(self, *args: Any, **kwargs: Any) -> None:
        if self.stop:
            start_timer(0)

    on_exception = teardown

    def _limit_time(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """End a check :data:`ENOUGH` seconds from here."""

        def enough() -> None:
            self._report(trainer, module)
            raise MeasuredEnough

        if self.stop:
            start_timer(ENOUGH, enough)

    def _report(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Print what the batches took, as far as they were measured, and the whole run will."""
        if not trainer.is_global_zero:
            return
        measurement, used, whole = self._measurement, memory(module), int(trainer.estimated_stepping_batches)
        measured = measurement.end()
        part = f"{measurement.images} of {measurement.whole} images"
        growth = measurement.growth if measurement.images < measurement.whole else None
        if not measured:
            what = f"batch of {part}" if growth else "second batch"
            line = f"measured: no {what} ended within {ENOUGH:.0f} s, {used}; the run has {whole:,} steps"
            if self._started:
                line += f" and takes {clock(ENOUGH * trainer.accumulate_grad_batches * whole)} at least"
            print(line, file=sys.stderr, flush=True)
            return
        if growth:
            used += f" (at most about {growth.memory(growth.whole) / 2**30:.1f} GiB in batches of {growth.whole})"
        views, filling = (now - before for now, before in zip(_filled(module), self._filling, strict=True))
        later, each = measurement.seconds(filling)
        images = measurement.whole * trainer.world_size if _images(trainer) else 0
        left, cached = each * trainer.accumulate_grad_batches * whole, ""
        if views:  # the teacher's part of these steps, measured on its own
            cached = f" while the teacher cache fills and {images / later:.0f} from then on"
            left = later * trainer.accumulate_grad_batches * whole
            left += filling / views * (lacking(trainer, module) + views)
        rate, of = images / each, f" with {part} a batch, as {growth.limit}" if growth else ""
        speed = f"measured{of}: {rate:.{0 if rate >= 10 else 1}f} images/s{cached}, {used}"
        line = f"{speed}, about {clock(left)} for the whole run without validation"
        if not self.stop:
            self._write(trainer, line)
        if not self.stop and not self.details.shown:
            line = f"{'run':<{overview.WIDTH}}{trainer.default_root_dir}: about {clock(left)} of training ({speed})"
        print(terminal(line), file=sys.stderr, flush=True)

    def _write(self, trainer: pl.Trainer, *measured: str) -> None:
        """Keep all lines in the run folder."""
        width = max(len(title) for title, _ in self._whole) + 2
        table = [f"{title:<{width}}{text}" for title, text in self._whole]
        lines = [*self.details.lines, *table, *self._remarks, *measured]
        write_text(Path(trainer.default_root_dir) / SUMMARY, "\n".join([*lines, ""]))


def _images(trainer: pl.Trainer) -> int:
    """Images of one process's batch; 0 where the data is not ours, and says nothing of them."""
    if not isinstance(getattr(trainer, "datamodule", None), ImageData):
        return 0
    return total_batch(trainer) // (trainer.world_size * trainer.accumulate_grad_batches)


def _filled(module: pl.LightningModule) -> tuple[int, float]:
    """Count of views that a cached teacher was run for, in this process, and the seconds that took."""
    filler = getattr(getattr(module, "frozen", None), "filler", None)
    return (filler.filled, filler.seconds) if filler else (0, 0.0)


def lacking(trainer: pl.Trainer, module: pl.LightningModule) -> float:
    """Count of views of training images that this process's teacher is yet to be run for."""
    batches = int(trainer.num_training_batches)
    epochs = -(-int(trainer.estimated_stepping_batches) // max(batches // trainer.accumulate_grad_batches, 1))
    cache = getattr(getattr(module, "frozen", None), "cache", None)
    return cache.missing(0, epochs) / trainer.world_size if cache else 0.0


def memory(module: pl.LightningModule) -> str:
    """Peak memory so far, of the GPU where there is one."""
    if module.device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB on the GPU"
    return f"{peak_memory() / 2**30:.2f} GiB"
