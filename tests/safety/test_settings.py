"""Settings of rows, and the teacher cache: files beside recipes that change numbers, and neither classes nor places."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.safety.places import CHAIN, STUDY
from tinymim.cli import cache_command
from tinymim.cli.main import main
from tinymim.errors import TinymimError, several
from tinymim.experiments import chain, fit_processes, schema, settings, state, study_check
from tinymim.experiments.plan import Plan, Stage
from tinymim.teacher_cache import records
from tinymim.teacher_cache.storage import entries
from tinymim.training import run_record


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.class_path", "planted"),
        ("model", "planted"),
        ("config", "other"),
        ("run_dir", "elsewhere"),
        ("model.optim.class_path.x", 1),
        ("model.targets", [{"class_path": "planted.Net"}]),
        ("model.teacher_drop_path", "planted.Net"),
        ("model.teacher", "../other.pth"),
        ("model.teacher_cache_dir", "elsewhere"),
        ("data.root", "elsewhere"),
        ("data.val", "elsewhere"),
        ("trainer.default_root_dir", "elsewhere"),
    ],
)
def test_settings__change_numbers_and_no_class_or_path(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"rows": {"scratch": {"probe": {key: value}}}}))
    with pytest.raises(TinymimError, match="rows"):
        settings.load(str(path))
    found = schema.mistakes({"grid": {"probe": {key: [value]}}}, schema.SearchText, "search")
    assert found, "what a search may not write it may not try"


def test_search__writes_where_a_file_says_only_beside_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("digits", str(tmp_path / "in" / "own.yaml")):
        settings.check_place(name, tmp_path / "in")
    for name in (str(tmp_path / "own.yaml"), "../own.yaml", "a/b.yaml"):
        with pytest.raises(TinymimError, match=r"settings: .* would be a new file outside of"):
            settings.check_place(name, tmp_path / "in")
    (tmp_path / "own.yaml").write_text("{}")
    settings.check_place(str(tmp_path / "own.yaml"), tmp_path / "in")


def test_search__of_more_fits_than_anyone_means() -> None:
    study = {**STUDY, "search": {"grid": {"probe": {f"model.{letter}": list(range(10)) for letter in "abcdefghij"}}}}
    assert study_check.mistakes(study) == [
        "search.grid.probe: 10,000,000,000 combinations, and each is fitted; at most 10,000 are taken"
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages": [{"name": f"s{n}"} for n in range(5000)]}, ["stages: 5,000 of them, and 1,000 are taken"]),
        ({"seeds": list(range(30_000))}, ["seeds: 30,000 seeds, and 1,000 are taken"]),
        (
            {"set": {f"model.k{n}": 1 for n in range(201)}},
            ["set: more than 200 options"],
        ),
    ],
)
def test_chain__of_more_than_anyone_means(changes: dict[str, Any], words: list[str]) -> None:
    assert chain.mistakes({**CHAIN, **changes}) == words


def test_names__longer_than_a_files_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"stages": [{"name": "a", "kind": "export", "weights": "a" * 3000}]}))
    assert main(["chain", "plan", str(path)]) == 1
    err = capsys.readouterr().err
    assert "File name too long" in err
    assert len(err) < 300
    assert len(str(several("heading", ["mistake"] * 5000)).splitlines()) == 102


def test_chain__is_read_with_the_settings_it_was_begun_with(tmp_path: Path) -> None:
    rows: dict[str, Any] = {"one": {"finetune": {"model.optim.base_lr": 0.5}}}
    settings.write(tmp_path / "own.yaml", settings.Settings("", "tinymim search toy", "two", {}, rows))
    stage = {"name": "a", "kind": "finetune", "recipe": "finetune_digits", "weights": None}
    compared = {"title": "Which?", "rows": {"one": ["a"]}}
    content = {"stages": [stage], "compare": compared, "settings": str(tmp_path / "own.yaml")}
    begun = state.begin(tmp_path, chain.build("toy", content, "toy.yaml"), "")
    begun.save()
    assert state.load(tmp_path).plan == begun.plan
    told = json.loads((tmp_path / state.NAME).read_text())
    told["chain"]["settings"]["rows"]["one"]["finetune"] = {"model.class_path": "planted.Net"}
    (tmp_path / state.NAME).write_text(json.dumps(told))
    with pytest.raises(TinymimError, match="settings"):
        state.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.update(launch="'unclosed"),
        lambda told: told["stages"].update(nobody={}),
        lambda told: told["chain"].update(compare={"title": 5, "rows": "x"}),
        lambda told: told["chain"].update(compare={"title": "t", "rows": {"a": ["nobody"]}}),
        lambda told: told["chain"].update(compare={"title": "t", "rows": {"a": ["tuned"]}, "paper": {"a": "x"}}),
        lambda told: told["chain"]["stages"]["first"].update(kind="command"),
        lambda told: told["chain"]["stages"]["first"].update(kind="command", config={"words": [["fit"]]}),
        lambda told: told["chain"]["stages"]["first"].update(parent="first"),
        lambda told: told["chain"]["stages"]["first"].update(parent="tuned"),
        lambda told: told["chain"]["stages"]["tuned"].update(sources={"model.weights": "../../nobody"}),
    ],
)
def test_state__of_a_plan_names_what_is_in_it(change: Any, tmp_path: Path) -> None:
    first = Stage("first", "pretrain", "mae_digits", {})
    plan = Plan("toy", {"first": first, "tuned": Stage("tuned", "probe", "probe_digits", {}, "first", "first")})
    state.begin(tmp_path, plan).save()
    assert state.load(tmp_path).plan == plan
    told = json.loads((tmp_path / state.NAME).read_text())
    change(told)
    (tmp_path / state.NAME).write_text(json.dumps(told))
    with pytest.raises(TinymimError, match=r"chain\.json"):
        state.load(tmp_path)


def test_process__of_a_stage_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "cmdline").write_text(str(tmp_path))
    for pid in (f"..{tmp_path}", [1], "1", None):
        assert fit_processes.alive({"host": socket.gethostname(), "pid": pid}, tmp_path) is None


def test_precision__of_the_environment_is_settled_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRECISION", "bf16-mixed")
    (tmp_path / "config.yaml").write_text("trainer: {precision: '${oc.env:PRECISION}'}")
    assert run_record.precision_in([tmp_path]) == "bf16-mixed"
    monkeypatch.delenv("PRECISION")
    assert run_record.precision_in([tmp_path]) is None
    (tmp_path / "config.yaml").write_text("trainer: {precision: !!python/name:os.system ''}")
    assert run_record.precision_in([tmp_path]) is None


def test_changed__first_weights_have_no_effect_on_a_run_that_goes_on() -> None:
    before = {"model": {"init_args": {"init": "published", "weights": None, "drop_path": 0.1}}}
    now = {"model": {"init_args": {"init": "timm", "weights": "digits_mae", "drop_path": 0.2}}}
    late = " (which has no effect on weights that are already trained)"
    assert run_record.changed(before, before) == []
    assert run_record.changed(before, now) == [
        f'model.init_args.init: "published", now "timm"{late}',
        f'model.init_args.weights: null, now "digits_mae"{late}',
        "model.init_args.drop_path: 0.1, now 0.2",
    ]
    assert run_record.changed({}, {"model": {"init_args": {"init": "timm"}}}) != []


def test_cache__is_listed_as_its_keys_say_in_plain_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "0_1").mkdir()
    about = {"teacher": "[/red]\x1b]0;x\x07", "data": ["no text"]}
    (tmp_path / "0_1" / "key.json").write_text(json.dumps({"key": {}, "about": about}))
    cache_command.main(["list", "--dir", str(tmp_path)])
    told = capsys.readouterr().out
    assert "[/red]" in told
    assert "\x1b" not in told


def test_cache__is_listed_whole_a_line_an_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = f"/data/{'a_long_name_' * 12}"
    made = (("0_1", "bfloat16", "digits_mae"), ("1_1", "float32", "digits_mae"), ("3_1", "float32", "run medium"))
    for name, precision, teacher in made:
        (tmp_path / name).mkdir()
        about = {"teacher": teacher, "data": "ImageFolderData, train", "source": source}
        key = {"precision": precision, "teacher": {"sha256": "ab" * 32}}
        (tmp_path / name / "key.json").write_text(json.dumps({"key": key, "about": about}))
    (tmp_path / "2_1").mkdir()
    (tmp_path / "2_1" / "key.json").write_text("{")
    cache_command.main(["list", "--dir", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    (one,) = [line for line in lines if line.startswith("0_1 ")]
    for word in ("digits_mae", " bfloat16 ", "ImageFolderData, train", f" {source} "):
        assert word in one
    assert sum("digits_mae" in line for line in lines) == 2
    assert sum(source in line for line in lines) == 3
    (of_run,) = [line for line in lines if line.startswith("3_1 ")]
    assert " run medium, sha256 abababababab " in of_run
    (damaged,) = [line for line in lines if line.startswith("2_1 ")]
    assert "its key.json is damaged" in damaged


def test_cache__of_names_and_sizes_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("0_1", "a\x1b]0;x\x07\nremoved everything"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "key.json").write_text("{}")
        os.mkfifo(tmp_path / folder / "pipe.view1.crc")
        for number in range(100):  # which are read in a minute
            with (tmp_path / folder / f"tap.view{number}.crc").open("wb") as file:
                file.truncate(1 << 40)
                if number == 1:
                    file.write(b"\1\0\0\0")
    (first, _) = entries(tmp_path)
    assert (first.views, records.stored(tmp_path / "0_1" / "tap.view1.crc")) == (100, (1, records.MOST))
    cache_command.main(["clear", "--dir", str(tmp_path)])
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert len(said.splitlines()) == 2
    assert not any(tmp_path.iterdir())
    cache_command.main(["clear", "--dir", str(tmp_path)])
    assert capsys.readouterr().out == f"the teacher cache {tmp_path} is empty\n"
