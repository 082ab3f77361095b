"""A search of settings for the rows of a comparison, each its own, on a part of the training images.

search
  share   of the training images that every fit of the search leaves out, its pre-training too, and that settings are
          judged on; 0.2 by default. No held-out image is read
  seeds   list; each combination is fitted once for each; [0] by default
  grid    STAGE: ``{dotted.key: [values]}``: all combinations of the values, the same ones for every row
  by      STAGE: title of the figure that decides; by default the stage's last. Of equals, the lower loss

RUN/cells/ROW/pretrain, RUN/cells/ROW/STAGE/COMBINATION/seedN     the fits; finished ones are kept by the same command
RUN/search.json                                                  what each combination came to
"""

from __future__ import annotations

import itertools
import re
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinymim.config.spec import near, texts
from tinymim.errors import TinymimError, several
from tinymim.experiments import cells, settings, workers
from tinymim.experiments.cells import PRETRAIN, Figure, Stage
from tinymim.experiments.settings import Settings, shown
from tinymim.experiments.study_grid import Study
from tinymim.experiments.tally import Tally
from tinymim.experiments.workers import Task
from tinymim.files import write_json
from tinymim.log import say
from tinymim.training import run_folder

BRIEF = {
    "trainer.enable_checkpointing": False,
    "trainer.num_sanity_val_steps": 0,
    "trainer.check_val_every_n_epoch": 100_000,  # at the end alone
    "trainer.logger": False,
}
"""Of every fit that is tried: nobody reads anything but its last figure."""

Point = dict[str, Any]
"""A combination: values by dotted key."""

DEFAULT_SHARE = 0.2


def share_of(search: dict[str, Any]) -> float:
    """The share of the training images that settings are judged on."""
    return search.get("share", DEFAULT_SHARE)


def points(tried: dict[str, list[Any]]) -> list[Point]:
    """All combinations of the values."""
    return [dict(zip(tried, values, strict=True)) for values in itertools.product(*tried.values())]


