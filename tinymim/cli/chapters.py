"""Chapters of the papers' report, by kind of part: its findings, and the sections of its own page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tinymim.analysis import analysis_page, results, verdicts
from tinymim.cli import scaling_command
from tinymim.cli import study_command as studies
from tinymim.errors import TinymimError
from tinymim.experiments import grid_runs, old_folders, questions, report, tables
from tinymim.experiments import state as chain_state
from tinymim.experiments.program import Part
from tinymim.experiments.program_report import Chapter, Readers
from tinymim.report.document import Section, moved
from tinymim.scaling import overfitting, scaling_page, table
from tinymim.scaling import paper_findings as scaling_findings


def study(part: Part, page: Path) -> Chapter:
    """Chapter of ``tinymim study``: the questions of its file; links are relative to ``page``, the report's folder."""
    options, loaded, _ = studies.read(part.commands[-1][1:])
    if not (part.place / "study.json").is_file():
        raise TinymimError(f"there is no {part.place / 'study.json'}")
    compared = loaded.compared
    compared.questions = {
        id: question for id, question in compared.questions.items() if id in (options.questions or [id])
    }
    state = chain_state.load(part.place) if chain_state.holds(part.place) else old_folders.read(part.place, loaded.plan)
    if state is None:
        raise TinymimError(f"{part.place} holds no fits")
    records = report.records(state, compared, loaded.plan)
    return Chapter(report.answers(state, compared, records), report.sections(state, compared, records, page))


def chain(part: Part, page: Path) -> Chapter:
    """Chapter of ``tinymim chain run``: the comparison at its end."""
    state = chain_state.load(part.place)
    compared = questions.of_chain(state.plan)
    if compared is None:
        return Chapter([], [])
    question, records = compared.questions["table"], report.records(state, compared)
    finding = tables.finding(question, records, compared.figures)
    return Chapter([finding] if finding else [], [report.section(compared, question, records)])


def analysis(part: Part, page: Path) -> Chapter:
    """Chapter of ``tinymim analyze``, of the networks that the part's ``roles`` name."""
    measured = results.read(part.place)
    answers = verdicts.answers(measured, part.roles["mim"], part.roles["supervised"]) if part.roles else []
    return Chapter(answers, analysis_page.sections(part.place, page))


def scaling(part: Part, page: Path) -> Chapter:
    """Chapter of ``tinymim scaling``, of a study's runs or of a table's."""
    args, out = scaling_command.parse(part.commands[-1][1:]), part.place / scaling_command.REPORT
    extra: list[Section] = []
    if args.table:
        rows = table.read(args.table)
    else:
        loaded, state = scaling_command.load(args), chain_state.load(part.place)
        rows = grid_runs.rows(loaded, state)
        extra = scaling_command.restored(loaded, state, rows, out)
    runs = overfitting.flagged(rows)
    objectives = list(runs["objective"].unique())
    answers = [
        replace(finding, question=f"{objective}: {finding.question}" if len(objectives) > 1 else finding.question)
        for objective in objectives
        for finding in scaling_findings.findings(runs[runs["objective"] == objective])
    ]
    return Chapter(answers, moved([*scaling_page.analyse(rows, out), *extra], out, page))


READERS: Readers = {"study": study, "chain": chain, "analysis": analysis, "scaling": scaling}
