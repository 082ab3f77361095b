"""Whose licence holds for weights, by the record beside them."""

from __future__ import annotations

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
