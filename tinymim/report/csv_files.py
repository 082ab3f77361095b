"""Tables as CSV beside a report: numbers in full, and no cell that a spreadsheet would compute."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from tinymim.files import write_text
from tinymim.safety import shown


def write(path: Path, table: pd.DataFrame | Iterable[dict[str, Any]], missing: str = "") -> None:
    """Write a table, whole or not at all.

    Args:
        path: of the file.
        table: a frame, or its rows, which keep whole numbers whole even in columns that lack some.
        missing: stands for ``None`` and NaN.
    """
    frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame(table, dtype=object)
    write_text(path, frame.map(_cell).to_csv(index=False, lineterminator="\n", na_rep=missing))


def read(path: Path, text: Iterable[str]) -> pd.DataFrame:
    """What :func:`write` wrote, numbers to the last digit; empty where there is no file.

    Args:
        path: of the file.
        text: columns that hold text; all others hold numbers.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such table.
    """
    if not path.is_file():
        return pd.DataFrame()
    words, frame = set(text), pd.read_csv(path, dtype=str, keep_default_na=False)
    return frame.apply(lambda column: column.map(shown.uncelled if column.name in words else _number))


def _number(cell: str) -> float | int:
    """As Python reads it: pandas' own parsers differ in the last digit from version to version."""
    return int(cell) if cell.lstrip("-").isdecimal() else float(cell or "nan")


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        return ";".join(map(str, value))
    return shown.cell(shown.one_line(value)) if isinstance(value, str) else value
