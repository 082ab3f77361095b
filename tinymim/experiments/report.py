"""The comparison of a plan's finished fits: their figures, and the tables of its questions."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinymim import extras
from tinymim.errors import TinymimError
from tinymim.experiments import convergence, loss_curves, plan_changes, tables
from tinymim.experiments.convergence import Logged
from tinymim.experiments.fit_files import promised
from tinymim.experiments.plan import Plan
from tinymim.experiments.questions import Comparison, Curve, Figure, Question
from tinymim.experiments.state import State
from tinymim.experiments.status import headline
from tinymim.experiments.tables import Records
from tinymim.files import write_text
from tinymim.report import csv_files
from tinymim.report.document import Section
from tinymim.report.finding import Finding
from tinymim.safety.text import json_or_empty
from tinymim.training import metrics_log


def records(state: State, compared: Comparison, plan: Plan | None = None) -> Records:
    """State of each row under each seed, and the figures of those that are done; with a ``plan`` as its file has it
    today, what has another definition in ``state`` is left out.

    Raises:
        TinymimError: a finished fit did not measure one of the figures.
    """
    changed = set(plan_changes.between(state.plan, plan_changes.keep_precision(state.plan, plan))) if plan else set()
    stale = state.plan.with_descendants(changed)
    rows: Records = {row: {} for row in compared.rows}
    for row, stages in compared.rows.items():
        if stale.intersection(stages.values()):
            continue
        seeds = dict.fromkeys(fit.seed for fit in state.plan.fits.values() if fit.stage in stages.values())
        for seed in seeds:
            keys = {role: key for role, stage in stages.items() if (key := state.plan.key(stage, seed))}
            if record := _record(state, keys, compared):
                rows[row][seed or 0] = record
    return rows


def _record(state: State, keys: dict[str, str], compared: Comparison) -> dict[str, Any] | None:
    """Record of a row under a seed, whose fits are ``keys`` by what they stand for; ``None`` while at work."""
    needed = state.plan.with_sources(keys.values())
    errors = {key: entry.error for key in needed if (entry := state.entries[key]).state == "failed"}
    if errors:
        return {"status": "failed", "error": "; ".join(f"{key}: {error}" for key, error in sorted(errors.items()))}
    if any(state.entries[key].state != "done" for key in keys.values()):
        return None
    results = {role: _results(state, key) for role, key in keys.items()}
    figures = {}
    for title, figure in compared.figures.items():
        metrics = results.get(figure.stage, {}).get("metrics", {})
        if figure.metric in metrics:
            figures[title] = metrics[figure.metric]
        elif figure.stage in keys and state.plan.stage(keys[figure.stage]).kind != "test":
            known = ", ".join(sorted(metrics)) or "nothing"
            raise TinymimError(f"figures.{title}.metric: {figure.stage} has no {figure.metric}; it has {known}")
    return {
        "status": "done",
        "figures": figures,
        "parameters": max(result.get("parameters", 0) for result in results.values()),
        "seconds": round(sum({key: results[role].get("seconds", 0) for role, key in keys.items()}.values()), 1),
    }


def _results(state: State, key: str) -> dict[str, Any]:
    """Results of a finished fit or test; the figures of a test as those of a fit are called."""
    results = json_or_empty(state.place / key / promised(state, key)[-1])
    metrics = {name.replace("test/", "val/", 1): value for name, value in (results.get("metrics") or {}).items()}
    return {**results, "metrics": metrics}


def describe(state: State, compared: Comparison, key: str) -> str:
    """The figures of a finished fit, for people."""
    stage, metrics = state.plan.fits[key].stage, _results(state, key)["metrics"]
    roles = {role for stages in compared.rows.values() for role, name in stages.items() if name == stage}
    figures = {title: figure for title, figure in compared.figures.items() if figure.stage in roles}
    shown = [f"{title} {fig.shown([metrics[fig.metric]])}" for title, fig in figures.items() if fig.metric in metrics]
    return ", ".join(shown) or headline(state, key)


def section(compared: Comparison, question: Question, records: Records) -> Section:
    """The table of a question, and under it the settings of each row."""
    made = tables.section(question, records, compared.shown(question))
    made.remarks += compared.remarks(question)
    return made


def sections(state: State, compared: Comparison, records: Records, beside: Path, draw: bool = True) -> list[Section]:
    """A section for each question; tables and, with ``draw``, curves are written into the plan's folder. Links are
    relative to ``beside``, the folder of the page that will hold them."""
    root, logged = Path(os.path.relpath(state.place, beside)), _logged(state, compared, records)
    return [_question(state, compared, id, records, logged, root, draw) for id in compared.questions]


def _question(
    state: State, compared: Comparison, id: str, records: Records, logged: Logged, root: Path, draw: bool
) -> Section:
    question, place = compared.questions[id], state.place
    made = section(compared, question, records)
    files = {id: tables.csv_rows(question, records, compared.shown(question))}
    curves = _curves(compared, question)
    speeds, fast = _speeds(curves, question, logged)
    if speeds:
        without = replace(question, paper={})
        table = tables.table(without, fast, speeds)
        made.tables.append(replace(table, title="Convergence", text=convergence.READING))
        made.text += tables.claims(question, fast, speeds)
        files[f"{id}_convergence"] = tables.csv_rows(without, fast, speeds)
    for table, (name, rows) in zip(made.tables, files.items(), strict=True):
        csv_files.write(place / "tables" / f"{name}.csv", rows)
        table.files = [str(root / "tables" / f"{name}.csv")]
    write_text(place / "tables" / f"{id}.md", made.markdown())
    if draw:
        _draw(made, state, compared, id, logged, root)
    return made


def drawn(made: Section, state: State, compared: Comparison, id: str, records: Records) -> Section:
    """The section of a question with the losses of its rows, which are written beside the page in the plan's folder."""
    with_curves = replace(made, pictures=[*made.pictures], remarks=[*made.remarks])
    _draw(with_curves, state, compared, id, _logged(state, compared, records), Path())
    return with_curves


