"""The report of a program: each question with the paper's answer and ours, then the parts' own tables and figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinymim.errors import TinymimError
from tinymim.experiments.program import Part, Program
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


def write(whole: Program, states: dict[str, Any], place: Path, readers: Readers) -> None:
    """Write the report of what is there, as HTML and as Markdown, each whole or not at all.

    Args:
        whole: the program.
        states: how each part went, by id.
        place: its folder.
        readers: of the parts.
    """
    made = document(whole, states, place, readers)
    for name in (PAGE, TEXT):
        made.write(place / name)


def document(whole: Program, states: dict[str, Any], place: Path, readers: Readers) -> Document:
    """The report."""
    answers: dict[str, list[Finding]] = {}
    counted: list[Finding] = []
    sections, missing = [], []
    for part in whole.parts:
        try:
            chapter = readers[part.kind](part, place)
        except (TinymimError, SystemExit, *text.WRONG) as error:
            # Not run yet, failed before it wrote anything, a wrong option, or files there that are none of its own.
            missing.append(f"{part.title}: nothing to show yet ({error}).")
            continue
        status = states.get(part.id, {}).get("status", "done")
        title = part.title if status == "done" else f"{part.title} ({status})"
        if status != "done":
            missing.append(f"{title}: what is shown of it may be of before, and is not counted.")
        answers[title] = chapter.findings
        counted += chapter.findings if status == "done" else []
        for section in chapter.sections:
            section.title = f"{title}: {section.title}"
            sections.append(section)
    failed = [part.title for part in whole.parts if states.get(part.id, {}).get("status") == "failed"]
    about = whole.about
    if whole.quick:
        about = f"The short form: it shows that everything runs, and says little about the questions. {about}"
    return Document(
        "Three papers, repeated",
        [_summary(answers, counted, missing), *sections, _parts(whole.parts, states)],
        about,
        f"{len(failed)} part(s) failed: {', '.join(failed)}. See the end of the page." if failed else "",
        [("program", whole.name), *((f"vars.{key}", str(value)) for key, value in whole.vars.items())],
    )


def _summary(answers: dict[str, list[Finding]], counted: list[Finding], missing: list[str]) -> Section:
    """Every question, and how often the answers that count agree."""
    agree = sum(one.verdict == finding.AGREES for one in counted)
    partly = sum(one.verdict.startswith(f"{finding.AGREES} in") for one in counted)
    otherwise = sum(one.verdict.startswith(finding.DISAGREES) for one in counted)
    open_ = len(counted) - agree - partly - otherwise
    single = sum(one.seeds == "1" and one.verdict != finding.OPEN for one in counted)
    text = (
        f"Of {len(counted)} questions, {agree} are answered here as in the papers, {partly} in part, {otherwise} "
        f"otherwise, and {open_} cannot be told from these runs."
    )
    text += f" {single} of the answers rest on one seed: another may turn them round." if single else ""
    made = [finding.table(found, title) for title, found in answers.items() if found]
    return Section("The questions", [text], made, remarks=missing)


def _parts(parts: list[Part], states: dict[str, Any]) -> Section:
    rows, remarks = [], []
    for part in parts:
        state = states.get(part.id, {})
        spent = state.get("seconds")
        seconds = clock(spent) if isinstance(spent, int | float) and math.isfinite(spent) else "-"
        commands = state.get("commands", part.lines())
        rows.append([part.title, state.get("status", "not run"), seconds, "; ".join(commands)])
        if [line.replace("--run_dir", "--run-dir") for line in commands] != [
            line.replace("--run_dir", "--run-dir") for line in part.lines()
        ]:
            remarks.append(f"{part.title}: the program would now run {'; '.join(part.lines())}.")
    remarks += [
        f"{part.title} failed: {states[part.id]['error']}" for part in parts if "error" in states.get(part.id, {})
    ]
    return Section(
        "The parts", tables=[Table(["part", "state", "time", "commands"], rows, prose=True)], remarks=remarks
    )
