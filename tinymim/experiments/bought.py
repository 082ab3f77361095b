"""What distilling buys: the table of ``tinymim distill``, and the sentences under it, computed from its figures."""

from __future__ import annotations

import statistics
from pathlib import Path

import torch

from tinymim.experiments import tables
from tinymim.experiments.comparison import SCRATCH, STUDENT, TEACHER, Comparison
from tinymim.experiments.question import Figure, Question
from tinymim.experiments.tables import Records
from tinymim.files import write_json, write_text
from tinymim.report.document import Section, Table
from tinymim.training import run_folder


def write(compared: Comparison, records: Records, place: Path, jobs: int) -> str:
    """Write ``table.md`` and ``table.json``.

    Returns:
        The table and what stands under it, as Markdown.
    """
    made = section(compared, records)
    text = made.markdown()
    write_text(place / "table.md", text)
    content = {
        "environment": run_folder.environment(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "jobs": jobs,
        "seeds": compared.study.seeds,
        "rows": {row: {str(seed): record for seed, record in found.items()} for row, found in records.items() if found},
        "says": made.text,
        "settings": made.remarks,
    }
    write_json(place / "table.json", content)
    return text


def section(compared: Comparison, records: Records) -> Section:
    """The table, what it says, and the settings behind it."""
    study = compared.study
    rows = {row: study.rows[row].title for row in (SCRATCH, STUDENT)}
    rows |= {TEACHER: "its teacher, for reference"} if records.get(TEACHER) else {}
    question = Question(compared.name, rows)
    seeds = "seeds " + ", ".join(map(str, study.seeds)) if len(study.seeds) > 1 else f"one seed, {study.seeds[0]}"
    remarks = [
        f"Held-out images, in per cent; {seeds}" + (", mean ± standard deviation." if len(study.seeds) > 1 else ".")
    ]
    remarks += study.remarks(study.questions["compared"])
    return Section(
        f"{compared.name} beside the same student from scratch",
        sentences(question, records, study.figures),
        [_table(question, records, study.figures)],
        remarks=remarks,
    )


def _table(question: Question, records: Records, figures: dict[str, Figure]) -> Table:
    """The figures, and what each row's training took."""
    made = tables.table(question, records, figures)
    for row, line in zip(question.rows, made.rows, strict=True):
        found = list(records[row].values())
        parameters, seconds = found[0]["parameters"], statistics.mean(record["seconds"] for record in found)
        line += [f"{parameters:,}", f"{seconds:.0f}"] if parameters else ["-", "-"]
    return Table([*made.heads, "parameters", "seconds"], made.rows)


def sentences(question: Question, records: Records, figures: dict[str, Figure]) -> list[str]:
    """What distilling buys and what it does not: a figure that is not ahead by more than the spread is named."""
    ahead: list[str] = []
    level: list[str] = []
    behind: list[str] = []
    single = False
    for title, figure in figures.items():
        first, second = (tables.values(records, row, title) for row in (STUDENT, SCRATCH))
        if not first.keys() & second.keys():
            continue
        mean, spread = tables.gap(first, second, figure)
        single = single or spread is None
        told = f"{title} by {figure.number(abs(mean))}" + (
            f" ± {figure.number(spread, 2)}" if spread is not None else ""
        )
        if abs(mean) <= (spread or 0) or not float(figure.number(mean)):
            level.append(told)
        else:
            (ahead if mean > 0 else behind).append(told)
    parts = []
    if ahead:
        parts.append(f"Distilling is ahead of training from scratch in {'; '.join(ahead)}.")
    if level:
        parts.append(f"Not ahead by more than the spread, so it buys nothing that shows here: {'; '.join(level)}.")
    if behind:
        parts.append(f"Training from scratch is ahead of it in {'; '.join(behind)}.")
    if parts and single:
        parts.append("One seed has no spread: these are directions, and a point or two may be chance.")
    return [" ".join(parts)] if parts else []
