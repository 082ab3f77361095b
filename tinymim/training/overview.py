"""A run before its first step: in four lines, in all of them, and in plain sentences what is worth a second look."""

from __future__ import annotations

import lightning.pytorch as pl
from rich.table import Table

from tinymim.data.data_module import ImageData
from tinymim.data.image_data import ViewedData
from tinymim.errors import TinymimError, counted
from tinymim.evaluation.few_images import few_images
from tinymim.log import Details
from tinymim.methods.base import Method, size
from tinymim.methods.optim import Optim, total_batch, warmup_steps
from tinymim.safety.console import PlainConsole

FEW_A_EPOCH = 4  # steps of an epoch, fewer of which are worth a word
ENOUGH_A_EPOCH = 8  # that the batch which is proposed has at least
FEW_STEPS = 100  # of a whole run
LOW_RATE = 1e-5  # of a run from scratch, which hardly moves at a lower one

WIDTH = 11
"""Characters of a short line's title."""

Lines = list[tuple[str, str]]
"""Titles and texts."""


def print_table(lines: Lines, console: PlainConsole) -> None:
    """Print lines with their titles in a column of their own."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", min_width=WIDTH - 2)
    table.add_column(overflow="fold")  # long paths are wrapped, not cut
    for title, text in lines:
        table.add_row(title, text)
    console.print(table)


def whole(trainer: pl.Trainer, module: pl.LightningModule) -> Lines:
    """All that is known of the networks and the run."""
    summary: Lines = getattr(module, "summary", list)()
    return [*summary, ("parameters", parameters(module)), ("run", length(trainer))]


def short(trainer: pl.Trainer, module: pl.LightningModule, details: Details) -> Lines:
    """What is trained from what, on which images, for how long and in which precision: three lines of the four."""
    headline = module.headline() if isinstance(module, Method) else f"{type(module).__name__}, {parameters(module)}"
    return [("training", headline), *images(trainer), ("schedule", schedule(trainer, details.reasons.get("precision")))]


def images(trainer: pl.Trainer) -> Lines:
    """The images to train on, and those held out, of data that is ours."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, ImageData):
        return []
    if data.description:
        return [("images", data.description)]
    counts = {name: len(part) for name, part in data.parts().items() if part is not None}
    classes = f"; {counted(data.num_classes, 'class')}" if data.num_classes else ""
    held_out = f", {counts['held_out']} held out" if "held_out" in counts else ""
    return [("images", f"{type(data).__name__}: {counted(counts['train'], 'image')} to train on{held_out}{classes}")]


def schedule(trainer: pl.Trainer, why: str | None = None) -> str:
    """Epochs, steps, learning rate and precision; ``why`` it is that one, where the recipe leaves it open."""
    per_step, batch = steps_of_epoch(trainer), _batch(trainer)
    epochs = f"{counted(trainer.max_epochs or 0, 'epoch')} x {counted(per_step, 'step')}"
    if trainer.max_epochs == -1:
        epochs = f"{counted(trainer.max_steps, 'step')}, epochs of {per_step}"
    parts = [f"{epochs} of {batch}" if batch else epochs]
    if (rate := _rate(trainer)) is not None:
        parts.append(f"learning rate {rate:.2g}")
    parts.append(f"{trainer.precision}{f' ({why})' if why else ''}")
    return ", ".join([*parts, *([f"{trainer.world_size} processes"] if trainer.world_size > 1 else [])])


def remarks(trainer: pl.Trainer, module: pl.LightningModule) -> list[str]:
    """What a user should know before the run takes its time: of the data, its steps, and the networks."""
    data = getattr(trainer, "datamodule", None)
    lines = [f"images: {note}" for note in data.notes] if isinstance(data, ImageData) else []
    return [*lines, *_on_held_out(data), *_on_steps(trainer), *(module.remarks() if isinstance(module, Method) else [])]


def _on_held_out(data: object) -> list[str]:
    if not isinstance(data, ViewedData) or not data.num_classes:
        return []
    line = few_images(len(data.parts()["held_out"] or ()), data.num_classes)
    more = "; --data.held_out 0.2 holds a fifth of all out" if data.is_split and data.held_out_fraction < 0.2 else ""
    return [f"{line}{more}"] if line else []


