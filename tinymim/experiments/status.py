"""Progress of a plan, the table of its stages, and that of a single run: from files alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from tinymim.errors import TinymimError, counted, first_few
from tinymim.experiments.fit_files import EXPORTED, RESULTS, outputs, promised
from tinymim.experiments.plan import CHECKPOINT
from tinymim.experiments.state import Entry, State
from tinymim.report.runs import Run
from tinymim.safety.console import PlainConsole
from tinymim.safety.escaping import one_line
from tinymim.safety.text import json_or_empty
from tinymim.teachers import record_schemas
from tinymim.training import lock, run_schemas
from tinymim.training.progress import clock
from tinymim.training.run_folder import PROGRESS

COLOURS = {"done": "green", "running": "cyan", "interrupted": "yellow", "cut off": "yellow", "failed": "red"}
COLOURS |= {"altered": "red"}


def status(state: State, console: PlainConsole | None = None) -> None:
    """Print how far each stage is: while the plan runs, and from another machine too."""
    console, plan = console or PlainConsole(), state.plan
    owner = lock.owner(state.place)
    asked, left_out = state.asked, len(state.entries) - len(state.asked)
    done = sum(entry.state == "done" for entry in asked.values())
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)  # every column at its widest makes 80 columns
    table.add_column("stage", overflow="fold")
    table.add_column("state", no_wrap=True)
    for column in ("epoch", "metric", "training", "sha256"):
        table.add_column(column, justify="right", no_wrap=True)
    seed: int | None = None
    by_seed = all(key.endswith(fit.stage) for key, fit in plan.fits.items())  # as folders of chains are
    for key, entry in asked.items():
        if by_seed and (its_seed := plan.fits[key].seed) != seed:
            seed = its_seed
            table.add_row(f"seed {seed}", style="bold")
        table.add_row(plan.fits[key].stage if by_seed else key, *_row(state, key, entry, bool(owner)))
    more = f", and {left_out:,} left out, for which no command has asked" if left_out else ""
    console.print(
        f"{plan.kind} {plan.name} in {state.place}: {done} of {counted(len(asked), 'stage')} done{more}\n",
        soft_wrap=True,
    )
    console.print(table)
    console.print(f"\nat work: {owner}" if owner else "\nnobody is at work on it", soft_wrap=True)
    for keys, reason in failures(state.entries).items():
        console.print(f"{keys} failed: {one_line(reason)}", soft_wrap=True)
    if not owner and done < len(asked):
        console.print(f"go on with: {state.again}", soft_wrap=True)


def of_run(run: Run, console: PlainConsole | None = None) -> None:
    """Print what a run is, how far it is, and what can be done with it."""
    console, owner = console or PlainConsole(), lock.owner(run.place)
    figure, resumed = _metric(run.metrics), f"tinymim resume {run.place}"
    lines = [
        f"run {run.recipe.get('name') or run.name} in {run.place}: {run.kind} {run.start}, {run.data}",
        run.state + (f", {figure}" if figure != "-" else ""),
        f"at work: {owner}" if owner else "nobody is at work on it",
        *([] if owner or run.results or resumed in run.state else [f"go on with: {resumed}"]),
        f"its page: tinymim report {run.place}",
    ]
    for line in lines:
        console.print(one_line(line), soft_wrap=True)


def failures(entries: dict[str, Entry]) -> dict[str, str]:
    """Reasons of what failed, by the names of the first fits that share one, such as a folder that is not there."""
    by_reason: dict[str, list[str]] = {}
    for key, entry in entries.items():
        if entry.state == "failed":
            by_reason.setdefault(re.sub(r" \([^()]*\.txt\)$", "", str(entry.error)), []).append(key)
    return {first_few(keys): str(entries[keys[0]].error) for keys in by_reason.values()}


def headline(state: State, key: str) -> str:
    """The figure of a finished fit that says most."""
    names = promised(state, key)
    results = _figures(state.place / key / names[-1]) if names else {}
    metrics = results.get("metrics") or {}
    shown = _metric({name.replace("test/", "val/", 1): value for name, value in metrics.items()})
    return "done" if shown == "-" else shown


def _figures(path: Path) -> dict[str, Any]:
    """The figures of a stage's file; none where they are not there, not whole, or of other types."""
    content = json_or_empty(path)
    try:
        record_schemas.fit(content, run_schemas.Results, str(path))
    except TinymimError:
        return {}
    return content


def _row(state: State, key: str, entry: Entry, at_work: bool) -> list[str | Text]:
    place = state.place / key
    results, progress = _figures(place / RESULTS), _figures(place / PROGRESS)
    if entry.state == "waiting":  # what lies there is of an earlier form of it
        results = progress = {}
    shown: str = "cut off" if entry.state == "running" and not at_work else entry.state
    if entry.state == "done" and outputs(state, key) != entry.outputs:
        shown = "altered"
    epoch = str(results.get("epochs") or "-")
    if None not in (progress.get("epoch"), progress.get("epochs")):
        epoch = f"{progress['epoch']}/{progress['epochs']}"
    sha = entry.outputs.get(CHECKPOINT, entry.outputs.get(EXPORTED, "-"))[:12]
    metric = _metric(results.get("metrics") or progress.get("metrics") or {})
    return [Text(shown, COLOURS.get(shown, "")), epoch, metric, _clock(results, progress), sha]


def training_time(state: State, key: str) -> str:
    """Time that a fit has trained, over all pieces of a resumed one; ``-`` of what does not train, such as a test, and
    while a fit waits. Wherever a plan's fits are listed it is this, as one may lie still between its pieces."""
    if state.entries[key].state == "waiting":
        return "-"
    return _clock(_figures(state.place / key / RESULTS), _figures(state.place / key / PROGRESS))


def _clock(results: dict[str, Any], progress: dict[str, Any]) -> str:
    spent = results.get("seconds", progress.get("seconds"))
    return "-" if spent is None else clock(spent)


def _metric(metrics: dict[str, float]) -> str:
    """The one figure that says most: accuracy on masks, boxes or labels, nearest neighbours, else the loss."""
    for name, title in (("val/miou", "mIoU"), ("val/map", "mAP"), ("val/top1", "top-1"), ("val/knn_top1", "10-NN")):
        if name in metrics:
            return f"{title} {metrics[name]:.1%}"
    loss = metrics.get("val/loss", metrics.get("train/loss"))
    return "-" if loss is None else f"loss {loss:.4f}"
