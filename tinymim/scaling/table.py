"""The table of a scaling study: one row a run, as CSV; also the published one of "On Data Scaling in Masked Image
Modeling" (arXiv 2206.04664)."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tinymim.errors import TinymimError, several
from tinymim.report import csv_files
from tinymim.safety import escaping, text


@dataclass(frozen=True)
class RunRow:
    """A run of a scaling study.

    Args:
        objective: ``SimMIM``, ``MAE`` or another; losses of two objectives are never compared.
        model: the network's name.
        parameters: weights of the encoder.
        data: the training set, such as ``10%``.
        images: in it.
        iterations: optimiser steps.
        validation_loss: the objective on held-out images; NaN where the run failed.
        training_loss: the same on images trained on, measured the same way.
        noise: standard deviation of ``validation_loss`` over seeds of the masks.
        mask_losses: the validation loss under each seed of the masks, which runs share; ``;`` between them in a file.
        accuracy: top-1 after fine-tuning, a share in [0, 1].
        flops: floating-point operations of the whole training.
        images_seen: over the training, each as often as it was seen.
        seed: of the run.
        status: ``done`` or ``failed``.
        error: why it failed, one line.
    """

    objective: str
    model: str
    parameters: int
    data: str
    images: int
    iterations: int
    validation_loss: float = math.nan
    training_loss: float | None = None
    noise: float | None = None
    accuracy: float | None = None
    flops: float | None = None
    images_seen: int | None = None
    seed: int | None = None
    status: str = "done"
    error: str | None = None
    mask_losses: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """Its name on a page."""
        return f"{self.objective} {self.model}, {self.data}, {self.iterations:,} iterations{self.of_seed}"

    @property
    def of_seed(self) -> str:
        """The end of a name."""
        return "" if self.seed is None else f", seed {self.seed}"


NEEDED = ("model", "parameters", "data", "images", "iterations", "validation_loss")
"""Columns that a table cannot do without; a table of ours says the ``objective`` too."""

PUBLISHED = {"params_millions": "parameters", "finetune_top1": "accuracy"}
UNITS = {"params_millions": 1e6, "finetune_top1": 0.01}
"""Columns of the published table under other names and in other units; its objective is SimMIM."""

COUNTS = ("parameters", "images", "iterations", "images_seen")
"""Columns of whole numbers above 0."""

MOST_BYTES, MOST_ROWS, MOST_SERIES = 4 << 20, 2_000, 200
"""Limits of a table, and of the models, each with each of its data, in it: every one is drawn in every picture. The
published one has 63 rows and 17 series; what is drawn of more than these nobody could read."""

MOST_LABELS = {"objective": 4, "model": 40, "data": 40}
"""Limits of the different names in a column: each objective has pictures of its own, each data a panel."""

MOST_TEXT, MOST_PROBLEMS = 100, 20
"""Characters of a name, which every legend has; problems that are told of: a table of another form has one a line."""

LARGEST, MOST_COUNT = 1e30, 2**53
"""Limits of any number, operations of a training that nobody has paid for yet, and of a whole one."""

COMMENT = "#"
"""First character of a line that is ignored."""


def done(rows: Iterable[RunRow]) -> list[RunRow]:
    """The runs that have a loss."""
    return [row for row in rows if row.status == "done"]


def write(path: Path, rows: list[RunRow]) -> None:
    """Write ``rows`` as CSV, whole or not at all; unknown values stay empty."""
    csv_files.write(path, map(asdict, rows), [field.name for field in fields(RunRow)])


def read(path: Path) -> list[RunRow]:
    """Read a table that :func:`write` wrote, or the published one; columns of other names are ignored.

    Raises:
        TinymimError: it cannot be read; a column or all rows are missing; cells are wrong, all of them named; two rows
            are of one run.
    """
    try:
        written = text.contents(path, f"table: {path}", MOST_BYTES)
        numbered = enumerate(map(text.printable, written.splitlines()), 1)
        lines = [(n, next(csv.reader([line]))) for n, line in numbered if line.strip() and not line.startswith(COMMENT)]
    except (csv.Error, StopIteration) as error:
        raise TinymimError(f"table: {path} cannot be read: {error or 'a line is no CSV'}") from None
    if len(lines) > MOST_ROWS:
        raise TinymimError(f"table: {path} has {len(lines):,} lines, and {MOST_ROWS:,} are taken; leave some out")
    if not lines:
        raise TinymimError(f"table: {path} is empty; its first line names the columns {', '.join(NEEDED)}, ...")
    (number, first), *lines = lines
    columns = [name.strip() for name in first]
    heads = [PUBLISHED.get(name, name) for name in columns]
    if twice := [name for name in dict.fromkeys(heads) if name and heads.count(name) > 1]:
        raise TinymimError(f"table: {path}, line {number}: two columns are {', '.join(twice)}; keep one of them")
    published = bool(set(columns) & set(PUBLISHED))
    needed = NEEDED if published else ("objective", *NEEDED)
    if missing := [name for name in needed if name not in heads]:
        mark = next((mark for mark in ";\t" if len(columns) == 1 and mark in columns[0]), None)
        has = f"{mark!r} stands between them, and a comma should" if mark else f"it has {', '.join(columns)}"
        raise TinymimError(f"table: {path}, line {number}: no column {', '.join(missing)}; {has}")
    if not lines:
        raise TinymimError(f"table: {path}, line {number}: columns, and no run below them")
    problems: list[str] = []
    rows = [_row(number, columns, cells, published, problems) for number, cells in lines]
    problems += _contradictions({number: row for (number, _), row in zip(lines, rows, strict=True) if row})
    for label, most in MOST_LABELS.items():
        if (count := len({getattr(row, label) for row in rows if row})) > most:
            problems.append(f"{label}: {count:,} different ones, and {most} are taken; leave some out")
    if (count := len({(row.objective, row.model, row.data) for row in rows if row})) > MOST_SERIES:
        problems.append(f"model, data: {count:,} pairs of them, and {MOST_SERIES} are taken; leave some out")
    known = [row.accuracy for row in rows if row and row.accuracy is not None]
    if "finetune_top1" in columns and known and max(known) <= 0.01:
        problems.append("finetune_top1: no run is above 1 per cent; write 83.2 for 83.2 %, or call the column accuracy")
    if len(problems) > MOST_PROBLEMS:
        problems[MOST_PROBLEMS:] = [f"and {len(problems) - MOST_PROBLEMS:,} more"]
    if problems:
        raise several(f"table: {path}", problems)
    return [row for row in rows if row]


def _contradictions(rows: dict[int, RunRow]) -> list[str]:
    """Contradictions between lines, which come by number: one run twice, or one label with two sizes."""
    problems: list[str] = []
    seen: dict[Any, int] = {}
    for number, row in rows.items():
        run = row.objective, row.model, row.data, row.iterations, row.seed
        if (first := seen.setdefault(run, number)) != number:
            problems.append(f"line {number}: the same run as line {first}, {row.name}; tell them apart by a seed")
        for label, size in (("model", "parameters"), ("data", "images")) if row.status == "done" else ():
            name = getattr(row, label)
            first = seen.setdefault((label, row.objective, name), number)
            if (here := getattr(row, size)) != (there := getattr(rows[first], size)):
                problems.append(
                    f"line {number}, {size}: {label} {name} has {here:,} here and {there:,} on line {first}"
                )
    return problems


def _row(number: int, heads: list[str], cells: list[str], published: bool, problems: list[str]) -> RunRow | None:
    """A line's run, or ``None`` with what is wrong with it added to ``problems``."""
    if len(cells) != len(heads):
        problems.append(f"line {number}: {len(cells)} cells under {len(heads)} columns")
        return None
    before = len(problems)
    cells_by_head = {head: escaping.uncelled(cell.strip()) for head, cell in zip(heads, cells, strict=True)}
    values: dict[str, Any] = {"objective": "SimMIM"} if published else {}
    failed = cells_by_head.get("status") == "failed"
    for head, cell in cells_by_head.items():
        name = PUBLISHED.get(head, head)
        if name not in RunRow.__dataclass_fields__:
            continue
        try:
            if cell:
                values[name] = _value(name, cell, head)
            elif name == "objective" or (name in NEEDED and not (failed and name == "validation_loss")):
                raise ValueError("is empty")
        except ValueError as error:
            problems.append(f"line {number}, {head}: {error}")
    return RunRow(**values) if len(problems) == before else None


