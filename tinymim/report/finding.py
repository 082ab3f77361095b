"""Findings of a paper beside those here, and whether the two agree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tinymim.report.document import Table

VERDICTS = AGREES, DISAGREES, OPEN = "agrees", "disagrees", "cannot tell"


@dataclass(frozen=True)
class Finding:
    """A question and its answers.

    Args:
        question: one.
        paper: the paper's answer, with its source.
        here: ours, in numbers.
        verdict: :data:`AGREES`, :data:`DISAGREES` or :data:`OPEN`.
        seeds: how many ours rests on; empty where it was not asked.
    """

    question: str
    paper: str
    here: str
    verdict: str
    seeds: str = ""


def together(verdicts: Iterable[str]) -> str:
    """One verdict of several, which counts them where they are not all the same."""
    every = list(verdicts)
    if len(set(every)) <= 1:
        return every[0] if every else OPEN
    verdict = AGREES if AGREES in every else DISAGREES
    left = f", {every.count(OPEN)} open" if OPEN in every else ""
    return f"{verdict} in {every.count(verdict)} of {len(every)}{left}"


def table(findings: Iterable[Finding], title: str = "") -> Table:
    """Findings as a table of texts."""
    rows = []
    for each in findings:
        alone = each.seeds == "1" and each.verdict != OPEN
        verdict = f"{each.verdict}, one seed" if alone else each.verdict
        rows.append([each.question, each.paper, each.here, verdict, each.seeds or "-"])
    return Table(["question", "the paper", "here", "verdict", "seeds"], rows, title, prose=True)
