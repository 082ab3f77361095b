"""The commands over one recipe, which comes first or behind ``--config``."""

from __future__ import annotations

import pytest

from tinymim.cli import main
from tinymim.training import fit


@pytest.mark.parametrize("name", ["fit", "validate", "test", "check"])
def test_recipe__may_come_first(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(fit, "run", lambda stage, words, **_: calls.append((stage, words)))
    rest = ["--trainer.max_epochs", "1"]
    assert main.main([name, "relation_digits", *rest]) == 0
    if name != "check":
        assert main.main([name, "--config", "relation_digits", *rest]) == 0
    assert {(stage, *words) for stage, words in calls} == {
        ("fit" if name == "check" else name, "--config", "relation_digits", *rest)
    }
