"""A run beside other runs: those of the same data and kind first, others folded away."""

from __future__ import annotations

import os
from pathlib import Path

from tinymim.config.spec import differences
from tinymim.report.curves import KNOWN, says, title_of
from tinymim.report.document import Link, Section, Table
from tinymim.report.runs import PAGE, Run

FIGURES = ("val/top1", "val/top5", "val/knn_top1", "val/miou", "val/map", "val/loss")
"""Figures at the top and in the table, in this order."""

ASIDE = ("run_dir", "name", "ckpt_path", "overwrite", "compare")
"""Keys of a recipe that do not change the training."""

MOST = 12
"""Runs of the same data and kind that are not folded away."""

ALONE = "There is no other finished run beside this one. Name some: tinymim report RUN OTHER ..."
COMPARED = "Figures of the last weights on each run's own held-out images; one seed each. A click on a head sorts."
OF_OTHERS = "{} of another kind or other data, whose figures cannot be compared with this run's"


def alike(run: Run, other: Run) -> bool:
    """Whether their figures can be compared: one kind of training, of a frozen network or a whole one, on the same
    data."""
    return all(
        mine == theirs
        for mine, theirs in (
            (run.kind, other.kind),
            (run.data, other.data),
            (run.arguments.get("linear_probe"), other.arguments.get("linear_probe")),
        )
    )


def ranked(run: Run, others: list[Run]) -> list[Run]:
    """Runs that can be compared, the best first: by the first figure that ``run`` has."""
    name = next((name for name in FIGURES if name in run.metrics and says(run, name)), "")
    sign = 1 if name.endswith("loss") else -1
    chosen = [other for other in others if alike(run, other)]
    return sorted(chosen, key=lambda other: (name not in other.metrics, sign * other.metrics.get(name, 0)))


def value(name: str, number: float) -> str:
    """A figure for people."""
    return f"{number:.1%}" if name.removeprefix("val/") in KNOWN else f"{number:.4f}"


def section(run: Run, others: list[Run], out: Path) -> Section:
    """Every run's figures, ``run`` first, and how each comparable one's recipe differs from it; links are for a page in
    the folder ``out``."""
    title = "Against other runs"
    if not others:
        return Section(title, [ALONE])
    near = ranked(run, others)
    far = [other for other in others if not alike(run, other)]
    tables = [_table([run, *near[:MOST]], run, out)]
    tables[0].text = COMPARED if near else "No other run beside this one is of the same kind and data."
    if near[MOST:]:
        tables.append(_table(near[MOST:], run, out, f"{len(near) - MOST} more of the same kind and data"))
    if far:
        tables.append(_table(far, run, out, OF_OTHERS.format(len(far))))
    listings = []
    for other in near[:MOST]:
        ours, theirs = ({k: v for k, v in each.recipe.items() if k not in ASIDE} for each in (run, other))
        if lines := [line.replace(", now ", ", there ") for line in differences(ours, theirs)]:
            listings.append((f"How {other.name} differs in its recipe ({len(lines)})", "\n".join(lines)))
    return Section(title, tables=tables, listings=listings)


def _table(runs: list[Run], run: Run, out: Path, folded: str = "") -> Table:
    logged = [name for name in FIGURES if any(name in each.metrics and says(each, name) for each in runs)]
    names = sorted(logged, key=lambda name: name not in run.metrics)
    rows = []
    for each in runs:
        figures = [value(name, each.metrics[name]) if name in each.metrics else "-" for name in names]
        parameters = f"{each.results['parameters']:,}" if each.results.get("parameters") else "-"
        epochs = str(each.results.get("epochs") or "-")
        name = f"{each.name} (this run)" if each is run else _linked(each, out)
        rows.append([name, *figures, epochs, parameters, f"{each.kind} {each.start}, {each.data}"])
    heads = ["run", *(title_of(name) for name in names), "epochs", "parameters", "training"]
    return Table(heads, rows, folded=folded)


def _linked(run: Run, out: Path) -> str | Link:
    """The run's name, which leads to its page where there is one."""
    page = run.place / PAGE
    return Link(run.name, os.path.relpath(page, out)) if page.is_file() else run.name