def _value(name: str, cell: str, head: str) -> Any:
    """A cell as the field of :class:`RunRow` has it; ``head`` tells the published table's units."""
    if name in MOST_LABELS and len(cell) > MOST_TEXT:
        raise ValueError(f"{cell[:20]!r}... has {len(cell):,} characters, and {MOST_TEXT} are taken")
    if name in (*MOST_LABELS, "error"):
        return cell
    if name == "status" and cell not in ("done", "failed"):
        raise ValueError(f"{cell[:MOST_TEXT]!r} is neither done nor failed")
    if name == "status":
        return cell
    if name == "mask_losses":
        return tuple(map(_number, cell.split(";")))
    if name == "seed":
        return _whole(cell)
    value = UNITS.get(head, 1) * _number(cell)
    if name in COUNTS:
        if value != round(value) or not 0 < value <= MOST_COUNT:
            raise ValueError(f"{cell} is not a whole number above 0, to {MOST_COUNT:,}")
        return round(value)
    if name == "accuracy" and value > 1:
        raise ValueError(f"{cell} is above {'100 per cent' if head in PUBLISHED else '1; it is a share'}")
    return value


def _number(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise ValueError(f"{cell[:MOST_TEXT]!r} is not a number") from None
    if not 0 <= value <= LARGEST:
        raise ValueError(f"{cell} is not a number from 0 to {LARGEST:g}")
    return value


def _whole(cell: str) -> int:
    try:
        value = int(cell)
    except ValueError:
        raise ValueError(f"{cell[:MOST_TEXT]!r} is not a whole number") from None
    if abs(value) > MOST_COUNT:
        raise ValueError(f"{cell} is not a whole number to {MOST_COUNT:,}")
    return value
