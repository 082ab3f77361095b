"""The tables of a study, beside the paper's figures, and as CSV; every sentence on agreement is computed."""

from __future__ import annotations

import statistics
from typing import Any

from tinymim.experiments.questions import FIGURES, Figure, Question
from tinymim.report.document import Section, Table
from tinymim.report.finding import AGREES, DISAGREES, OPEN, Finding, together
from tinymim.scaling.correlations import spearman

Records = dict[str, dict[int, dict[str, Any]]]
"""Records of cells, by row and seed."""

READING = (
    "Figures are of held-out images, in per cent unless the head of the column says otherwise (↓: lower is better), "
    "{}; `-` is not there yet. {}"
)
SEEDS = (
    "mean ± standard deviation over seeds",
    "A difference between two rows is taken seed by seed, and ± is the standard deviation of those differences: it is "
    "within the spread where its mean is not larger than that.",
)
ONE_SEED = ("of one seed", "One seed has no spread: a difference of a point or two may be chance.")


def reading(records: Records) -> str:
    """How figures read, of several seeds or of one."""
    single = max((len(by_seed) for by_seed in records.values()), default=0) == 1
    return READING.format(*(ONE_SEED if single else SEEDS))


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
        done, failed = _counts(row, records)
        line = [title, *shown, f"{done}, {failed} failed" if failed else str(done)]
        if question.paper:
            line.append(f"{question.paper[row]:.1f}" if row in question.paper else "-")
        rows.append(line)
    return Table(["row", *heads, "seeds", *(["paper"] if question.paper else [])], rows)


def csv_rows(question: Question, records: Records, figures: dict[str, Figure] = FIGURES) -> list[dict[str, Any]]:
    """The same for a CSV file: mean and standard deviation, shares in per cent; empty where there is none."""
    rows = []
    for row, title in question.rows.items():
        line: dict[str, Any] = {"row": row, "title": title}
        for name, figure in figures.items():
            shown = [figure.scale * value for value in values(records, row, name).values()]
            number = "{:.3f}" if figure.scale == 100 else "{:.6g}"
            line[f"{name} mean"] = number.format(statistics.mean(shown)) if shown else ""
            line[f"{name} std"] = number.format(statistics.stdev(shown)) if len(shown) > 1 else ""
        done, failed = _counts(row, records)
        rows.append({**line, "seeds": done, "failed": failed, "paper": question.paper.get(row, "")})
    return rows


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
    return [text for text, _ in _checked(question, records, figures) if text]


def finding(question: Question, records: Records, figures: dict[str, Figure]) -> Finding | None:
    """A question's finding: the paper's, and how far the last of the ``figures`` and the question's claims agree;
    ``None`` where the paper has nothing to compare with."""
    title, figure = list(figures.items())[-1]
    answers = _checked(question, records, figures)
    if question.paper:
        best = agreement(question, records, title, figure), _best(question, records, title, figure)
        answers = [best, *answers]
    if not answers:
        return None
    here = " ".join(text for text, _ in answers if text) or "No run is finished."
    seeds = sorted({_counts(row, records)[0] for row in question.rows})
    counted = " to ".join(map(str, dict.fromkeys([seeds[0], seeds[-1]])))
    source = f" ({question.source})" if question.source else ""
    verdict = together(verdict for _, verdict in answers)
    return Finding(question.title, f"{question.expects.strip()}{source}", here, verdict, counted)


def _checked(question: Question, records: Records, figures: dict[str, Figure]) -> list[tuple[str, str]]:
    """Sentence and verdict of each claim on these ``figures``: empty and open before both rows are finished."""
    answers = []
    for claim in question.claims:
        if claim.figure not in figures:
            continue
        figure = figures[claim.figure]
        first, second = (values(records, row, claim.figure) for row in (claim.better, claim.than))
        if not first or not second:
            answers.append(("", OPEN))
            continue
        mean, spread = gap(first, second, figure)
        verdict = _verdict(mean, spread, figure)
        says = f"{verdict} in direction" if verdict != OPEN and spread is None else verdict
        named = f"{_name(question, claim.better)} better than {_name(question, claim.than)}"
        text = f"{claim.figure}: the paper has {named}; here by {_difference(first, second, figure)}: {says}."
        answers.append((text, verdict))
    return answers


