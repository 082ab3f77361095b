"""What an analysis found: tables as CSV, and beside them what was analysed and how.

analysis.json    options, networks with their sha256, images, versions of the software, what was left out and why
heads.csv        one row a network, block and head (see ``tinymim/analysis/heads.py``)
cka.csv          one row a pair of blocks, of one network or of two
relations.csv    one row a relation and pair of blocks, teacher's and student's
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinymim.errors import TinymimError
from tinymim.files import write_json, write_text
from tinymim.safety.shown import cell

Row = dict[str, Any]

ABOUT = "analysis.json"
TABLES = ("heads", "cka", "relations")
NAMES = {"model", "model_a", "model_b", "teacher", "student", "relation"}
"""Columns that hold text."""


@dataclass
class Results:
    """Findings, as they lie in a folder.

    Args:
        about: ``analysis.json``: ``options``, ``models``, ``teacher``, ``images``, ``notes``, ``environment``.
        heads: rows of ``heads.csv``; empty where it was not measured, like the others.
        cka: rows of ``cka.csv``.
        relations: rows of ``relations.csv``.
    """

    about: dict[str, Any]
    heads: list[Row] = field(default_factory=list)
    cka: list[Row] = field(default_factory=list)
    relations: list[Row] = field(default_factory=list)

    @property
    def models(self) -> list[dict[str, Any]]:
        """What was analysed, in the order of the command."""
        return self.about["models"]

    @property
    def titles(self) -> list[str]:
        """Their names."""
        return [model["title"] for model in self.models]

    def write(self, folder: Path) -> None:
        """Write all of it into a folder."""
        for name in TABLES:
            if rows := getattr(self, name):
                write_text(folder / f"{name}.csv", _csv(rows))
        write_json(folder / ABOUT, self.about)


def read(folder: Path) -> Results:
    """The findings in a folder.

    Raises:
        TinymimError: there are none, or they cannot be read.
    """
    if not (folder / ABOUT).is_file():
        raise TinymimError(f"analysis: {folder} has no {ABOUT}; give a folder that `tinymim analyze` wrote")
    try:
        about = json.loads((folder / ABOUT).read_text())
        tables = {name: _rows(folder / f"{name}.csv") for name in TABLES}
    except (OSError, ValueError) as error:
        raise TinymimError(f"analysis: {folder} cannot be read: {error}") from None
    return Results(about, **tables)


def _csv(rows: list[Row]) -> str:
    """Numbers in full, so that they read back as they were."""
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows({head: cell(value) for head, value in row.items()} for row in rows)
    return out.getvalue()


def _rows(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return [
            {name: text if name in NAMES else _number(text) for name, text in row.items()}
            for row in csv.DictReader(stream)
        ]


def _number(text: str) -> float | int | None:
    if not text:
        return None
    return int(text) if text.lstrip("-").isdecimal() else float(text)
