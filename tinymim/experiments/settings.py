"""Settings of their own for the rows of a comparison, each found by one search of one budget, see ``search.py``.

recipes/settings/NAME.yaml:
command   that chose them
how       a sentence on what was tried, and on which images
tried     STAGE: ``{dotted.key: [values]}``, of which a row that took the lowest or highest is told under the table
rows      ROW: ``{STAGE: {dotted.key: value}}``, overrides of that stage's recipe for that row alone
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tinymim.config import spec
from tinymim.errors import TinymimError, mistaken
from tinymim.experiments import schema
from tinymim.files import write_text
from tinymim.safety import names
from tinymim.teachers.record_schemas import Line

FOLDER = "settings"


@dataclass
class Settings:
    """The content of a file.

    Args:
        source: the file, for people; empty where a comparison names none.
        command: that chose them.
        how: what it tried, in words.
        tried: by stage, the values of each dotted key.
        rows: by row and stage, values by dotted key.
    """

    source: Line = ""
    command: schema.Text = ""
    how: schema.Text = ""
    tried: dict[Line, schema.Tried] = field(default_factory=dict)
    rows: dict[Line, dict[Line, schema.Chosen]] = field(default_factory=dict)

    def texts(self, row: str, stage: str) -> list[str]:
        """Overrides of a command line for a row in a stage; none where it has no settings of its own."""
        return spec.texts(self.rows.get(row, {}).get(stage))

    def keys(self) -> set[str]:
        """Every option that some row has chosen."""
        return {key for stages in self.rows.values() for values in stages.values() for key in values}

    def remarks(self, rows: dict[str, str], stages: list[str], search: str) -> list[str]:
        """Remarks under a table: the settings of each row, how they were chosen, and which rows have none.

        Args:
            rows: title by row, as the file calls it.
            stages: those that the table shows, in which a row could have settings.
            search: the command that searches, for the rows without.
        """
        lines, without = [], []
        for row, title in rows.items():
            chosen = self.rows.get(row, {})
            parts = [f"{stage} {shown(chosen[stage])}" for stage in stages if stage in chosen]
            lines += [f"Settings of *{title}*: {'; '.join(parts)}."] if parts else []
            if missing := [stage for stage in stages if stage not in chosen]:
                without.append(f"*{title}*" + (f" ({', '.join(missing)})" if parts else ""))
        if lines:
            lines.append(f"Each row has its own, chosen by `{self.command}`: {self.how}")
            lines += self.at_ends(rows, stages)
        if without:
            lines.append(
                f"Without settings of their own, which is no fair comparison: {', '.join(without)}; the recipe's were "
                f"taken. `{search}` searches them."
            )
        return lines

    def at_ends(self, rows: dict[str, str], stages: list[str]) -> list[str]:
        """The line on rows whose best is the lowest or highest value tried, so that better may lie beyond, see
        ``remarks``."""
        told = []
        for stage in stages:
            for key, values in self.tried.get(stage, {}).items():
                for end in ends(values):
                    at = [title for row, title in rows.items() if self._chosen(row, stage).get(key) == end]
                    who = ", ".join(f"*{title}*" for title in at) if len(at) < 4 else f"{len(at)} of {len(rows)} rows"
                    told += [f"{stage} {shown({key: end})} of {who}"] if at else []
        return (
            [f"At an end of what was tried; a wider `search.grid` may find better: {'; '.join(told)}."] if told else []
        )

    def _chosen(self, row: str, stage: str) -> schema.Chosen:
        return self.rows.get(row, {}).get(stage, {})


def ends(values: list[schema.Value]) -> list[float]:
    """The lowest and the highest of three numbers or more; none of fewer, or of words: a choice and no range."""
    numbers = {each for each in values if isinstance(each, int | float) and not isinstance(each, bool)}
    return [min(numbers), max(numbers)] if len(numbers) == len(values) > 2 else []


def shown(values: dict[str, Any]) -> str:
    """Values for people: the last part of each key, and the value."""
    texts = {key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in values.items()}
    return ", ".join(f"{key.rpartition('.')[2]} {text}" for key, text in texts.items()) or "as they are"


def load(name: str | None, missing: bool = False) -> Settings:
    """Read a file of settings.

    Args:
        name: of a file in ``recipes/settings``, or a path; ``None`` is no settings.
        missing: take a file that is not there as an empty one, as a search does that will write it.

    Raises:
        TinymimError: no such file, or mistakes in its form, all of them together.
    """
    if name is None:
        return Settings()
    try:
        path = spec.find("settings", name)
    except TinymimError:
        if missing:
            return Settings(source=name)
        raise
    content = spec.read(path, "settings", "command and rows")
    if errors := schema.mistakes(content, schema.SettingsText):
        raise mistaken(str(path), errors)
    return Settings(
        str(path),
        content.get("command", ""),
        content.get("how", ""),
        content.get("tried") or {},
        content.get("rows") or {},
    )


def place(name: str) -> Path:
    """The path of a file of that name, there or yet to be written: beside the recipes at hand."""
    try:
        return spec.find("settings", name)
    except TinymimError:
        return Path(name) if name.endswith((".yaml", ".yml")) else Path("recipes") / FOLDER / f"{name}.yaml"


def check_place(name: str, beside: Path) -> None:
    """Raise unless a search may write a file of that name, which a file says: one that is there already, or a new one
    with a plain name, or in the folder ``beside``."""
    path = Path(name)
    if not names.is_plain(name) and not path.is_file() and path.resolve().parent != beside.resolve():
        raise TinymimError(
            f"settings: {name} would be a new file outside of {beside}; a file does not say where others are written: "
            "take a plain name, such as digits"
        )


def write(path: Path, settings: Settings) -> None:
    """Write a file of settings, whole or not at all."""
    head = (
        f"# Settings of each row, chosen by `{settings.command}`, which writes this file.\n"
        "# On a part of the training images; no held-out image was read.\n"
    )
    tried = {"tried": settings.tried} if settings.tried else {}
    content = {"command": settings.command, "how": settings.how, **tried, "rows": settings.rows}
    write_text(path, head + yaml.safe_dump(content, sort_keys=False, width=120, allow_unicode=True))
