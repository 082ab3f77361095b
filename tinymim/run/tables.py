"""The tables of a study, as Markdown and CSV, beside the paper's figures; every sentence on agreement is computed."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable
from typing import Any

from tinymim.correlations import spearman
from tinymim.run.cells import FIGURES, percent
from tinymim.run.grid import Question

Records = dict[str, dict[int, dict[str, Any]]]
"""Records of cells, by row and seed."""

READING = (
    "Figures are per cent of held-out images, mean ± standard deviation over seeds; `-` is not there yet. A difference "
    "between two rows is taken seed by seed, and ± is the standard deviation of those differences: it is within the "
    "spread where its mean is not larger than that."
)


def values(records: Records, row: str, figure: str) -> dict[int, float]:
    """A figure of the finished cells of a row that measured it, by seed."""
    done = {seed: record["figures"] for seed, record in records.get(row, {}).items() if record["status"] == "done"}
    return {seed: figures[figure] for seed, figures in done.items() if figure in figures}


def markdown(question: Question, records: Records, figures: Iterable[str] = FIGURES) -> str:
    """One question: its table of ``figures``, what the paper found, and how far they agree."""
    figures = list(figures)
    heads = [*figures, "seeds", *(["paper"] if question.paper else [])]
    lines = [f"## {question.title}", "", f"| row | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for row, title in question.rows.items():
        shown = [percent(list(values(records, row, figure).values())) for figure in figures]
        paper = [_paper(question, row)] if question.paper else []
        lines.append(f"| {' | '.join([title, *shown, _seeds(row, records), *paper])} |")
    source = f" ({question.source})" if question.source else ""
    if question.expects:
        lines += ["", f"The paper{source}: {question.expects.strip()}"]
    if sentences := [text for figure in figures if (text := agreement(question, records, figure))]:
        lines += ["", *(f"- {text}" for text in sentences)]
    return "\n".join(lines) + "\n"


def table(question: Question, records: Records) -> str:
    """One question as CSV: mean and standard deviation in per cent, empty where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = [f"{figure} {part}" for figure in FIGURES for part in ("mean", "std")]
    writer.writerow(["row", "title", *heads, "seeds", "failed", "paper"])
    for row, title in question.rows.items():
        figures: list[str] = []
        for figure in FIGURES:
            found = [100 * value for value in values(records, row, figure).values()]
            figures.append(f"{statistics.mean(found):.3f}" if found else "")
            figures.append(f"{statistics.stdev(found):.3f}" if len(found) > 1 else "")
        done, failed = _counts(row, records)
        writer.writerow([row, title, *figures, done, failed, question.paper.get(row, "")])
    return out.getvalue()


def agreement(question: Question, records: Records, figure: str) -> str:
    """How a figure's order agrees with the paper's, or which rows differ where the paper has none; empty below two
    finished rows."""
    found = {row: values(records, row, figure) for row in question.rows}
    means = {row: statistics.mean(by_seed.values()) for row, by_seed in found.items() if by_seed}
    papers = {row: value for row, value in question.paper.items() if row in means}
    if len(papers) < 2:
        if len(means) < 2:
            return ""
        best, worst = max(means, key=lambda row: means[row]), min(means, key=lambda row: means[row])
        gap = _difference(found[best], found[worst])
        return f"{figure}: highest {_name(question, best)}, lowest {_name(question, worst)}; difference {gap}."
    theirs = max(papers, key=lambda row: papers[row])
    ours = max(papers, key=lambda row: means[row])
    rows = list(papers)
    correlation = spearman([papers[row] for row in rows], [means[row] for row in rows])
    order = f"order of {len(rows)} rows against the paper's: Spearman {correlation:+.2f}" if len(rows) > 2 else ""
    if theirs == ours:
        second = max((row for row in rows if row != ours), key=lambda row: means[row])
        text = f"the paper's best, {_name(question, theirs)}, is best here too, over {_name(question, second)} by "
        text += _difference(found[ours], found[second])
    else:
        text = f"the paper's best is {_name(question, theirs)}; here {_name(question, ours)} is, by "
        text += _difference(found[ours], found[theirs])
    return f"{figure}: {'; '.join(filter(None, (text, order)))}."


def _difference(first: dict[int, float], second: dict[int, float]) -> str:
    """Points by which ``first`` is above ``second`` at the same seeds, and whether that is more than chance."""
    gaps = [100 * (first[seed] - second[seed]) for seed in first if seed in second]
    if not gaps:
        return f"{100 * (statistics.mean(first.values()) - statistics.mean(second.values())):.1f} (no seed in common)"
    mean = statistics.mean(gaps)
    if len(gaps) == 1:
        return f"{mean:.1f} (one seed: no spread to compare with)"
    spread = statistics.stdev(gaps)
    return f"{mean:.1f} ± {spread:.1f} ({'within' if abs(mean) <= spread else 'outside'} the spread)"


def _name(question: Question, row: str) -> str:
    return f"*{question.rows[row]}*"


def _paper(question: Question, row: str) -> str:
    return f"{question.paper[row]:.1f}" if row in question.paper else "-"


def _seeds(row: str, records: Records) -> str:
    done, failed = _counts(row, records)
    return f"{done}, {failed} failed" if failed else str(done)


def _counts(row: str, records: Records) -> tuple[int, int]:
    states = [record["status"] for record in records.get(row, {}).values()]
    return states.count("done"), states.count("failed")
