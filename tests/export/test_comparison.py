"""Graphs compared with their network on held-out images: what they cost, and when they are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import tiny
from tests.export.judged import images
from tests.training.made import checkpoint, network
from tinymim.cli.main import main
from tinymim.errors import TinymimError
from tinymim.export import comparison, judge, source
from tinymim.export.comparison import Compared, Graph
from tinymim.export.model_card import ExportedForm
from tinymim.export.network_runs import torch_run
from tinymim.vit.classifier_head import HeadForm


def other(run: judge.Run) -> judge.Run:
    """A network whose features are at right angles to those of ``run``."""

    def turned(batch: Tensor) -> dict[str, Tensor]:
        output = run(batch)
        pairs = output["features"].unflatten(1, (-1, 2)).flip(-1) * torch.tensor([-1.0, 1.0])
        return {**output, "features": pairs.flatten(1)}

    return turned


def compared(
    folder: Path, change: Callable[[judge.Run], judge.Run], judged: judge.Judge, force: bool = False
) -> tuple[ExportedForm, str]:
    """The form of a graph that computes what ``change`` makes of its network, and what is said of it."""
    loaded = source.load(str(checkpoint(folder / "made.ckpt", network(tiny(24, 4), HeadForm(10)))))
    form = ExportedForm("none", "", [], {}, [])
    graph = Graph(lambda *_: form, "graph", lambda _: change(torch_run(loaded.backbone)))
    Compared(graph, judged, force).write(loaded, folder)
    return form, form.notes[-1]


@pytest.mark.parametrize(
    ("features", "figures", "says"),
    [
        (torch.eye(4), {"10-NN": 0.9}, []),
        (torch.eye(4), {"10-NN": 0.89}, []),
        (torch.eye(4), {"10-NN": 0.88}, ["10-NN 90.0 -> 88.0 %"]),
        (torch.eye(4) + 0.3, {"10-NN": 0.95}, ["mean cosine of the features 0.9"]),
        (torch.full((4, 4), torch.nan), {"10-NN": 0.0}, ["mean cosine of the features nan", "10-NN"]),
    ],
)
def test_losses__beyond_what_is_allowed(features: torch.Tensor, figures: dict[str, float], says: list[str]) -> None:
    errors = comparison.losses(judge.Reading(torch.eye(4), {"10-NN": 0.9}), judge.Reading(features, figures))
    assert len(errors) == len(says)
    assert all(error.startswith(start) for error, start in zip(errors, says, strict=True))


def test_compared__of_a_graph_that_gives_what_the_network_does(tmp_path: Path) -> None:
    form, note = compared(tmp_path, lambda run: run, images(count=120))
    assert note.startswith(
        "On 120 held-out images of digits, against the network: mean cosine of the features 1.0000, "
    )
    assert form.notes == [note]


@pytest.mark.parametrize(("count", "force"), [(40, True), (judge.LEAST - 1, False)])
def test_compared__keeps_what_is_forced_or_judged_on_few(tmp_path: Path, count: int, force: bool) -> None:
    _, note = compared(tmp_path, other, images(count=count), force)
    assert re.search(r"mean cosine of the features -?0\.0000", note)
    assert f"few held-out images: {count}" in note


def test_compared__that_loses_too_much_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        TinymimError, match=r"images: the graph loses too much on the 40 held-out images of digits: mean"
    ):
        compared(tmp_path, other, images(count=40))


def test_export__to_openvino_says_what_bfloat16_costs(tmp_path: Path, capsys: Any) -> None:
    made = checkpoint(tmp_path / "made.ckpt", network(tiny(24, 4), HeadForm(10)))
    words = ["export", str(made), "--to", "openvino", "--images", "digits", "--out", str(tmp_path / "out")]
    assert main(words) == 0, capsys.readouterr().err
    (note,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("On 360 held-out images")]
    assert note in (tmp_path / "out" / "README.md").read_text()
