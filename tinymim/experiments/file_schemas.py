"""Types and ranges of the files that list fits: chains, the state of one, and studies."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from tinymim.safety.names import PLAIN
from tinymim.teachers.record_schemas import Line, Name, Plain, Whole

Settings = Plain | None

Option = Annotated[str, Meta(pattern=r"^(?!.*\bclass_path\b)(model|data|trainer)(\.[A-Za-z_]\w*)+\Z", max_length=200)]
"""Of a recipe, below its model, data or trainer; none that says which class they are."""

Scalar = bool | int | float | Annotated[str, Meta(pattern=r"^[\w +-]*\Z", max_length=200)] | None
"""A text in it is one word or several, and neither a path nor the way to a class."""

Value = Scalar | list[Scalar]
"""What a search may choose for an option."""


class SettingsText(Struct, forbid_unknown_fields=True):
    """A file of settings; see ``settings.py``. It changes a recipe's numbers, and not what is run."""

    command: Line = ""
    how: Line = ""
    rows: dict[Line, dict[Line, dict[Option, Value]]] | None = None


class Chosen(SettingsText):
    """Settings as the state of a chain has them."""

    source: Line = ""


class Search(Struct, forbid_unknown_fields=True):
    """How settings are chosen; see ``tinymim/experiments/search.py``."""

    share: Annotated[float, Meta(gt=0, lt=1)] = 0.2
    seeds: Annotated[list[Whole], Meta(min_length=1, max_length=1000)] = msgspec.field(default_factory=lambda: [0])
    grid: dict[Line, dict[Option, Annotated[list[Value], Meta(min_length=1, max_length=1000)]]] | None = None
    by: dict[Line, Line | None] | None = None


class StageText(Struct, forbid_unknown_fields=True):
    """A stage as the file of a chain has it."""

    name: Name
    kind: Line
    recipe: Line | list[Line] | None = None
    set: Settings = None
    teacher: Line | None = None
    weights: Line | None = None


class Compared(Struct, forbid_unknown_fields=True):
    """The comparison at the end of a chain."""

    title: Line
    rows: dict[str, list[Line]]
    source: Line = ""
    expects: Line = ""
    paper: dict[str, float] | None = None


class ChainText(Struct, forbid_unknown_fields=True):
    """The file of a chain; see ``tinymim/experiments/plan.py``."""

    stages: Annotated[list[StageText], Meta(min_length=1, max_length=1000)]
    about: Line | None = None
    seeds: list[Whole] | None = None
    set: Settings = None
    compare: Compared | None = None
    settings: Line | None = None
    search: Search | None = None


Steps = Annotated[str, Meta(pattern=rf"^{PLAIN}(/{PLAIN})*\Z")]
"""A folder below a plan's."""


class StageState(Struct, forbid_unknown_fields=True):
    """A stage as the state of a plan has it."""

    name: Steps
    kind: Line
    recipe: Line
    config: Plain
    start: Line | None = None
    parent: Line | None = None
    sources: dict[Line, Line] = {}


class FitState(Struct, forbid_unknown_fields=True):
    """A fit as the state of a plan has it."""

    stage: Line
    seed: Whole | None = None


class ChainPart(Struct, forbid_unknown_fields=True):
    """A plan as its state has it."""

    name: Line
    stages: dict[Steps, StageState]
    kind: Literal["chain", "scaling study", "study", "comparison", "search", "program"] = "chain"
    fits: dict[Steps, FitState] = {}
    command: Line = ""
    about: str = ""
    seeds: list[Whole] | None = None
    compare: Plain | None = None
    settings: Chosen | None = None


class Entry(Struct, forbid_unknown_fields=True):
    """How far a stage is."""

    state: Literal["waiting", "running", "interrupted", "failed", "done"] = "waiting"
    recipe: Line | None = None
    inputs: dict[str, Line] = {}
    outputs: dict[str, Line] = {}
    started: Line | None = None
    ended: Line | None = None
    process: Plain | None = None
    exit_code: int | None = None
    error: str | None = None


class ChainState(Struct):
    """``chain.json``."""

    form: int
    chain: ChainPart
    stages: dict[str, Entry]
    launch: Line


class StudyStage(Struct, forbid_unknown_fields=True):
    """A fit that every row of a study makes."""

    recipe: Line
    set: Settings = None


class StudyFigure(Struct, forbid_unknown_fields=True):
    """What a study measures."""

    stage: Line
    metric: Line
    unit: Line = "%"
    better: Literal["higher", "lower"] = "higher"


class StudyCurve(Struct, forbid_unknown_fields=True):
    """A loss that a study draws."""

    stage: Line
    title: Line = ""
    loss: Line = "loss"


class StudyRow(Struct, forbid_unknown_fields=True):
    """A row of a study, or what it prepares."""

    title: Line = ""
    recipe: Line | None = None
    set: Settings = None
    weights: Line | None = None
    later: Settings = None
    known: Line | None = None


class StudyClaim(Struct, forbid_unknown_fields=True):
    """A finding that can be checked."""

    figure: Line
    better: Line
    than: Line


class StudyQuestion(Struct, forbid_unknown_fields=True):
    """A question of a study."""

    title: Line
    rows: list[Line] | dict[str, Line | None]
    source: Line = ""
    expects: Line = ""
    paper: dict[str, float] | None = None
    figures: list[Line] | None = None
    against: dict[str, Line] | None = None
    claims: list[StudyClaim] | None = None


class StudyText(Struct, forbid_unknown_fields=True):
    """The file of a study; see ``study_grid.py``. Names of rows and questions become those of files."""

    seeds: Annotated[list[Whole], Meta(min_length=1, max_length=1000)]
    stages: dict[Name, StudyStage]
    rows: dict[Name, StudyRow]
    questions: dict[Name, StudyQuestion]
    about: Line = ""
    budget: Settings = None
    figures: dict[str, StudyFigure] | None = None
    curves: dict[Name, StudyCurve] | None = None
    prepare: dict[Name, StudyRow] | None = None
    quick: Settings = None
    settings: Line | None = None
    search: Search | None = None
