"""What reads each kind of file, from the working folder: the command itself, or where that would draw or train for
seconds, the part of it that reads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tinymim.analysis import networks
from tinymim.cli import (
    cache_command,
    chain_command,
    distill_command,
    papers_command,
    plan_command,
    predict_command,
    replay_command,
    study_command,
    teachers_command,
)
from tinymim.data import tar_index
from tinymim.errors import TinymimError
from tinymim.experiments import compare, plan_check, settings, study
from tinymim.export import source
from tinymim.export.export_forms import export_file as one_file
from tinymim.export.model_card import ExportedForm, model_card
from tinymim.report import completions, run_report, runs
from tinymim.scaling import table
from tinymim.training import fit

Commands = dict[str, Callable[[], Any]]

CHECKPOINT_OF_RUN = "runs/small/checkpoints/last.ckpt"


def _reading(name: str) -> Commands:
    return {
        "teachers show": lambda: teachers_command.main(["show", name]),
        "teachers verify": lambda: teachers_command.main(["verify", name]),
        "export": lambda: one_file(name, Path("out.safetensors"), overwrite=True),
        "predict": lambda: predict_command.main(
            [name, "--images", "images", "--out", "out.npz", "--overwrite", "--num_workers", "0", "--device", "cpu"]
        ),
        "analyze": lambda: [subject.as_dict() for subject in networks.load([name], 0)],
    }


def _reported(count: int) -> None:
    run = runs.read(Path("runs/small"))
    run_report.render(run, runs.beside(run), run_report.seen(run, None, count))


def _carded() -> None:
    loaded = source.load(CHECKPOINT_OF_RUN)
    model_card(loaded, ExportedForm("timm", "print()", [], {"features": 0.0}, ["timm"]))


def _indexed() -> None:
    """With the index that lies in the working folder in the place of the shard's own."""
    kept = Path("indexes")
    kept.mkdir(exist_ok=True)
    tar_index.index(Path("shard.tar"), "label", kept)
    (own,) = kept.glob("*.npz")
    Path("index.npz").rename(own)
    found = tar_index.index(Path("shard.tar"), "label", kept)
    assert found.offset.tolist() == [512], "an index that is none of ours was taken"


def _compared() -> None:
    compared = compare.read("relation_digits", ["--compare.settings=settings.yaml"])
    assert compared
    plan_check.problems(compared.plan, plan_check.check(compared.plan))


WEIGHTS = _reading("t.safetensors")
CHECKPOINT = _reading("t.ckpt")
CARD = {
    "teachers list": lambda: teachers_command.main([]),
    "teachers fetch": lambda: teachers_command.main(["fetch", "small"]),
    "teachers save": lambda: teachers_command.main(["save", "runs/small/checkpoints/last.ckpt", "small"]),
    **_reading("small"),
}
CONFIG = _reading("theirs/model.safetensors")
CAPTURE: Commands = {"replay": lambda: replay_command.main(["step_1.pt"])}
RUN: Commands = {
    "analyze": lambda: [subject.as_dict() for subject in networks.load([CHECKPOINT_OF_RUN], 0)],
    "report": lambda: _reported(1),
    "scaling": lambda: completions.load("small", Path("runs/small")),
    "export --to": _carded,
}
RESULTS: Commands = {"report": lambda: _reported(0), "export --to": _carded}
CHAIN: Commands = {"chain plan": lambda: chain_command.main(["plan", "chain.yaml"])}
STUDY: Commands = {"study": lambda: study.load("study.yaml")}
INDEX: Commands = {"a fit of shards": _indexed}
SETTINGS: Commands = {"distill": _compared, "search": lambda: settings.load("settings.yaml")}
STATE: Commands = {
    "status": lambda: plan_command.status(["plan"]),
    "chain resume": lambda: _until_it_begins(chain_command.main, ["resume", "plan"])(),
}
PARTS: Commands = {
    "papers --report-only": lambda: papers_command.main(["parts.yaml", "--run-dir", "papers", "--report-only"])
}
CACHE: Commands = {"cache list": lambda: cache_command.main(["list", "--dir", "cache"])}
TABLE: Commands = {"scaling --table": lambda: table.read(Path("table.csv"))}


class Begins(TinymimError):  # noqa: N818
    """In place of the first fit, which would take seconds."""


BEGINNINGS = ("training.fit.readable_errors", "experiments.runner.Runner.run")
"""Where each command comes to it; the test has them raise :class:`Begins`."""


def begins(*_: Any, **__: Any) -> None:
    """See :class:`Begins`."""
    raise Begins


def _until_it_begins(command: Callable[[list[str]], Any], arguments: list[str]) -> Callable[[], Any]:
    def run() -> None:
        with suppress(Begins):
            command(arguments)

    return run


OWN_RECIPE: Commands = {
    "check": _until_it_begins(lambda rest: fit.run("fit", rest, checking=True), ["--config", "own.yaml"]),
}
OWN_COMPARISON: Commands = {"distill": _until_it_begins(distill_command.main, ["compared.yaml"])}
OWN_STUDY: Commands = {"study": _until_it_begins(study_command.main, ["own_study.yaml"])}
OWN_PROGRAM: Commands = {"papers": _until_it_begins(papers_command.main, ["program.yaml"])}

RECIPES = ("stages.0.recipe", "stages.1.recipe", "stages.1.weights", "stages.0.weights")
