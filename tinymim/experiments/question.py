"""What a study is of: rows, questions that lay some side by side with what the paper found, and what is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Row:
    """One way to pre-train.

    Args:
        title: what it is called.
        recipe: ``None`` is none.
        overrides: of the recipe.
        needs: the prepared fits it names itself.
        weights: what the later stages start from without a recipe.
        later: overrides of those.
        known: what files of settings call it.
    """

    title: str
    recipe: str | None
    overrides: list[str]
    needs: list[str] = field(default_factory=list)
    weights: str | None = None
    later: list[str] = field(default_factory=list)
    known: str = ""


@dataclass(frozen=True)
class Curve:
    """A loss that a stage logs: its ``title``, and ``train/LOSS`` and ``val/LOSS`` of ``stage``."""

    title: str
    stage: str
    loss: str = "loss"


@dataclass(frozen=True)
class Claim:
    """A finding that can be checked: in ``figure``, the row ``better`` is better than the row ``than``."""

    figure: str
    better: str
    than: str


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
