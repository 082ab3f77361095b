"""The results of an analysis: tables as CSV, and beside them what was analysed and how.

analysis.json    options, networks with their sha256, images, versions of the software, what was left out and why
heads.csv        one row a network, block and head (see ``tinymim/analysis/heads.py``)
cka.csv          one row a pair of blocks, of one network or of two
relations.csv    one row a relation and pair of blocks, teacher's and student's
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pandas import DataFrame

from tinymim.errors import TinymimError
from tinymim.files import write_json
from tinymim.report import csv_files
from tinymim.safety import text

ABOUT = "analysis.json"
TABLES = ("heads", "cka", "relations")
TEXT = ("model", "model_a", "model_b", "teacher", "student", "relation")
"""Columns that hold text."""


@dataclass
class AnalysisResults:
    """The tables of an analysis, as they lie in a folder, empty where something was not measured; ``about`` has
    ``options``, ``models``, ``teacher``, ``images``, ``notes`` and ``environment``."""

    about: dict[str, Any]
    heads: DataFrame = field(default_factory=DataFrame)
    cka: DataFrame = field(default_factory=DataFrame)
    relations: DataFrame = field(default_factory=DataFrame)

    def __post_init__(self) -> None:
        self.models: list[dict[str, Any]] = self.about.get("models", [])  # in the order of the command
        self.titles: list[str] = [model["title"] for model in self.models]

    def heads_of(self, title: str) -> DataFrame:
        """The rows of ``heads`` of one network."""
        return self.heads[self.heads["model"] == title]

    def distilled_blocks(self, student: str) -> list[tuple[int, int]]:
        """The blocks, teacher's and student's, that a student's distillation compared, if its teacher is the one of
        this analysis."""
        models = {model["title"]: model for model in self.models}
        taught_by, teacher = models[student]["taught_by_sha256"], models[self.about["teacher"]]["sha256"]
        if not taught_by or taught_by != teacher:
            return []
        return [(pair[0], pair[1]) for pair in models[student]["distilled_blocks"]]

    def write(self, folder: Path) -> None:
        """Write all of it into a folder."""
        for name in TABLES:
            if len(table := getattr(self, name)):
                csv_files.write(folder / f"{name}.csv", table.to_dict("records"), missing="nan")
        write_json(folder / ABOUT, self.about)


def read(folder: Path) -> AnalysisResults:
    """The results in a folder.

    Raises:
        TinymimError: there are none, or they cannot be read.
    """
    if not (folder / ABOUT).is_file():
        raise TinymimError(f"analysis: {folder} has no {ABOUT}; give a folder that `tinymim analyze` wrote")
    try:
        about = text.read_json(folder / ABOUT, f"analysis: {folder / ABOUT}")
        tables = {name: csv_files.read(folder / f"{name}.csv", TEXT) for name in TABLES}
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise TinymimError(f"analysis: {folder} cannot be read: {error}") from None
    return AnalysisResults(about, **tables)
