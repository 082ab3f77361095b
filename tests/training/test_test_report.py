"""Figures of a test are shown with how many images they are of, where these are few."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tinymim.data.named_sets import Report
from tinymim.training import test_report as report


@pytest.mark.parametrize(
    ("metrics", "queries", "classes", "line"),
    [
        ({"test/knn_top1": 1.0}, 1, 3, "few held-out images: 1, each 100 points of accuracy, known to ±98 (95 %)"),
        (
            {"test/loss": 1.0, "test/top1": 0.5},
            0,
            3,
            "few held-out images: 4, each 25 points of accuracy, known to ±49 (95 %)",
        ),
        (
            {"test/knn_top1": 1.0},
            150,
            200,
            "few held-out images: 150, each 0.667 points of accuracy, known to ±8 (95 %)",
        ),
        ({"test/knn_top1": 1.0}, 150, 10, ""),
        ({"test/loss": 1.0}, 1, 10, ""),
    ],
)
def test_finish__says_that_images_are_few(
    metrics: dict[str, float], queries: int, classes: int, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer: Any = SimpleNamespace(is_global_zero=True, callback_metrics=metrics)
    module = SimpleNamespace(knn=SimpleNamespace(queries=queries) if queries else None)
    data = SimpleNamespace(held_out=[0] * 4, num_classes=classes)
    report.finish(trainer, module, data, None, tmp_path, True)
    said = capsys.readouterr().out
    assert ("few held-out images" in said) == bool(line)
    assert line in said
    assert line in (tmp_path / "test.md").read_text()


def test_markdown__names_are_shown_as_they_are() -> None:
    text = report.markdown(Report([("a|b", ["set", "*"], [["<b>", "1.0"]])], ["# x"]), "runs/`a`/last_.ckpt")
    assert text == (
        "runs/\\`a\\`/last\\_.ckpt\n\n**a\\|b**\n\n| set | \\* |\n|---|---:|\n| &lt;b&gt; | 1.0 |\n\n- \\# x\n"
    )
