"""``tinymim replay FILE``: run a captured step again, and show where it stops being finite."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from rich.table import Table

from tinymim.config import recipe, references
from tinymim.errors import TinymimError, misfit
from tinymim.safety.console import PlainConsole
from tinymim.teachers import safe_pickle
from tinymim.teachers.download import asking_nobody
from tinymim.training import captured_step, looking, quiet, rebuild, rerun
from tinymim.training.rerun import Outcome, Place

ROWS = 8


def main(arguments: list[str]) -> int:
    """Run ``tinymim replay FILE [--precision 32-true] [overrides]``."""
    parser = argparse.ArgumentParser(prog="tinymim replay", description=__doc__, allow_abbrev=False)
    parser.add_argument("file", type=Path, help="RUN/nonfinite/step_N.pt")
    parser.add_argument("--precision", help="another than it ran in, such as 32-true or auto")
    looking.add_argument(parser, "the captured recipe or an override")
    quiet.hush()
    asked, overrides = parser.parse_known_args(arguments)
    content = captured_step.read(asked.file)
    if asked.precision:
        overrides = [*overrides, f"--trainer.precision={asked.precision}"]
    with references.hiding(rebuild.written(content)):
        config = rebuild.config_of(content, overrides)
        outcome, trainer = _replayed(asked, content, config, bool(overrides))
    show(content, config, outcome, trainer)
    return 0


def _replayed(
    asked: argparse.Namespace, content: dict[str, Any], config: recipe.Config, changed: bool
) -> tuple[Outcome, pl.Trainer]:
    """What running the step again showed, and the trainer that it had."""
    named = {"model": config.get("model")}
    with (
        references.hiding(config),
        looking.trusted(named, asked.trust, str(asked.file)),
        asking_nobody(not asked.trust),
    ):
        try:
            module, trainer = rebuild.module_of(content, config, asked.trust, changed)
            return rerun.replay(content, module, trainer), trainer
        except (*safe_pickle.DAMAGED, ArithmeticError, MemoryError) as error:
            if asked.trust:  # a fault of one's own, whose place is wanted
                raise
            raise TinymimError(f"{asked.file} cannot be run again: {type(error).__name__}: {misfit(error)}") from None


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
