"""What files say, where it is shown: nothing hidden, no formula, no patterns in messages."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
import yaml

from tests.safety.places import STUDY
from tinymim.errors import TinymimError
from tinymim.experiments import settings, tables
from tinymim.experiments.questions import Figure, Question
from tinymim.experiments.schema import SettingsText
from tinymim.report import csv_files
from tinymim.report.document import Section
from tinymim.safety import escaping, names, text
from tinymim.teachers import record_schemas

HIDDEN = "\u00ad\u034f\u061c\u115f\u1160\u17b4\u180b\u180f\u200b\u202e\u206a\u3164\ufe00\ufe0f\ufeff\uffa0\ufff0"
HIDDEN += "\U000e0001\U000e01ef"
"""Default ignorable characters, and marks of direction."""


@pytest.mark.parametrize("character", HIDDEN)
def test_hidden__characters_are_spelt_out_and_in_no_name(character: str) -> None:
    said = escaping.terminal(f"a{character}b")
    assert said.isascii()
    assert said != "ab"
    assert text.printable(f"a{character}b") == escaping.one_line(f"a{character}b") == "ab"
    assert not names.is_plain(f"a{character}b")


def test_joiners__stay_in_texts() -> None:
    assert (
        escaping.terminal("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645")
        == "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    )


def test_names__that_are_long_are_cut_in_the_message() -> None:
    with pytest.raises(TinymimError, match="name: '") as caught:
        names.check("/" * 100_000, "name")
    assert len(str(caught.value)) < 400


def test_settings__how_and_command_are_paragraphs_in_the_table() -> None:
    made = settings.Settings(
        "own.yaml", "tinymim [a](http://b)", "# so\n\n<script>", {}, {"one": {"probe": {"a.b": 1}}}
    )
    section = Section("t", remarks=made.remarks({"one": "# One <b>"}, ["probe"], "tinymim search x"))
    written = section.markdown()
    assert "<script>" not in written
    assert not re.search(r"(?<!\\)\]\(", written)
    assert all(line.startswith(("## t", "Settings of", "Each row")) for line in written.splitlines() if line)


def test_cells__of_texts_are_no_formulas(tmp_path: Path) -> None:
    question = Question("q", {"=1+1": "@a"})
    csv_files.write(tmp_path / "t.csv", tables.csv_rows(question, {"=1+1": {}}, {"=cmd|x": Figure("a", "b")}))
    (heads, row) = csv.reader(io.StringIO((tmp_path / "t.csv").read_text()))
    assert heads[2:4] == ["'=cmd|x mean", "'=cmd|x std"]
    assert row[:2] == ["'=1+1", "'@a"]


def test_message__names_the_entry_and_no_pattern(tmp_path: Path) -> None:
    good = {"probe": {"model.optim.base_lr": 0.1}}
    for wrong, words in (
        (
            {"finetune": {"model.class_path": 1}},
            "rows.two.finetune: {'model.class_path': 1} is not a mapping such as {model.optim.base_lr: 0.004}",
        ),
        ({"finetune": {"model.x": "../a"}}, "rows.two.finetune: {'model.x': '../a'} is not a mapping such as"),
        ({"finetune": {"model.x": [[1]]}}, "rows.two.finetune: {'model.x': [[1]]} is not"),
    ):
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump({"rows": {"one": good, "two": {**good, **wrong}}}))
        with pytest.raises(TinymimError) as caught:
            settings.load(str(path))
        said = str(caught.value)
        assert words in said
        assert not any(sign in said for sign in ("[...]", "regex", "(?", "\\Z", "^")), said
    with pytest.raises(TinymimError, match=r"^s: rows\.\*: expected object, got int$"):
        record_schemas.fit({"rows": {str(n): 1 for n in range(200)}}, SettingsText, "s")


def test_message__of_a_card_or_a_study_has_no_pattern() -> None:
    for content, schema in (
        ({**STUDY, "rows": {"a/b": {}}}, "StudyText"),
        ({"name": "a/b", "architecture": {}, "file": "x", "licence": "", "citation": "", "source": ""}, "CardFields"),
        ({"architecture": "A B"}, "TimmConfig"),
    ):
        from tinymim.experiments import schema as plan_schema

        with pytest.raises(TinymimError) as caught:
            record_schemas.fit(content, getattr(record_schemas, schema, None) or getattr(plan_schema, schema), "it")
        assert not {"regex", "^"} & {*str(caught.value).split(), *str(caught.value)}
