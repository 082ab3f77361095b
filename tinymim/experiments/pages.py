"""The pages of what was compared, all headed alike: a chain's, a study's, and what distilling buys."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from tinymim.errors import counted
from tinymim.experiments import fits_shown, headline, questions, report, tables
from tinymim.experiments.compare import SCRATCH, STUDENT
from tinymim.experiments.questions import Figure, Question
from tinymim.experiments.state import State
from tinymim.experiments.study import Study
from tinymim.experiments.tables import Records
from tinymim.files import write_json, write_text
from tinymim.report import plain_text
from tinymim.report.document import Document, Section, Table
from tinymim.training import run_record

PAGE = "index.html"
"""Name of a page in the folder of what was compared."""


def chain(state: State, draw: bool = True) -> str | None:
    """Write a chain's page and, where it has one, the comparison of its finished stages: ``table.json`` and
    ``table.md``, which is returned as it is printed. ``draw`` also the curves of a chain that compares nothing."""
    compared = questions.of_chain(state.plan)
    every = fits_shown.section(state, state.place)
    if compared is None:
        made = [every, *([fits_shown.drawn(state)] if draw else [])]
        Document(f"Chain {state.plan.name}", made, about=state.plan.about).write(state.place / PAGE)
        return None
    records = report.records(state, compared)
    section = report.section(compared, compared.questions["table"], records)
    reading = tables.reading(records)
    made = [*headline.sections(compared, records), section, every]
    settings = [("how figures read", reading)]
    Document(f"Chain {state.plan.name}", made, settings=settings).write(state.place / PAGE)
    write_text(state.place / "table.md", f"{section.markdown()}\n{reading}\n")
    rows = {
        title: {
            str(seed): {"status": record["status"], "figures": record["figures"]}
            for seed, record in by_seed.items()
            if record["status"] == "done"
        }
        for title, by_seed in records.items()
    }
    write_json(state.place / "table.json", {"chain": state.plan.name, "rows": rows})
    return f"{plain_text.section(section)}\n{reading}\n"


def study(of: Study, state: State, records: Records, draw: bool = True) -> Document:
    """The page of a study; its tables and curves are written into its folder."""
    states = [record["status"] for by_seed in records.values() for record in by_seed.values()]
    done, failed = states.count("done"), states.count("failed")
    rows, seeds = len(of.compared.rows), len(of.plan.seeds or [])
    settings = [("how figures read", tables.reading(records))]
    settings.append(
        (
            "cells",
            f"{done} done, {failed} failed; {counted(rows, 'row')} x {counted(seeds, 'seed')} make {rows * seeds}",
        )
    )
    settings.append(("pre-training", ", ".join(f"{key} {value}" for key, value in of.budget.items())))
    for role, fit in of.later.items():
        texts = [text.removeprefix("--").replace("=", " ") for text in fit.overrides]
        settings.append((role, ", ".join([fit.recipe, *texts])))
    return Document(
        title=f"Study {of.plan.name}",
        sections=[
            *(headline.sections(of.compared, records) if draw else []),
            *report.sections(state, of.compared, records, state.place, draw),
            *([fits_shown.section(state, state.place)] if draw else []),
        ],
        about=f"{of.plan.about.rstrip('.')}." if of.plan.about else "",
        warning=f"{counted(failed, 'cell')} failed: rows of such have fewer seeds." if failed else "",
        settings=settings,
    )


def write_study(of: Study, state: State, records: Records) -> str:
    """Write every table of a study, each file whole or not at all; all of them as they are printed."""
    made = study(of, state, records, draw=False)
    made.write(state.place / "study.md")
    seeds = ((row, seed, record) for row, by_seed in records.items() for seed, record in sorted(by_seed.items()))
    cells = [{"row": row, "seed": seed, **record} for row, seed, record in seeds]
    write_json(state.place / "study.json", {"environment": run_record.environment(), "cells": cells})
    return plain_text.document(made)


def comparison(of: Study, state: State, records: Records, jobs: int) -> str:
    """Write ``table.md``, ``table.json`` and the page of a student beside the same network from scratch; the table as
    it is printed."""
    seeds = of.plan.seeds or []
    question, named = of.compared.questions["compared"], "seeds " + ", ".join(map(str, seeds))
    spread = ", mean ± standard deviation."
    if len(seeds) == 1:
        named, spread = f"one seed, {seeds[0]}", "."
    made = Section(
        f"{question.title} beside the same student from scratch",
        sentences(records, of.compared.figures),
        [_costs(question, records, of.compared.figures)],
        remarks=[f"Held-out images, in per cent; {named}{spread}", *of.compared.remarks(question)],
    )
    write_text(state.place / "table.md", made.markdown())
    every = fits_shown.section(state, state.place)
    shown = report.drawn(made, state, of.compared, "compared", records)
    page = Document(f"Distilled: {question.title}", [*headline.sections(of.compared, records), shown, every])
    page.write(state.place / PAGE)
    content = {
        "environment": run_record.environment(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "jobs": jobs,
        "seeds": seeds,
        "rows": {
            row: {str(seed): record for seed, record in by_seed.items()} for row, by_seed in records.items() if by_seed
        },
        "says": made.text,
        "settings": made.remarks,
    }
    write_json(state.place / "table.json", content)
    return plain_text.section(made)


def _costs(question: Question, records: Records, figures: dict[str, Figure]) -> Table:
    """The figures, and what each row's training took."""
    made = tables.table(question, records, figures)
    for row, line in zip(question.rows, made.rows, strict=True):
        done: list[dict[str, Any]] = [record for record in records[row].values() if record["status"] == "done"]
        parameters = done[0]["parameters"] if done else 0
        seconds = statistics.mean(record["seconds"] for record in done) if done else 0.0
        line += [f"{parameters:,}", f"{seconds:.0f}"] if parameters else ["-", "-"]
    return Table([*made.heads, "parameters", "seconds"], made.rows)


def sentences(records: Records, figures: dict[str, Figure]) -> list[str]:
    """Sentences on what distilling buys; a figure that is not ahead by more than the spread is named."""
    ahead, level, behind, single = list[str](), list[str](), list[str](), False
    for title, figure in figures.items():
        first, second = (tables.values(records, row, title) for row in (STUDENT, SCRATCH))
        if not first.keys() & second.keys():
            continue
        mean, spread = tables.gap(first, second, figure)
        single = single or spread is None
        difference = f"{title} by {figure.number(abs(mean))}"
        difference += f" ± {figure.number(spread, 2)}" if spread is not None else ""
        shows = abs(mean) > (spread or 0) and float(figure.number(mean))
        (level if not shows else ahead if mean > 0 else behind).append(difference)
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