def _best(question: Question, records: Records, title: str, figure: Figure) -> str:
    """Whether the paper's best row is best here; open where another is by no more than the spread."""
    means = _means(list(question.paper), records, title, figure)
    theirs = max(question.paper, key=lambda row: question.paper[row])
    if theirs not in means or len(means) < 2:
        return OPEN
    rival = max((row for row in means if row != theirs), key=lambda row: means[row])
    return _verdict(*gap(values(records, theirs, title), values(records, rival, title), figure), figure)


def _verdict(mean: float, spread: float | None, figure: Figure) -> str:
    """Verdict on a difference that the paper has above 0; without a spread its direction counts, if it shows."""
    if abs(mean) <= (spread or 0) or not float(figure.number(mean)):
        return OPEN
    return AGREES if mean > 0 else DISAGREES


def _means(rows: list[str], records: Records, title: str, figure: Figure) -> dict[str, float]:
    """The mean of each row that has the figure, the higher the better."""
    measured = {row: values(records, row, title).values() for row in rows}
    return {row: figure.sign * statistics.mean(shown) for row, shown in measured.items() if shown}


def agreement(question: Question, records: Records, title: str, figure: Figure) -> str:
    """Agreement of a figure's order with the paper's, or which rows differ where the paper has none; empty below two
    finished rows."""

    def difference(better: str, worse: str) -> str:
        return _difference(values(records, better, title), values(records, worse, title), figure)

    ranked = _means(list(question.rows), records, title, figure)
    papers = {row: value for row, value in question.paper.items() if row in ranked}
    if len(papers) < 2:
        if len(ranked) < 2:
            return ""
        best, worst = max(ranked, key=lambda row: ranked[row]), min(ranked, key=lambda row: ranked[row])
        if equal(ranked, best, worst, figure):
            return f"{title}: the same in all rows."
        last = _named(question, [row for row in ranked if equal(ranked, row, worst, figure)])
        names = f"best {_best_of(question, list(ranked), ranked, figure)}, worst {last}"
        return f"{title}: {names}; difference {difference(best, worst)}."
    theirs, ours = max(papers, key=lambda row: papers[row]), max(papers, key=lambda row: ranked[row])
    rows = list(papers)
    correlation = spearman([papers[row] for row in rows], [ranked[row] for row in rows])
    order = f"; order of {len(rows)} rows against the paper's: Spearman {correlation:+.2f}" if len(rows) > 2 else ""
    level = [row for row in rows if row != theirs and equal(ranked, row, theirs, figure)]
    second = max((row for row in rows if row != theirs), key=lambda row: ranked[row])
    if level and equal(ranked, theirs, ours, figure):
        text = (
            f"the paper's best, {_name(question, theirs)}, and {_named(question, level)} are equal here, best of all, "
        )
        text += f"with a difference of {difference(theirs, second)}"
    elif theirs == ours:
        text = f"the paper's best, {_name(question, theirs)}, is best here too, over {_name(question, second)} by "
        text += difference(ours, second)
    else:
        text = f"the paper's best is {_name(question, theirs)}; here {_name(question, ours)} is, by "
        text += difference(ours, theirs)
    return f"{title}: {text}{order}."


def equal(means: dict[str, float], row: str, other: str, figure: Figure) -> bool:
    """Whether two rows have one mean, in the digits that are shown."""
    return not float(figure.number(means[row] - means[other]))


def _named(question: Question, rows: list[str]) -> str:
    return " and ".join(_name(question, row) for row in rows)


def _best_of(question: Question, rows: list[str], means: dict[str, float], figure: Figure) -> str:
    """The best of ``rows``, with those that equal it."""
    best = max(rows, key=lambda row: means[row])
    return _named(question, [row for row in rows if equal(means, row, best, figure)])


def against(question: Question, records: Records, figures: dict[str, Figure]) -> str:
    """Whether two figures put the rows in one order; empty below three rows with both."""
    means = [_means(list(question.rows), records, title, figure) for title, figure in figures.items()]
    rows = [row for row in question.rows if all(row in ranked for ranked in means)]
    if len(rows) < 3:
        return ""
    first, second = ([ranked[row] for row in rows] for ranked in means)
    best = [_best_of(question, rows, ranked, figure) for ranked, figure in zip(means, figures.values(), strict=True)]
    are = "are" if " and " in best[0] else "is"
    whose = f"{best[0]} {are} best in both" if best[0] == best[1] else f"best are {best[0]}, and {best[1]}"
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


def _counts(row: str, records: Records) -> tuple[int, int]:
    """Cells of a row that are done, and that failed."""
    states = [record["status"] for record in records.get(row, {}).values()]
    return states.count("done"), states.count("failed")
