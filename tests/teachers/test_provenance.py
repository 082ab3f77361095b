"""Whose licence holds for weights, by the record beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tinymim.teachers import card, provenance


@pytest.mark.parametrize(
    ("record", "licence"),
    [
        ({}, provenance.SCRATCH),
        ({"teacher": {"name": "t"}}, "unknown"),
        ({"licence": "MIT"}, "MIT"),
        ({"licence": "unknown", "classifier": {}}, provenance.SCRATCH),
        ({"licence": "unknown", "classifier": {}, "start": {"name": "s"}}, "unknown"),
        ({"licence": "unknown"}, "unknown"),
    ],
)
def test_licence__is_unknown_of_others_weights_alone(record: dict[str, Any], licence: str) -> None:
    assert provenance.licence_of(record) == licence
    assert bool(card.restriction(licence)) == (licence == "unknown")


@pytest.mark.parametrize(
    ("name", "path", "title"),
    [
        ("digits_mae", "teachers/checkpoints/digits_mae.safetensors", "digits_mae"),
        ("last.ckpt", "runs/medium/checkpoints/last.ckpt", "run medium"),
        ("step-4.ckpt", "runs/chain_x/seed0/medium/checkpoints/step-4.ckpt", "run chain_x/seed0/medium"),
        ("last.ckpt", "checkpoints/last.ckpt", "run {here}"),
        ("model.safetensors", "exports/student/model.safetensors", "student"),
        ("student.safetensors", "exports/student.safetensors", "student.safetensors"),
    ],
)
def test_title__is_that_of_the_run_or_the_card(
    name: str, path: str, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "chain_x").mkdir(parents=True)
    (tmp_path / "runs" / "chain_x" / "chain.json").touch()
    loaded = provenance.Provenance(name, path, "a", "", 1)
    assert loaded.title == loaded.identity()["name"] == title.format(here=tmp_path.name)