def _draw(made: Section, state: State, compared: Comparison, id: str, logged: Logged, root: Path) -> None:
    question = compared.questions[id]
    curves = _curves(compared, question)
    lacking = extras.missing("curves need", "matplotlib") if curves else []
    made.remarks += lacking
    for key, curve in curves.items() if not lacking else []:
        stem = state.place / "curves" / f"{id}_{key}"
        if picture := loss_curves.draw(question, curve, logged, stem, str(root / "curves")):
            made.pictures.append(picture)
        elif names := {
            name for stages in logged.values() for by in stages.values() for name in by.get(curve.stage, {})
        }:
            known = ", ".join(sorted({name.partition("/")[2] for name in names if "loss" in name})) or "no loss"
            made.remarks.append(f"curves.{key}.loss: {curve.stage} logged no {curve.loss}; it logged {known}.")


def answers(state: State, compared: Comparison, records: Records) -> list[Finding]:
    """Findings of the paper beside those here, for the questions that both answer."""
    logged, findings = _logged(state, compared, records), []
    for question in compared.questions.values():
        speeds, fast = _speeds(_curves(compared, question), question, logged)
        both = {
            row: {
                seed: {**record, "figures": {**record["figures"], **fast[row].get(seed, {"figures": {}})["figures"]}}
                if record["status"] == "done"
                else record
                for seed, record in records[row].items()
            }
            for row in fast
        }
        findings.append(tables.finding(question, both, {**speeds, **compared.shown(question)}))
    return [finding for finding in findings if finding]


def _curves(compared: Comparison, question: Question) -> dict[str, Curve]:
    """Curves of the stages whose figures the question shows."""
    shown = {figure.stage for figure in compared.shown(question).values()}
    return {key: curve for key, curve in compared.curves.items() if curve.stage in shown}


def _speeds(curves: dict[str, Curve], question: Question, logged: Logged) -> tuple[dict[str, Figure], Records]:
    return convergence.measured({c.title: (c.stage, c.loss) for c in curves.values()}, list(question.rows), logged)


def _logged(state: State, compared: Comparison, records: Records) -> Logged:
    """Logged curves of the rows that are done."""
    stages = {curve.stage for curve in compared.curves.values()}
    logged: Logged = {}
    for row, by_seed in records.items():
        logged[row] = {}
        for seed, record in by_seed.items():
            if record["status"] == "done":
                fits = compared.rows[row]  # of a frozen teacher, only what judges it
                keys = {role: state.plan.key(fits[role], seed) for role in stages & fits.keys()}
                logged[row][seed] = {role: metrics_log.read(state.place / str(key)) for role, key in keys.items()}
    return logged
