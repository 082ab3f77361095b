"""The tables of a study, beside the paper's figures, and as CSV; every sentence on agreement is computed."""

from __future__ import annotations

import csv
import io
import statistics
from typing import Any

from tinymim.experiments.questions import FIGURES, Claim, Figure, Question
from tinymim.report.document import Section, Table
from tinymim.report.finding import AGREES, DISAGREES, OPEN, Finding, together
from tinymim.safety.escaping import cell
from tinymim.scaling.correlations import spearman

Records = dict[str, dict[int, dict[str, Any]]]
"""Records of cells, by row and seed."""

READING = (
    "Figures are of held-out images, in per cent unless the head of the column says otherwise (↓: lower is better), "
    "mean ± standard deviation over seeds; `-` is not there yet. A difference between two rows is taken seed by seed, "
    "and ± is the standard deviation of those differences: it is within the spread where its mean is not larger than "
    "that."
)


def values(records: Records, row: str, figure: str) -> dict[int, float]:
    """A figure of the finished cells of a row that measured it, by seed."""
    done = {seed: record["figures"] for seed, record in records.get(row, {}).items() if record["status"] == "done"}
    return {seed: figures[figure] for seed, figures in done.items() if figure in figures}


def section(question: Question, records: Records, figures: dict[str, Figure] = FIGURES) -> Section:
    """One question: what the paper found, how far it agrees, and the table of ``figures``."""
    source = f" ({question.source})" if question.source else ""
    expects = [f"The paper{source}: {question.expects.strip()}"] if question.expects else []
    return Section(
        question.title, [*expects, *sentences(question, records, figures)], [table(question, records, figures)]
    )


def table(question: Question, records: Records, figures: dict[str, Figure] = FIGURES) -> Table:
    """The question's rows under its ``figures``."""
    heads = [figure.head(title) for title, figure in figures.items()]
    rows = []
    for row, title in question.rows.items():
        shown = [figure.shown(list(values(records, row, name).values())) for name, figure in figures.items()]
        paper = [_paper(question, row)] if question.paper else []
        rows.append([title, *shown, _seeds(row, records), *paper])
    return Table(["row", *heads, "seeds", *(["paper"] if question.paper else [])], rows)


def as_csv(question: Question, records: Records, figures: dict[str, Figure] = FIGURES) -> str:
    """The same as CSV: mean and standard deviation, shares in per cent; empty where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = [cell(f"{title} {part}") for title in figures for part in ("mean", "std")]
    writer.writerow(["row", "title", *heads, "seeds", "failed", "paper"])
    for row, title in question.rows.items():
        shown: list[str] = []
        for name, figure in figures.items():
            found = [figure.scale * value for value in values(records, row, name).values()]
            number = "{:.3f}" if figure.scale == 100 else "{:.6g}"
            shown.append(number.format(statistics.mean(found)) if found else "")
            shown.append(number.format(statistics.stdev(found)) if len(found) > 1 else "")
        done, failed = _counts(row, records)
        writer.writerow([cell(row), cell(title), *shown, done, failed, question.paper.get(row, "")])
    return out.getvalue()


def sentences(question: Question, records: Records, figures: dict[str, Figure]) -> list[str]:
    """Sentences on the figures: agreement with the paper, then the question's claims, then figure against figure."""
    orders = [agreement(question, records, title, figure) for title, figure in figures.items()]
    pairs = [
        against(question, records, {title: figures[title] for title in pair})
        for pair in question.against.items()
        if figures.keys() >= set(pair)
    ]
    return [text for text in [*orders, *claims(question, records, figures), *pairs] if text]


def claims(question: Question, records: Records, figures: dict[str, Figure]) -> list[str]:
    """Whether the question's claims on these ``figures`` hold here, of those whose rows are finished."""
    own = [claim for claim in question.claims if claim.figure in figures]
    return [text for claim in own if (text := checked(question, claim, records, figures[claim.figure]))]


def finding(question: Question, records: Records, figures: dict[str, Figure]) -> Finding | None:
    """A question's finding: the paper's, and how far the last of the ``figures`` and the question's claims agree;
    ``None`` where the paper has nothing to compare with."""
    title, figure = list(figures.items())[-1]
    told, verdicts = [], []
    if question.paper:
        told.append(agreement(question, records, title, figure))
        verdicts.append(_best(question, records, title, figure))
    for claim in question.claims:
        if claim.figure in figures:
            told.append(checked(question, claim, records, figures[claim.figure]))
            verdicts.append(_verdict(claim, records, figures[claim.figure]))
    if not verdicts:
        return None
    here = " ".join(filter(None, told)) or "No run is finished."
    seeds = sorted({_counts(row, records)[0] for row in question.rows})
    counted = " to ".join(map(str, dict.fromkeys([seeds[0], seeds[-1]])))
    source = f" ({question.source})" if question.source else ""
    return Finding(question.title, f"{question.expects.strip()}{source}", here, together(verdicts), counted)


def _best(question: Question, records: Records, title: str, figure: Figure) -> str:
    """Whether the paper's best row is best here; open where another is by no more than the spread."""
    found = {row: by_seed for row in question.paper if (by_seed := values(records, row, title))}
    theirs = max(question.paper, key=lambda row: question.paper[row])
    if theirs not in found or len(found) < 2:
        return OPEN
    others = [row for row in found if row != theirs]
    rival = max(others, key=lambda row: figure.sign * statistics.mean(found[row].values()))
    return _told(*gap(found[theirs], found[rival], figure), figure)


