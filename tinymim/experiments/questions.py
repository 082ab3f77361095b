"""Comparisons of finished fits: rows, the figures of each, and questions on some of them, with the paper's answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinymim.experiments.plan import Plan
from tinymim.experiments.schema import Claim, Curve, Figure
from tinymim.experiments.settings import Settings

PRETRAIN = "pretrain"
"""The stage of a row that comes before those it is compared by."""


FIGURES = {
    "10-NN": Figure("probe", "val/knn_top1"),
    "linear probe": Figure("probe", "val/top1"),
    "fine-tuned": Figure("finetune", "val/top1"),
}
"""The figures of a study that names none, of chains and of ``tinymim distill``: shares of the held-out images."""


@dataclass
class Question:
    """Rows side by side.

    Args:
        title: the question.
        rows: what each row is called here, by id; as written, a list takes the rows' own titles.
        source: the table of the paper it repeats, or empty.
        expects: what the paper found, in words.
        paper: its figure for each row that it has; higher is better.
        figures: titles of the study's figures that it shows; empty is all. Its curves are those of their stages.
        against: pairs of figures whose orders of the rows are compared, such as frozen and fine-tuned.
        claims: what the paper found, row against row; also in a convergence, by the title of its column.
    """

    title: str
    rows: dict[str, str]
    source: str = ""
    expects: str = ""
    paper: dict[str, float] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)
    against: dict[str, str] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)


@dataclass
class Comparison:
    """A comparison of a plan's finished fits.

    Args:
        rows: by row, the stage that each of its figures' stages stands for in the plan.
        questions: that lay rows side by side.
        figures: the columns, by title.
        curves: losses that are drawn.
        known: what files of settings call each row.
        settings: what the rows have chosen; ``None`` where nothing was to be chosen.
        search: the command that chooses them.
    """

    rows: dict[str, dict[str, str]]
    questions: dict[str, Question]
    figures: dict[str, Figure]
    curves: dict[str, Curve] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    settings: Settings | None = None
    search: str = ""

    def shown(self, question: Question) -> dict[str, Figure]:
        """The figures of a question."""
        return {title: self.figures[title] for title in question.figures or self.figures}

    def remarks(self, question: Question) -> list[str]:
        """The settings of a question's rows, for the end of its table."""
        if self.settings is None:
            return []
        shown = {figure.stage for figure in self.shown(question).values()}
        named = dict.fromkeys(stage for stages in self.rows.values() for stage in stages)
        stages = [stage for stage in named if stage in shown and stage != PRETRAIN]
        known = self.known or {row: row for row in self.rows}
        rows = {known[row]: title for row, title in question.rows.items() if row in known}
        return self.settings.remarks(rows, stages, self.search)


def of_chain(plan: Plan) -> Comparison | None:
    """The comparison at the end of a chain; ``None`` where it has none."""
    if not (wanted := plan.compare):
        return None
    rows = {title: {plan.stages[name].kind: name for name in names} for title, names in wanted["rows"].items()}
    kinds = {kind for stages in rows.values() for kind in stages}
    question = Question(
        title=wanted["title"],
        rows={title: title for title in rows},
        source=wanted.get("source", ""),
        expects=wanted.get("expects", ""),
        paper=wanted.get("paper") or {},
    )
    figures = {title: figure for title, figure in FIGURES.items() if figure.stage in kinds}
    search = f"tinymim search {plan.name}"
    return Comparison(rows, {"table": question}, figures, settings=plan.settings, search=search)