def run(study: Study, name: str, rows: list[str], command: str, place: Path, jobs: int, overwrite: bool) -> Path:
    """Search the settings of rows, and write them.

    Args:
        study: parsed for a search, with every fit's ``data.choice_split``.
        name: of the file of settings.
        rows: ids; none is all.
        command: that searches all of them, for the file.
        place: of the search's own runs.
        jobs: fits at once.
        overwrite: run fits again whose definition has changed.

    Returns:
        The file of settings.

    Raises:
        TinymimError: unknown rows, mistakes in a recipe, an interruption, or a row none of whose fits went through.
    """
    if wrong := [row for row in rows if row not in study.rows]:
        raise TinymimError(f"no row {wrong[0]!r} in {study.name}{near(wrong[0], study.rows)}")
    chosen = rows or list(study.rows)
    found = study.problems(chosen) + _unknown(study, chosen)
    if found:
        raise several(f"{study.name} has {len(found)} mistake(s)", found)
    begun = sorted(path.parent for path in place.glob(f"*/**/{workers.RECORD}"))
    study.settle(record["definition"] for record in map(workers.read, begun) if record)
    tasks = _tasks(study, chosen, place)
    waiting = workers.pending(tasks, place, overwrite)

    def figure(task: Task, record: dict[str, Any]) -> str:
        return ", ".join(f"{title} {task.figures[title].shown([v])}" for title, v in record.get("figures", {}).items())

    tally = Tally(waiting, figure)
    say(f"search of {len(chosen)} row(s): {len(waiting)} of {len(tasks)} fits to run, {jobs} at once, in {place}")
    try:
        workers.run(waiting, jobs, max(workers.cores() // jobs, 1), tally.finished)
    except KeyboardInterrupt:
        done = f"{tally.done} of {len(waiting)} fits are done"
        raise TinymimError(f"interrupted; {done}, the same command goes on") from None
    scores = {row: {stage: _scores(study, row, stage, place) for stage in study.search["grid"]} for row in chosen}
    write_json(place / "search.json", {"environment": run_folder.environment(), "rows": scores})
    without = [
        f"{row}, {stage}: no fit went through" for row in scores for stage, tried in scores[row].items() if not tried
    ]
    if without:
        raise several(f"{study.name}: the search is not whole", [*without, *tally.failures[:6]])
    return _write(study, name, command, scores)


def _unknown(study: Study, rows: list[str]) -> list[str]:
    """Options in the grid that the stages' recipes do not have."""
    found = []
    for stage, tried in study.search["grid"].items():
        for row in rows:
            fit = next(one for one in study.stages(row, Path(), Path("cell")) if one.name == stage)
            tested = replace(fit, overrides=(*fit.overrides, *texts(points(tried)[-1])))
            found += [f"search.grid.{stage}: {mistake}" for mistake in study.mistakes(row, tested)]
    return list(dict.fromkeys(found))


def _tasks(study: Study, rows: list[str], place: Path) -> list[Task]:
    """All fits: what rows need, their pre-trainings, and each combination in each stage from each seed."""
    tasks = [
        Task(
            study.row(need).title,
            where,
            study.stages(need, place, where),
            0,
            study.definition(need),
            _needs(study, need, place),
        )
        for need in study.needed(rows)
        for where in [place / "prepare" / need]
    ]
    later = []
    for row in rows:
        cell, own = place / "cells" / row, study.row(row)
        needs = _needs(study, row, place)
        fits = {stage.name: stage for stage in study.stages(row, place, cell)}
        whole = study.definition(row)
        before = {key: value for key, value in whole.items() if key == PRETRAIN or key.startswith("prepare.")}
        if PRETRAIN in fits:
            stage = replace(fits[PRETRAIN], name="")
            tasks.append(Task(f"{own.title}, {PRETRAIN}", cell / PRETRAIN, [stage], 0, before, needs))
            needs = [*needs, cell / PRETRAIN]
        for name, tried in study.search["grid"].items():
            for point in points(tried):
                overrides = (*fits[name].overrides, *texts({**BRIEF, **point}))
                stage = Stage("", fits[name].recipe, overrides)
                definition = {**before, name: whole[name], "tried": point}
                for seed in study.search.get("seeds", [0]):
                    title = f"{own.title}, {name}, {shown(point)}, seed {seed}"
                    where = cell / name / _folder(point) / f"seed{seed}"
                    figures = dict([_figure(study, name)])
                    later.append(Task(title, where, [stage], seed, definition, needs, {
                        title: replace(figure, stage="") for title, figure in figures.items()
                    }))  # fmt: skip
    return [*tasks, *later]


def _needs(study: Study, row: str, place: Path) -> list[Path]:
    return [place / "prepare" / need for need in study.row(row).needs]


def _folder(point: Point) -> str:
    return re.sub(r"[^\w.+-]+", "_", "_".join(f"{key.rpartition('.')[2]}{value}" for key, value in point.items()))


def _figure(study: Study, stage: str) -> tuple[str, Figure]:
    """The figure that decides in a stage."""
    title = (study.search.get("by") or {}).get(stage)
    own = {name: figure for name, figure in study.figures.items() if figure.stage == stage}
    title = title or list(own)[-1]
    return title, own[title]


def _scores(study: Study, row: str, stage: str, place: Path) -> list[dict[str, Any]]:
    """What each combination came to, best first; those with a failed fit are left out."""
    title, figure = _figure(study, stage)
    scores = []
    for point in points(study.search["grid"][stage]):
        where = place / "cells" / row / stage / _folder(point)
        records = [workers.read(where / f"seed{seed}") for seed in study.search.get("seeds", [0])]
        if any(record is None or record["status"] != "done" for record in records):
            continue
        values = [record["figures"][title] for record in records if record]
        fit = Stage("", "")
        losses = [
            cells.results([fit], where / f"seed{seed}")[""]["metrics"].get("val/loss", 0.0)
            for seed in study.search.get("seeds", [0])
        ]
        scores.append({"set": point, title: statistics.mean(values), "val/loss": statistics.mean(losses)})
    return sorted(scores, key=lambda score: (-figure.sign * score[title], score["val/loss"]))


def _write(study: Study, name: str, command: str, scores: dict[str, dict[str, list[dict[str, Any]]]]) -> Path:
    """Lay the best of each row over the file, where that is of the same search."""
    path, how = settings.place(name), _how(study)
    before = settings.load(str(path)) if path.is_file() else Settings()
    rows = before.rows if before.how == how else {}
    if gone := [row for row in before.rows if row not in rows and row not in {study.rows[r].known for r in scores}]:
        say(f"{path}: {', '.join(gone)} had settings of another search, which is no fair comparison: they are left out")
    for row, stages in scores.items():
        best = {stage: tried[0]["set"] for stage, tried in stages.items()}
        rows[study.rows[row].known] = best
        for stage, tried in stages.items():
            title, figure = _figure(study, stage)
            told = ", ".join(f"{shown(one['set'])}: {figure.shown([one[title]])}" for one in tried)
            say(f"{study.rows[row].title}, {stage}: {told}")
    settings.write(path, Settings(str(path), command, how, rows))
    return path


def _how(study: Study) -> str:
    """The budget, in words."""
    search = study.search
    parts = []
    for stage, tried in search["grid"].items():
        values = "; ".join(f"{key.rpartition('.')[2]} {', '.join(map(str, own))}" for key, own in tried.items())
        parts.append(f"{stage} {len(points(tried))} ({values})")
    seeds = search.get("seeds", [0])
    share = share_of(search)
    return (
        f"the best of the same combinations for every row, {', '.join(parts)}, {len(seeds)} seed(s) each and as many "
        f"epochs for every row, fitted on {1 - share:.0%} of the training images and judged on the other {share:.0%}."
    )