def _on_steps(trainer: pl.Trainer) -> list[str]:
    steps, of_epoch, batch = int(trainer.estimated_stepping_batches), steps_of_epoch(trainer), _batch(trainer)
    data, lines = getattr(trainer, "datamodule", None), []
    count = len(data.train) if isinstance(data, ImageData) and hasattr(data.train, "__len__") else 0
    if batch and count and of_epoch < FEW_A_EPOCH and count > ENOUGH_A_EPOCH:
        others = batch // min(data.batch_size, batch)  # type: ignore[union-attr]
        smaller = max(2 ** ((count // (ENOUGH_A_EPOCH * max(others, 1))).bit_length() - 1), 1)
        more = f"; --data.batch_size {smaller} makes an epoch {count // (smaller * max(others, 1))}"
        lines.append(
            f"few steps: an epoch of {count} images is {counted(of_epoch, 'step')} of {batch}, and the run {steps:,}"
            f"{more if smaller < data.batch_size else ''}"  # type: ignore[union-attr]
        )
    elif steps < FEW_STEPS:
        lines.append(f"few steps: {steps} in all, in which a network learns little; more --trainer.max_epochs are more")
    rate, module = _rate(trainer), trainer.lightning_module
    if rate and rate < LOW_RATE and getattr(module, "from_scratch", False):
        lines.append(
            f"low learning rate: {rate:.2g} hardly moves a network from scratch; it follows the batch "
            f"(optim.base_lr x {batch} / 256), so raise --model.optim.base_lr"
        )
    return [*lines, *_on_warmup(trainer, steps, rate)]


def _on_warmup(trainer: pl.Trainer, steps: int, rate: float | None) -> list[str]:
    """A warm-up that outlasts the run: the full rate, which the line on the schedule has, is never reached."""
    optim = getattr(trainer.lightning_module, "optim", None)
    if not isinstance(optim, Optim) or not rate or (rising := warmup_steps(optim, trainer)) < steps or rising < 2:
        return []
    option = "warmup_epochs" if optim.warmup_steps is None else "warmup_steps"
    return [
        f"long warm-up: the learning rate rises for {counted(rising, 'step')}, and the run has {steps:,}, so it ends "
        f"at {rate * (steps - 1) / rising:.2g} and never reaches {rate:.2g}; lower --model.optim.{option}"
    ]


def steps_of_epoch(trainer: pl.Trainer) -> int:
    """Optimiser steps of an epoch."""
    return max(int(trainer.num_training_batches) // trainer.accumulate_grad_batches, 1)


def _batch(trainer: pl.Trainer) -> int | None:
    """Images of a step; ``None`` where the data does not say."""
    try:
        return total_batch(trainer)
    except TinymimError:
        return None


def _rate(trainer: pl.Trainer) -> float | None:
    """The full learning rate of the first optimiser."""
    rate = trainer.optimizers[0].defaults.get("lr") if trainer.optimizers else None
    return float(rate) if isinstance(rate, int | float) else None


def length(trainer: pl.Trainer) -> str:
    """Epochs or steps of a run, and what it is computed in."""
    epochs = counted(trainer.max_epochs or 0, "epoch")
    if trainer.max_epochs == -1:
        epochs = f"{counted(trainer.max_steps, 'step')}, epochs"
    batches, processes = counted(int(trainer.num_training_batches), "batch"), counted(trainer.world_size, "process")
    return f"{epochs} of {batches}, precision {trainer.precision}, {processes}"


def parameters(module: pl.LightningModule) -> str:
    """Counts of what is trained, frozen, and out of the loss's reach."""
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    unreachable, teacher = getattr(module, "unreachable", 0), getattr(module, "teacher", None)
    text = f"{trained:,} trained, {frozen:,} frozen"
    if unreachable:
        text += f" (of them {unreachable:,} that the loss cannot reach)"
    return f"{text}; teacher {size(teacher)} parameters" if teacher else text
