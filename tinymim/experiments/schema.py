"""Schemas of the files that list fits: chains, studies, settings and searches; and their mistakes.

Each kind is a struct. :func:`mistakes` tells everything that is wrong with the types and keys of a file at once; what
names what is checked by the readers, once those are right.
"""

from __future__ import annotations

import statistics
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from tinymim.config.spec import seed_mistakes, unknown
from tinymim.safety.text import brief
from tinymim.teachers import record_schemas
from tinymim.teachers.record_schemas import Line, Name, Plain, Whole

MOST_STAGES = 1000
"""Stages of a chain: each is built, on the meta device, to be checked."""

MOST_KEYS = 200
"""Options that one part of a file sets: each is laid over the recipe, and looked for among all that are there."""

Check = Callable[[Any, str], list[str]]


Seeds = Annotated[list[Whole], Meta(extra={"check": seed_mistakes})]
Settings = Annotated[Plain, Meta(description="a mapping such as {trainer.max_epochs: 5}")] | None
Text = Annotated[str, Meta(description="a text")]
FileName = Annotated[Name, Meta(description="a name of files and folders, without / and without a dot before it")]
Recipe = Annotated[Line | list[Line], Meta(description="the name of a recipe, or a list of names")]

Option = Annotated[
    str,
    Meta(
        pattern=r"^(?!.*\bclass_path\b)(?!.*(root|_dir|\.(train|val|cache|dataset|images|masks|baseline))\Z)"
        r"(model|data|trainer)(\.[A-Za-z_]\w*)+\Z"
        r"(?#an option below model, data or trainer, such as model.optim.base_lr, and none that names a folder)",
        max_length=200,
    ),
]
"""An option of a recipe, below its model, data or trainer; none that says which class they are, or which folder they
read or write: a single word may be one."""

Scalar = bool | int | float | Annotated[str, Meta(pattern=r"^[\w +-]*\Z(?#a word or several)", max_length=200)] | None
"""A text in it is one word or several, and neither a path nor the way to a class."""

Value = Scalar | list[Scalar]
"""A value that a search may choose for an option."""

Chosen = Annotated[
    dict[Option, Value], Meta(description="a mapping such as {model.optim.base_lr: 0.004}, of options and numbers")
]
Tried = Annotated[
    dict[Option, Annotated[list[Value], Meta(min_length=1, max_length=1000)]],
    Meta(description="a mapping such as {model.optim.base_lr: [0.002, 0.008]}, of options and numbers"),
]
Grids = Annotated[
    Tried | Annotated[list[Tried], Meta(min_length=1, max_length=100)],
    Meta(description="a mapping such as {model.optim.base_lr: [0.002, 0.008]}, of options and numbers, or several"),
]


class SettingsText(Struct, forbid_unknown_fields=True):
    """A file of settings; see ``settings.py``. It changes a recipe's numbers, and not what is run."""

    command: Text = ""
    how: Text = ""
    tried: dict[Line, Tried] | None = None
    rows: dict[Line, dict[Line, Chosen]] | None = None


class SearchText(Struct, forbid_unknown_fields=True):
    """A search of settings; see ``search.py``."""

    share: Annotated[float, Meta(gt=0, lt=1, description="a share of the training images between 0 and 1")] = 0.2
    seeds: Seeds = msgspec.field(default_factory=lambda: [0])
    grid: dict[Line, Grids] | None = None
    by: dict[Line, Line | None] | None = None


class StageText(Struct, forbid_unknown_fields=True):
    """A stage of a chain; see ``chain.py``."""

    name: Name
    kind: Line
    recipe: Recipe | None = None
    set: Settings = None
    teacher: Line | None = None
    weights: Line | None = None


class CompareText(Struct, forbid_unknown_fields=True):
    """The comparison at the end of a chain."""

    title: Line
    rows: dict[str, list[Line]]
    source: Line = ""
    expects: Line = ""
    paper: dict[str, float] | None = None


class ChainText(Struct, forbid_unknown_fields=True):
    """The file of a chain."""

    stages: Annotated[list[StageText], Meta(min_length=1, max_length=MOST_STAGES)]
    about: Text | None = None
    seeds: Seeds | None = None
    set: Settings = None
    compare: CompareText | None = None
    settings: Line | None = None
    search: SearchText | None = None


class StudyStage(Struct, forbid_unknown_fields=True):
    """A fit that every row of a study makes; see ``study.py``."""

    recipe: Line
    set: Settings = None


class Figure(Struct, frozen=True, forbid_unknown_fields=True):
    """A column of a table.

    Args:
        stage: that it comes from.
        metric: in the stage's ``results.json``, such as ``val/top1``.
        unit: one that begins with ``%``, such as ``% of the side``, shows a share in per cent; any other is the
            metric's own, and empty is none.
        better: ``higher`` or ``lower``.
    """

    stage: Line
    metric: Line
    unit: Annotated[str, Meta(max_length=4000, description="a text, such as px; % and '' are others")] = "%"
    better: Annotated[Literal["higher", "lower"], Meta(description="higher or lower")] = "higher"

    @property
    def scale(self) -> int:
        """Factor by which a value is multiplied to be shown."""
        return 100 if self.unit.startswith("%") else 1

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self.better == "higher" else -1

    def head(self, title: str) -> str:
        """``title`` over a column: with the unit unless it is plain per cent, and an arrow where lower is better."""
        return title + (f" ({self.unit})" if self.unit not in ("%", "") else "") + (" ↓" if self.sign < 0 else "")

    def number(self, value: float, digits: int = 4) -> str:
        """A value in the figure's unit: per cent to one decimal, others to so many digits."""
        return f"{100 * value:.1f}" if self.scale == 100 else f"{value:.{digits}g}"

    def shown(self, values: list[float]) -> str:
        """Mean, and the spread (standard deviation over seeds) where there are several; ``-`` where there are none."""
        if not values:
            return "-"
        mean = self.number(statistics.mean(values))
        if len(values) > 1:
            return f"{mean} ± {self.number(statistics.stdev(values), 2)}"
        return f"{mean} %" if self.scale == 100 else mean