def _verdict(claim: Claim, records: Records, figure: Figure) -> str:
    first, second = (values(records, row, claim.figure) for row in (claim.better, claim.than))
    return _told(*gap(first, second, figure), figure) if first and second else OPEN


def _told(mean: float, spread: float | None, figure: Figure) -> str:
    """Verdict on a difference that the paper has above 0; without a spread its direction counts, if it shows."""
    if abs(mean) <= (spread or 0) or not float(figure.number(mean)):
        return OPEN
    return AGREES if mean > 0 else DISAGREES


def agreement(question: Question, records: Records, title: str, figure: Figure) -> str:
    """How a figure's order agrees with the paper's, or which rows differ where the paper has none; empty below two
    finished rows."""
    found = {row: values(records, row, title) for row in question.rows}
    ranked = {row: figure.sign * statistics.mean(by_seed.values()) for row, by_seed in found.items() if by_seed}
    papers = {row: value for row, value in question.paper.items() if row in ranked}
    if len(papers) < 2:
        if len(ranked) < 2:
            return ""
        best, worst = max(ranked, key=lambda row: ranked[row]), min(ranked, key=lambda row: ranked[row])
        if best == worst:
            return f"{title}: the same in all rows."
        gap = _difference(found[best], found[worst], figure)
        return f"{title}: best {_name(question, best)}, worst {_name(question, worst)}; difference {gap}."
    theirs = max(papers, key=lambda row: papers[row])
    ours = max(papers, key=lambda row: ranked[row])
    rows = list(papers)
    correlation = spearman([papers[row] for row in rows], [ranked[row] for row in rows])
    order = f"order of {len(rows)} rows against the paper's: Spearman {correlation:+.2f}" if len(rows) > 2 else ""
    if theirs == ours:
        second = max((row for row in rows if row != ours), key=lambda row: ranked[row])
        text = f"the paper's best, {_name(question, theirs)}, is best here too, over {_name(question, second)} by "
        text += _difference(found[ours], found[second], figure)
    else:
        text = f"the paper's best is {_name(question, theirs)}; here {_name(question, ours)} is, by "
        text += _difference(found[ours], found[theirs], figure)
    return f"{title}: {'; '.join(filter(None, (text, order)))}."


def checked(question: Question, claim: Claim, records: Records, figure: Figure) -> str:
    """Whether a finding of the paper shows here too; empty before both rows are finished."""
    first, second = (values(records, row, claim.figure) for row in (claim.better, claim.than))
    if not first or not second:
        return ""
    mean, spread = gap(first, second, figure)
    verdict = _told(mean, spread, figure)
    verdict += " in direction" if verdict != OPEN and spread is None else ""
    named = f"{_name(question, claim.better)} better than {_name(question, claim.than)}"
    return f"{claim.figure}: the paper has {named}; here by {_difference(first, second, figure)}: {verdict}."


def against(question: Question, records: Records, figures: dict[str, Figure]) -> str:
    """Whether two figures put the rows in one order; empty below three rows with both."""
    means: list[dict[str, float]] = []
    for title, figure in figures.items():
        found = {row: values(records, row, title) for row in question.rows}
        means.append(
            {row: figure.sign * statistics.mean(by_seed.values()) for row, by_seed in found.items() if by_seed}
        )
    rows = [row for row in question.rows if all(row in ranked for ranked in means)]
    if len(rows) < 3:
        return ""
    first, second = ([ranked[row] for row in rows] for ranked in means)
    best = [_name(question, rows[ranked.index(max(ranked))]) for ranked in (first, second)]
    whose = f"{best[0]} is best in both" if best[0] == best[1] else f"best are {best[0]} and {best[1]}"
    named = " against ".join(figures)
    return f"{named}: order of {len(rows)} rows, Spearman {spearman(first, second):+.2f}; {whose}."


def _difference(first: dict[int, float], second: dict[int, float], figure: Figure) -> str:
    """By how much ``first`` is better than ``second`` at the same seeds, and whether that is more than chance."""
    mean, spread = gap(first, second, figure)
    unit = f" {figure.unit}" if figure.unit and figure.scale == 1 else ""
    if not first.keys() & second.keys():
        return f"{figure.number(mean)}{unit} (no seed in common)"
    if spread is None:
        return f"{figure.number(mean)}{unit} (one seed: no spread to compare with)"
    within = "within" if abs(mean) <= spread else "outside"
    return f"{figure.number(mean)} ± {figure.number(spread, 2)}{unit} ({within} the spread)"


def gap(first: dict[int, float], second: dict[int, float], figure: Figure) -> tuple[float, float | None]:
    """Mean of the differences seed by seed, positive where ``first`` is better, and their standard deviation; of the
    means, and none, where no seed is in both."""
    gaps = [figure.sign * (first[seed] - second[seed]) for seed in first if seed in second]
    if not gaps:
        return figure.sign * (statistics.mean(first.values()) - statistics.mean(second.values())), None
    return statistics.mean(gaps), statistics.stdev(gaps) if len(gaps) > 1 else None


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
