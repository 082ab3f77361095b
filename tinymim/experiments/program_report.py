"""The report of a program: each question with the paper's answer and ours, then the parts' own tables and figures."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinymim.errors import TinymimError, counted
from tinymim.experiments import program
from tinymim.experiments.program import Part, Program
from tinymim.experiments.state import State
from tinymim.report import finding
from tinymim.report.document import Document, Section, Table
from tinymim.report.finding import Finding
from tinymim.safety import text
from tinymim.training.progress import clock

PAGE, TEXT = "report.html", "report.md"


@dataclass
class Chapter:
    """A part's chapter: its findings, and the sections of its own page."""

    findings: list[Finding]
    sections: list[Section]


Readers = dict[str, Callable[[Part, Path], Chapter]]
"""By kind of part: its chapter, for a page in that folder."""


def write(whole: Program, current: State, readers: Readers) -> None:
    """Write the report of what is there into the program's folder, as HTML and Markdown, each whole or not at all."""
    made = document(whole, current, readers)
    for name in (PAGE, TEXT):
        made.write(current.place / name)


def document(whole: Program, current: State, readers: Readers) -> Document:
    """The report."""
    answers: dict[str, list[Finding]] = {}
    judged: list[Finding] = []
    sections, missing, failed = [], [], []
    for part in whole.parts:
        went, _ = program.how(current, part)
        failed += [part.title] if went == "failed" else []
        try:
            chapter = readers[part.kind](part, current.place)
        except (TinymimError, SystemExit, *text.WRONG) as error:
            # Not run yet, failed before it wrote anything, a wrong option, or files there that are none of its own.
            missing.append(f"{part.title}: nothing to show yet ({error}).")
            continue
        counts = went in ("done", "not run")  # by its own command, then
        title = part.title if counts else f"{part.title} ({went})"
        if counts:
            judged += chapter.findings
        else:
            missing.append(f"{title}: what is shown of it may be of before, and is not counted.")
        answers[title] = chapter.findings
        for section in chapter.sections:
            section.title = f"{title}: {section.title}"
            sections.append(section)
    about = whole.about
    if whole.quick:
        about = f"The short form: it shows that everything runs, and says little about the questions. {about}"
    return Document(
        "Three papers, repeated",
        [_summary(answers, judged, missing), *sections, _parts(whole.parts, current)],
        about,
        f"{counted(len(failed), 'part')} failed: {', '.join(failed)}. See the end of the page." if failed else "",
        [("program", whole.name), *((f"vars.{key}", str(value)) for key, value in whole.vars.items())],
    )


def _summary(answers: dict[str, list[Finding]], judged: list[Finding], missing: list[str]) -> Section:
    """Every question, and how often the answers that count agree."""
    agree = sum(answer.verdict == finding.AGREES for answer in judged)
    partly = sum(answer.verdict.startswith(f"{finding.AGREES} in") for answer in judged)
    otherwise = sum(answer.verdict.startswith(finding.DISAGREES) for answer in judged)
    open_ = len(judged) - agree - partly - otherwise
    single = sum(answer.seeds == "1" and answer.verdict != finding.OPEN for answer in judged)
    text = (
        f"Of {len(judged)} questions, {agree} are answered here as in the papers, {partly} in part, {otherwise} "
        f"otherwise, and {open_} cannot be told from these runs."
    )
    text += f" {single} of the answers rest on one seed: another may turn them round." if single else ""
    cards = {"questions": len(judged), "as in the papers": agree, "in part": partly, "otherwise": otherwise}
    cards["cannot be told"] = open_
    made = [Table(list(cards), [[str(number) for number in cards.values()]], cards=True)] if judged else []
    made += [finding.table(findings, title) for title, findings in answers.items() if findings]
    return Section("The questions", [text], made, remarks=missing)


def _parts(parts: list[Part], current: State) -> Section:
    rows, remarks = [], []
    for part in parts:
        went, error = program.how(current, part)
        stages = [current.plan.stages[key] for key in program.keys(part)]
        commands = [shlex.join(["tinymim", *stage.config["words"]]) for stage in stages]
        seconds = sum(current.entries[key].seconds for key in program.keys(part))
        rows.append([part.title, went, clock(seconds) if seconds else "-", "; ".join(commands)])
        if [line.replace("--run_dir", "--run-dir") for line in commands] != [
            line.replace("--run_dir", "--run-dir") for line in part.lines()
        ]:
            remarks.append(f"{part.title}: the program would now run {'; '.join(part.lines())}.")
        if error:
            remarks.append(f"{part.title} failed: {error}")
    return Section(
        "The parts", tables=[Table(["part", "state", "time", "commands"], rows, prose=True)], remarks=remarks
    )