class Curve(Struct, frozen=True, forbid_unknown_fields=True):
    """A loss that a stage logs and a study draws: ``train/LOSS`` and ``val/LOSS``; called by its id without a title."""

    stage: Line
    title: Line = ""
    loss: Line = "loss"


class StudyPrepared(Struct, forbid_unknown_fields=True):
    """A fit that rows of a study need."""

    recipe: Line
    title: Line = ""
    set: Settings = None


class StudyRow(Struct, forbid_unknown_fields=True):
    """A row of a study."""

    title: Line = ""
    recipe: Line | None = None
    set: Settings = None
    weights: Line | None = None
    later: Settings = None
    known: Line | None = None


class Claim(Struct, frozen=True, forbid_unknown_fields=True):
    """A finding that can be checked: in ``figure``, the row ``better`` is better than the row ``than``."""

    figure: Line
    better: Line
    than: Line


class StudyQuestion(Struct, forbid_unknown_fields=True):
    """A question of a study."""

    title: Line
    rows: Annotated[list[Line] | dict[str, Line | None], Meta(description="a list of rows, or a mapping to titles")]
    source: Line = ""
    expects: Line = ""
    paper: dict[str, float] | None = None
    figures: list[Line] | None = None
    against: dict[str, Line] | None = None
    claims: list[Claim] | None = None


class StudyText(Struct, forbid_unknown_fields=True):
    """The file of a study. Names of rows and questions become those of files."""

    seeds: Seeds
    stages: dict[Name, StudyStage]
    rows: dict[FileName, StudyRow]
    questions: dict[FileName, StudyQuestion]
    about: Text = ""
    budget: Settings = None
    figures: dict[str, Figure] | None = None
    curves: dict[Name, Curve] | None = None
    prepare: dict[FileName, StudyPrepared] | None = None
    quick: Settings = None
    settings: Line | None = None
    search: SearchText | None = None


def mappings(tried: Tried | list[Tried]) -> list[Tried]:
    """The mappings of a stage's grid, of which there may be one."""
    return tried if isinstance(tried, list) else [tried]


def mistakes(value: Any, schema: Any, path: str = "") -> list[str]:
    """Every way in which plain data is not what a type has, a line each, which the field leads.

    Args:
        value: as a file has it.
        schema: a struct, or the type of a field of one.
        path: of the value in the file.
    """
    schema, base, description, check = _described(schema)
    if check:
        return check(value, path)
    origin, inner = typing.get_origin(base), typing.get_args(base)
    fields = {field.name: field for field in msgspec.structs.fields(base)} if hasattr(base, "__struct_fields__") else {}
    if (fields or origin is dict) and not isinstance(value, dict):
        inside = ", ".join(fields) or "names"
        return [f"{path}: {brief(value, 200)} is not {description or f'a mapping of {inside}'}"]
    if fields:
        errors = unknown(value, path, fields)
        for name, field in fields.items():
            where = f"{path}.{name}".lstrip(".")
            if field.required and value.get(name) in (None, "", [], {}):
                errors.append(f"{where}: missing")
            elif value.get(name) is not None:
                errors += mistakes(value[name], field.type, where)
        return errors
    if origin is dict and not description:
        wrong = [
            f"{path}.{key}: is not {_described(inner[0])[2] or 'a name'}" for key in value if _error(key, inner[0])
        ]
        return wrong + [line for key, part in value.items() for line in mistakes(part, inner[1], f"{path}.{key}")]
    if origin is list and hasattr(inner[0], "__struct_fields__") and isinstance(value, list):
        return [line for n, part in enumerate(value, 1) for line in mistakes(part, inner[0], f"{path}, number {n}")]
    if isinstance(value, dict) and len(value) > MOST_KEYS and description:
        return [f"{path}: more than {MOST_KEYS} options"]
    error = _error(value, schema)
    return [f"{path}: {brief(value, 200)} is not {description}" if description else f"{path}: {error}"] if error else []


def _error(value: Any, schema: Any) -> str:
    """Why a value is not of a type; empty where it is."""
    try:
        msgspec.convert(value, schema, strict=True)
    except msgspec.ValidationError as error:
        return record_schemas.message(error)
    return ""


def _described(schema: Any) -> tuple[Any, Any, str, Check | None]:
    """A type that is not ``None``, the same without its annotations, how it is described, and what else checks it."""
    others = [part for part in typing.get_args(schema) if part is not type(None)]
    if type(None) in typing.get_args(schema) and len(others) == 1:
        schema = others[0]
    base = schema.__origin__ if hasattr(schema, "__metadata__") else schema
    metas = [meta for meta in getattr(schema, "__metadata__", ()) if isinstance(meta, Meta)]
    description = next((meta.description for meta in metas if meta.description), "")
    check = next((meta.extra["check"] for meta in metas if meta.extra), None)
    return schema, base, description, check
