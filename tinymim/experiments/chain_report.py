"""What a chain looks like from outside: the table of its stages, and the comparison at its end."""

from __future__ import annotations

import shlex
from typing import Any

from rich.table import Table
from rich.text import Text

from tinymim.experiments import cells, tables
from tinymim.experiments.artefacts import EXPORTED, RESULTS, outputs
from tinymim.experiments.cells import FIGURES, Figure
from tinymim.experiments.plan import CHECKPOINT
from tinymim.experiments.question import Question
from tinymim.experiments.state import Entry, State, read_json
from tinymim.experiments.tables import Records
from tinymim.files import write_json, write_text
from tinymim.report.document import Section
from tinymim.safety.console import PlainConsole
from tinymim.training import lock
from tinymim.training.progress import clock
from tinymim.training.run_folder import PROGRESS

COLOURS = {
    "done": "green",
    "running": "cyan",
    "interrupted": "yellow",
    "cut off": "yellow",
    "failed": "red",
    "altered": "red",
}


def status(state: State, console: PlainConsole | None = None) -> None:
    """Print how far each stage is, from files alone: while the chain runs, and from another machine too."""
    console = console or PlainConsole()
    owner = lock.owner(state.place)
    done = sum(entry.state == "done" for entry in state.entries.values())
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)  # every column at its widest makes 80 columns
    table.add_column("stage", overflow="fold")
    table.add_column("state", no_wrap=True)
    for column in ("epoch", "metric", "time", "sha256"):
        table.add_column(column, justify="right", no_wrap=True)
    seed: int | None = None
    for key, entry in state.entries.items():
        if (own := state.chain.runs()[key]) != seed:
            seed = own
            table.add_row(f"seed {seed}", style="bold")
        table.add_row(*_row(state, key, entry, bool(owner)))
    console.print(
        f"chain {state.chain.name} in {state.place}: {done} of {len(state.entries)} stages done\n", soft_wrap=True
    )
    console.print(table)
    console.print(f"\nat work: {owner}" if owner else "\nnobody is at work on it", soft_wrap=True)
    for key, entry in state.entries.items():
        if entry.error:
            console.print(f"{key} failed: {entry.error}", soft_wrap=True)
    if not owner and done < len(state.entries):
        console.print(f"go on with: tinymim chain resume {shlex.quote(str(state.place))}", soft_wrap=True)


def _row(state: State, key: str, entry: Entry, at_work: bool) -> list[str | Text]:
    place = state.place / key
    results, progress = read_json(place / RESULTS), read_json(place / PROGRESS)
    if entry.state == "waiting":  # what lies there is of an earlier form of it
        results = progress = {}
    shown: str = "cut off" if entry.state == "running" and not at_work else entry.state
    if entry.state == "done" and outputs(state, key) != entry.outputs:
        shown = "altered"
    epoch = (
        f"{progress['epoch']}/{progress['epochs']}"
        if {"epoch", "epochs"} <= progress.keys()
        else str(results.get("epochs", "-"))
    )
    spent = results.get("seconds", progress.get("seconds"))
    sha = entry.outputs.get(CHECKPOINT, entry.outputs.get(EXPORTED, "-"))[:12]
    metric = _metric(results.get("metrics") or progress.get("metrics") or {})
    took = "-" if spent is None else clock(spent)
    return [state.stage(key).name, Text(shown, COLOURS.get(shown, "")), epoch, metric, took, sha]


def _metric(metrics: dict[str, float]) -> str:
    """The one figure that says most: accuracy on masks, boxes or labels, nearest neighbours, else the loss."""
    for name, title in (("val/miou", "mIoU"), ("val/map", "mAP"), ("val/top1", "top-1"), ("val/knn_top1", "10-NN")):
        if name in metrics:
            return f"{title} {metrics[name]:.1%}"
    loss = metrics.get("val/loss", metrics.get("train/loss"))
    return "-" if loss is None else f"loss {loss:.4f}"


def compare(state: State) -> str | None:
    """Write the comparison of finished stages, ``table.md`` and ``table.json``.

    Returns:
        The table, or ``None`` where the chain has none.
    """
    if not (found := compared(state)):
        return None
    question, records, figures = found
    text = f"{section(state, question, records, figures).markdown()}\n{tables.READING}\n"
    write_text(state.place / "table.md", text)
    rows = {title: {str(seed): record for seed, record in found.items()} for title, found in records.items()}
    write_json(state.place / "table.json", {"chain": state.chain.name, "rows": rows})
    return text


def section(state: State, question: Question, records: Records, figures: dict[str, Figure]) -> Section:
    """The comparison, and under it the settings of each row."""
    made = tables.section(question, records, figures)
    if state.chain.settings:
        stages = dict.fromkeys(figure.stage for figure in figures.values())
        made.remarks += state.chain.settings.remarks(question.rows, stages, f"tinymim search {state.chain.name}")
    return made


def compared(state: State) -> tuple[Question, Records, dict[str, Figure]] | None:
    """The chain's question, what its finished stages say, and the figures that it has; ``None`` without a question."""
    wanted: dict[str, Any] = state.chain.compare
    if not wanted:
        return None
    question = Question(
        title=wanted["title"],
        rows={title: title for title in wanted["rows"]},
        source=wanted.get("source", ""),
        expects=wanted.get("expects", ""),
        paper=wanted.get("paper") or {},
    )
    records: Records = {title: _records(state, stages) for title, stages in wanted["rows"].items()}
    kinds = {state.chain.stages[name].kind for stages in wanted["rows"].values() for name in stages}
    return question, records, {title: figure for title, figure in FIGURES.items() if figure.stage in kinds}


def _records(state: State, stages: list[str]) -> dict[int, dict[str, Any]]:
    """The figures of a row, from each seed all of whose stages are done."""
    keys: dict[int, list[str]] = {}
    for key, seed in state.chain.runs().items():
        if state.stage(key).name in stages:
            keys.setdefault(seed or 0, []).append(key)
    found = {}
    for seed, own in keys.items():
        if all(state.entries[key].state == "done" for key in own):
            results = {state.stage(key).kind: read_json(state.place / key / RESULTS) for key in own}
            found[seed] = {"status": "done", "figures": cells.measured(results)}
    return found
