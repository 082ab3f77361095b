"""Tables as CSV beside a report: numbers in full, and no cell that a spreadsheet would compute."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinymim.files import write_text
from tinymim.safety import escaping

if TYPE_CHECKING:
    from pandas import DataFrame


def write(path: Path, rows: Iterable[Mapping[Any, Any]], columns: Iterable[str] = (), missing: str = "") -> None:
    """Write a table, whole or not at all.

    Args:
        path: of the file.
        rows: by column, each with the same columns.
        columns: names of them; without there must be a row.
        missing: stands for ``None`` and NaN.
    """
    rows = list(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(escaping.cell, list(columns) or rows[0]))
    writer.writerows([_cell(value, missing) for value in row.values()] for row in rows)
    write_text(path, out.getvalue())


def read(path: Path, text: Iterable[str]) -> DataFrame:
    """The table that :func:`write` wrote; empty where there is no file.

    Args:
        path: of the file.
        text: columns that hold text; all others hold numbers.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such table.
    """
    import pandas as pd

    if not path.is_file():
        return pd.DataFrame()
    words, frame = set(text), pd.read_csv(path, dtype=str, keep_default_na=False)
    return frame.apply(lambda column: column.map(escaping.uncelled if column.name in words else _number))


def _cell(value: Any, missing: str) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return missing
    if isinstance(value, tuple):
        return ";".join(map(str, value))
    return escaping.cell(escaping.one_line(value)) if isinstance(value, str) else value


def _number(cell: str) -> float | int:
    """A number as Python reads it: pandas' own parsers differ in the last digit from version to version."""
    return int(cell) if cell.lstrip("-").isdecimal() else float(cell or "nan")
