"""A study as a page, and as sections that a longer report can hold: tables, what they say, convergence, curves."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinymim.experiments import convergence, loss_curves, tables
from tinymim.experiments.convergence import Logged
from tinymim.experiments.question import Curve, Figure, Question
from tinymim.experiments.study_grid import Study
from tinymim.experiments.tables import Records
from tinymim.files import write_text
from tinymim.report.document import Document, Section
from tinymim.report.finding import Finding
from tinymim.training import metrics_log


def document(study: Study, records: Records, place: Path, draw: bool = True) -> Document:
    """The page of the study in the folder ``place``, see :func:`sections`."""
    states = [record["status"] for by_seed in records.values() for record in by_seed.values()]
    done, failed = states.count("done"), states.count("failed")
    whole = f"{len(study.rows)} rows x {len(study.seeds)} seeds are {len(study.rows) * len(study.seeds)}"
    settings = [("cells", f"{done} done, {failed} failed; {whole}")]
    settings.append(("pre-training", ", ".join(f"{key} {value}" for key, value in study.budget.items())))
    for stage in study.later:
        own = [text.removeprefix("--").replace("=", " ") for text in stage.overrides]
        settings.append((stage.name, ", ".join([stage.recipe, *own])))
    return Document(
        title=f"Study {study.name}",
        sections=sections(study, records, place, place, draw),
        about=" ".join(text.rstrip(".") + "." for text in (study.about, tables.READING) if text),
        warning=f"{failed} cell(s) failed: the rows they are of have fewer seeds." if failed else "",
        settings=settings,
    )


def sections(study: Study, records: Records, place: Path, beside: Path, draw: bool = True) -> list[Section]:
    """A section for each question; tables and curves are written into ``place``, the study's folder.

    Args:
        study: as loaded.
        records: of its cells.
        place: its folder.
        beside: folder of the page that will hold them, which its links are relative to.
        draw: the curves too.
    """
    root = Path(os.path.relpath(place, beside))
    lines = _logged(study, records, place)
    return [
        _section(study, id, question, records, lines, place, root, draw) for id, question in study.questions.items()
    ]


def _section(
    study: Study, id: str, question: Question, records: Records, lines: Logged, place: Path, root: Path, draw: bool
) -> Section:
    figures = study.shown(question)
    made = tables.section(question, records, figures)
    made.remarks += study.remarks(question)
    files = {id: tables.as_csv(question, records, figures)}
    curves = _curves(study, question)
    speeds, fast = _speeds(curves, question, lines)
    if speeds:
        asked = replace(question, paper={})
        table = tables.table(asked, fast, speeds)
        made.tables.append(replace(table, title="Convergence", text=convergence.READING))
        made.text += tables.claims(question, fast, speeds)
        files[f"{id}_convergence"] = tables.as_csv(asked, fast, speeds)
    for table, (name, text) in zip(made.tables, files.items(), strict=True):
        write_text(place / "tables" / f"{name}.csv", text)
        table.files = [str(root / "tables" / f"{name}.csv")]
    write_text(place / "tables" / f"{id}.md", made.markdown())
    if draw:
        for key, curve in curves.items():
            _draw(made, question, key, curve, lines, place / "curves" / f"{id}_{key}", str(root / "curves"))
    return made


def answers(study: Study, records: Records, place: Path) -> list[Finding]:
    """What the paper found and what is found here, of the questions where both say something."""
    lines, found = _logged(study, records, place), []
    for question in study.questions.values():
        speeds, fast = _speeds(_curves(study, question), question, lines)
        both = {
            row: {seed: _joined(record, fast[row].get(seed)) for seed, record in records[row].items()} for row in fast
        }
        found.append(tables.finding(question, both, {**speeds, **study.shown(question)}))
    return [one for one in found if one]


def _joined(record: dict[str, Any], fast: dict[str, Any] | None) -> dict[str, Any]:
    """A cell's record with its speeds among the figures."""
    return {**record, "figures": {**record["figures"], **fast["figures"]}} if fast else record


def _curves(study: Study, question: Question) -> dict[str, Curve]:
    """Those of the stages whose figures the question shows."""
    shown = {figure.stage for figure in study.shown(question).values()}
    return {key: curve for key, curve in study.curves.items() if curve.stage in shown}


def _speeds(curves: dict[str, Curve], question: Question, lines: Logged) -> tuple[dict[str, Figure], Records]:
    return convergence.measured({c.title: (c.stage, c.loss) for c in curves.values()}, list(question.rows), lines)


def _draw(made: Section, question: Question, key: str, curve: Curve, lines: Logged, stem: Path, beside: str) -> None:
    if picture := loss_curves.draw(question, curve, lines, stem, beside):
        made.pictures.append(picture)
        return
    names = {name for stages in lines.values() for by in stages.values() for name in by.get(curve.stage, {})}
    if not names:  # no cell is finished
        return
    known = ", ".join(sorted({name.partition("/")[2] for name in names if "loss" in name})) or "no loss"
    made.remarks.append(f"curves.{key}.loss: {curve.stage} logged no {curve.loss}; it logged {known}.")


def _logged(study: Study, records: Records, place: Path) -> Logged:
    """What the later stages of the finished cells logged."""
    stages = {curve.stage for curve in study.curves.values()}
    return {
        row: {
            seed: {stage: metrics_log.read(place / "cells" / row / f"seed{seed}" / stage) for stage in stages}
            for seed, record in by_seed.items()
            if record["status"] == "done"
        }
        for row, by_seed in records.items()
    }
