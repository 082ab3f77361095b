"""A plan's page lists its fits, and leads to the pages that they have; a chain that compares nothing has one, too."""

from __future__ import annotations

import json
from pathlib import Path

from tinymim.experiments import fits_shown, pages
from tinymim.experiments.state import State
from tinymim.files import write_text
from tinymim.report import runs


def finished(state: State, key: str) -> Path:
    """Mark a stage as done, with figures and a log."""
    state.entries[key].state = "done"
    place = state.place / key
    write_text(place / "config.yaml", "model: {class_path: tinymim.methods.Distiller}\n")
    write_text(place / "metrics.csv", "epoch,step,val/loss\n0,1,0.5\n1,2,0.25\n")
    write_text(place / "results.json", json.dumps({"metrics": {"val/knn_top1": 0.25}, "seconds": 61, "epochs": 2}))
    return place


def test_section__leads_to_the_pages_that_are_there(state: State, tmp_path: Path) -> None:
    write_text(finished(state, "medium") / runs.PAGE, "<p>")
    finished(state, "tiny")
    state.entries["tiny"].started, state.entries["tiny"].ended = "2026-01-01T00:00:00+0000", "2026-01-01T09:00:00+0000"
    text = fits_shown.section(state, tmp_path / "a b#").markdown()
    assert "[medium](./../chain/medium/report.html)" in text or "[medium](../chain/medium/report.html)" in text
    assert "10-NN 25.0%" in text
    assert "| tiny | distill | done |" in text
    assert "| probe | probe | waiting | - | - |" in text
    assert "| tiny | distill | done | 10-NN 25.0% | 1:01 |" in text, "as `tinymim status` has it"


def test_chain__that_compares_nothing_has_a_page(state: State) -> None:
    write_text(finished(state, "medium") / runs.PAGE, "<p>")
    assert pages.chain(state, draw=False) is None
    page = (state.place / pages.PAGE).read_text()
    assert 'href="./medium/report.html"' in page
    assert "<svg " not in page
    assert not (state.place / "table.md").exists()
    assert pages.chain(state) is None
    page = (state.place / pages.PAGE).read_text()
    assert page.count("<svg ") == 1
    assert "medium: loss" in page
