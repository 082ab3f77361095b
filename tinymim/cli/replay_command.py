"""``tinymim replay FILE``: run a captured step again, and show where it stops being finite."""

from __future__ import annotations

import argparse
import warnings
from contextlib import nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
from rich.table import Table

from tinymim.cli.network_command_options import replay as parser
from tinymim.config import recipe, references
from tinymim.errors import TinymimError, misfit
from tinymim.log import hush
from tinymim.safety.console import PlainConsole
from tinymim.teachers import safe_pickle
from tinymim.teachers.download import asking_nobody
from tinymim.training import captured_step, inspection, replay
from tinymim.training.replay import Replay, TensorRange

ROWS = 8


def main(arguments: list[str]) -> int:
    """Run ``tinymim replay FILE [--precision 32-true] [overrides]``."""
    hush()
    options, overrides = parser().parse_known_args(arguments)
    content = captured_step.read(options.file)
    if options.precision:
        overrides = [*overrides, f"--trainer.precision={options.precision}"]
    with references.hiding(replay.captured_recipe(content)):
        config = replay.resolved_recipe(content, overrides)
        record, trainer = _run(options, content, config, bool(overrides))
    show(content, config, record, trainer)
    return 0


def _run(
    options: argparse.Namespace, content: dict[str, Any], config: recipe.Config, changed: bool
) -> tuple[Replay, pl.Trainer]:
    """Build the module as far as it is trusted, and run the step; the trainer is returned for its precision."""
    with (
        references.hiding(config),
        inspection.trusted({"model": config.get("model")}, options.trust, str(options.file)),
        asking_nobody(not options.trust),
        nullcontext() if options.trust else torch.compiler.set_stance("force_eager"),  # or it would start compilers
        warnings.catch_warnings(),
    ):
        if not options.trust:  # what libraries say of values that are none of the user's
            warnings.simplefilter("ignore")
        try:
            module, trainer = replay.build(content, config, options.trust, changed)
            return replay.run(content, module, trainer), trainer
        except (*safe_pickle.DAMAGED, ArithmeticError, AssertionError, MemoryError) as error:
            if options.trust:  # a fault of one's own, whose place is wanted
                raise
            raise TinymimError(f"{options.file} cannot be run again: {type(error).__name__}: {misfit(error)}") from None


def show(content: dict[str, Any], config: recipe.Config, record: Replay, trainer: pl.Trainer) -> None:
    """Print the tables and the verdict."""
    console = PlainConsole(soft_wrap=True)
    then, now = content["precision"], str(trainer.precision)
    precision = then if then == now else f"{now} instead of {then}"
    console.print(f"step {content['step']}, epoch {content['epoch'] + 1} of {config.get('name')}; {precision}")
    losses = Table(title="losses", title_justify="left")
    losses.add_column("term")
    losses.add_column("value", justify="right")
    for name, value in record.terms.items():
        losses.add_row(name, f"{value:.6g}")
    console.print(losses)
    if bad := [tensor for tensor in record.tensors if tensor.nonfinite]:
        console.print(_table("first values that are not finite, forward", bad))
    else:
        largest = sorted(record.tensors, key=lambda tensor: max(abs(tensor.least), abs(tensor.greatest)), reverse=True)
        console.print(_table("all finite in the forward pass; the largest magnitudes", largest))
    if record.gradients:
        console.print(_table("gradients that are not finite, from the loss backwards", record.gradients))
    if record.operation:
        console.print(f"the first NaN of the backward pass comes from {record.operation}")
    for note in _notes(content, trainer):
        console.print(f"note: {note}")
    console.print(verdict(content, record))


def _table(title: str, tensors: list[TensorRange]) -> Table:
    more = f" ({ROWS} of {len(tensors)})" if len(tensors) > ROWS else ""
    table = Table(title=title + more, title_justify="left")
    for column in ("tensor", "shape"):
        table.add_column(column, overflow="fold")
    for column in ("least", "greatest", "not finite"):
        table.add_column(column, justify="right")
    for tensor in tensors[:ROWS]:
        shape = "x".join(map(str, tensor.shape))
        table.add_row(tensor.name, shape, f"{tensor.least:.4g}", f"{tensor.greatest:.4g}", f"{tensor.nonfinite:,}")
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


def verdict(content: dict[str, Any], record: Replay) -> str:
    """Whether the fault came back, in words."""
    then = "loss" if content["loss"] else "gradients"
    now = "loss" if record.bad_loss else "gradients" if record.gradients else None
    if now is None:
        return f"not reproduced: the {then} had been captured as not finite, and here loss and gradients are finite"
    if now != then:
        return f"reproduced otherwise: captured with {then} that are not finite, and here it is the {now}"
    return f"reproduced: the {then} {'is' if then == 'loss' else 'are'} not finite again"
