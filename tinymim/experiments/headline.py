"""The top of the page of what was compared: the best row of each figure, and all rows in one picture."""

from __future__ import annotations

import statistics

from tinymim import extras
from tinymim.errors import first_few
from tinymim.experiments import tables
from tinymim.experiments.questions import Comparison, Figure
from tinymim.experiments.tables import Records
from tinymim.report import figures
from tinymim.report.document import Picture, Section, Table
from tinymim.report.narrow import narrow

MOST = 30
"""Rows of the picture, the best."""

LONGEST = 40
"""Characters of a row's name."""

ABOUT = "A dot a seed; the diamond is their mean, the bar ± one standard deviation."


def sections(compared: Comparison, records: Records) -> list[Section]:
    """Cards, and the picture of the last figure that most rows have; nothing while no row is finished."""
    titles = names(compared)
    measured = {
        title: {row: list(seeds.values()) for row in titles if (seeds := tables.values(records, row, title))}
        for title in compared.figures
    }
    measured = {title: rows for title, rows in measured.items() if rows}
    if not measured:
        return []
    heads, cells = [], []
    for title, rows in measured.items():
        figure = compared.figures[title]
        means = {row: figure.sign * statistics.mean(shown) for row, shown in rows.items()}
        best = max(means, key=lambda row: means[row])
        level = [titles[row] for row in means if tables.equal(means, row, best, figure)]
        heads.append(f"best {figure.head(title)}: {first_few(level)}")
        cells.append(figure.shown(rows[best]))
    made = [Section("", tables=[Table(heads, [cells], cards=True)])]
    title, rows = max(reversed(measured.items()), key=lambda each: len(each[1]))
    if missing := extras.missing("the picture of all rows needs", "matplotlib"):
        made.append(Section("", missing))
    elif len(rows) > 1:
        made.append(Section("", pictures=[_dots(title, compared.figures[title], rows, titles)]))
    return made


def names(compared: Comparison) -> dict[str, str]:
    """Each row as the first question calls it that has it; its id too where that is a later one, such as a question of
    drop path whose rows are 0 and 0.1."""
    titles = {row: row for row in compared.rows}
    for number, question in reversed(list(enumerate(compared.questions.values()))):
        for row in titles.keys() & question.rows.keys():
            title = question.rows[row]
            titles[row] = title if row == title or not number else f"{title} ({row})"
    return titles


def _dots(title: str, figure: Figure, rows: dict[str, list[float]], titles: dict[str, str]) -> Picture:
    """A line of dots for each row, the best on top."""
    ranked = sorted(rows, key=lambda row: figure.sign * statistics.mean(rows[row]), reverse=True)[:MOST]
    shown = [titles[row] if len(titles[row]) <= LONGEST else f"{titles[row][: LONGEST - 1]}…" for row in ranked]
    with figures.figure(height=22 + 6 * len(ranked), width=3 * figures.WIDTH) as (drawn, axes):
        for place, row in enumerate(ranked):
            values = [figure.scale * value for value in rows[row]]
            mean, several = statistics.mean(values), len(values) > 1
            if several:
                axes.plot(values, [place] * len(values), "o", color=figures.COLOURS[7], markersize=3, label="_seed")
                spread = statistics.stdev(values)
                axes.plot([mean - spread, mean + spread], [place, place], color=figures.COLOURS[0], label="_± spread")
            axes.plot([mean], [place], "D", color=figures.COLOURS[0], markersize=5, label="_mean")
        axes.set_yticks(range(len(ranked)), shown)
        axes.set_ylim(len(ranked) - 0.5, -0.5)
        axes.set_xlabel(figure.head(title) + (", %" if figure.unit == "%" else ""))
        axes.fmt_ydata = lambda place: shown[round(place)]
        more = f" The best {MOST} of {len(rows)} rows." if len(rows) > MOST else ""
        about = ABOUT if any(len(values) > 1 for values in rows.values()) else "One seed."
        name, svg = f"{figure.head(title)} of every row", figures.svg(drawn)
        return Picture(name, svg, text=about + more, wide=True, narrow=narrow(drawn))
