"""``tinymim study``: every row of a study over seeds, cell by cell, and a table for each question.

RUN/cells/ROW/seedN/       cell.json (definition, state, figures), log.txt, and the run folders of its fits
RUN/prepare/NAME/          fits that rows need first
RUN/study.md, study.json   everything, written anew after each finished cell
RUN/tables/                QUESTION.md, QUESTION.csv and QUESTION_convergence.csv, likewise
RUN/index.html, curves/    the page with the curves, once all cells have run

A study is resumed by the same command: finished cells are kept, and one that was cut off goes on from its last
checkpoint. A cell made under another definition is never mixed in.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tinymim.config import recipe, spec
from tinymim.errors import TinymimError, several
from tinymim.experiments import cells, study_grid, study_page, workers
from tinymim.experiments.study_grid import Study
from tinymim.experiments.tables import Records
from tinymim.experiments.tally import Tally
from tinymim.experiments.workers import Task
from tinymim.files import write_json
from tinymim.log import say
from tinymim.training import lock, run_folder

FURTHER = "Further options are overrides of every pre-training, such as --trainer.max_epochs 5."


def parser() -> argparse.ArgumentParser:
    """The options of ``tinymim study``; others are overrides of every pre-training recipe."""
    options = argparse.ArgumentParser(
        prog="tinymim study", description=__doc__.partition("\n")[0], allow_abbrev=False,
        epilog=f"{FURTHER}\n\n{study_grid.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    options.add_argument("name", help="a study of recipes/studies, or a path")
    options.add_argument("--quick", action="store_true", help="the study's short form, in a folder of its own")
    options.add_argument("--seeds", type=_numbers, help="such as 0,1,2, in place of the study's")
    options.add_argument("--rows", type=_words, help="run these rows alone, of those that are asked for")
    options.add_argument("--questions", type=_words, help="run the rows of these questions alone")
    options.add_argument("--jobs", type=int, help="cells at once, sharing the cores; by default as many as cores")
    options.add_argument("--run_dir", type=Path, help="by default runs/study_NAME, or runs/study_NAME_quick")
    options.add_argument("--overwrite", action="store_true", help="run cells again whose definition has changed")
    return options


def read(arguments: list[str]) -> tuple[argparse.Namespace, Study, Path]:
    """What a command line means: its options, the study, and the study's folder.

    Raises:
        TinymimError: mistakes in the study or the command line.
    """
    options, rest = parser().parse_known_args(arguments)
    overrides, unknown = recipe.split(rest)
    if unknown:
        raise TinymimError(f"no option of a study: {' '.join(unknown)}; tinymim study --help lists them")
    study = study_grid.load(options.name, options.quick, [f"--{key}={value}" for key, value in overrides])
    if options.seeds:
        if found := spec.seed_mistakes(options.seeds, "--seeds"):
            raise TinymimError(found[0])
        study.seeds = options.seeds
    place = options.run_dir or Path("runs") / f"study_{study.name}{'_quick' if options.quick else ''}"
    study.settle(found["definition"] for found in map(workers.read, _begun(place)) if found)
    return options, study, place


def _begun(place: Path) -> list[Path]:
    return sorted(path.parent for path in place.glob(f"*/**/{workers.RECORD}"))


def run(arguments: list[str]) -> None:
    """Run a study, or go on with it where it was left.

    Raises:
        TinymimError: mistakes in the study, cells of another definition, an interruption, or failed cells at the end.
    """
    options, study, place = read(arguments)
    chosen = _chosen(study, options.rows or [], options.questions or [])
    if found := study.problems(chosen):
        raise several(f"study {study.name} has {len(found)} mistake(s)", found)
    jobs = options.jobs if options.jobs is not None else workers.cores()
    if jobs < 1:
        raise TinymimError(f"--jobs: {jobs} is not 1 or more")
    with lock.hold(place, "run_dir"):
        tasks = _tasks(study, chosen, place, options.overwrite)
        _run(study, tasks, place, jobs)
    print(f"\nthe page: {place / 'index.html'}\nthe tables and all runs: {place}")


def _run(study: Study, tasks: list[Task], place: Path, jobs: int) -> None:
    """Run the tasks, keep the tables up to date, and tell how it went."""
    found = records(study, place)

    def figures(task: Task, record: dict[str, Any]) -> str:
        shown = record.get("figures", {}).items()
        return ", ".join(f"{title} {study.figures[title].shown([value])}" for title, value in shown)

    tally = Tally(tasks, figures)

    def finished(task: Task, record: dict[str, Any]) -> None:
        if task.place.parent.parent == place / "cells":
            found[task.place.parent.name][task.seed] = record
        tally.finished(task, record)
        write(study, found, place)

    write(study, found, place)
    say(f"study {study.name}: {len(tasks)} cell(s) to run, {jobs} at once, in {place}")
    try:
        workers.run(tasks, jobs, max(workers.cores() // jobs, 1), finished)
    except KeyboardInterrupt:
        done = f"{tally.done} of {len(tasks)} cell(s) are done"
        raise TinymimError(f"interrupted; {done}, the same command goes on") from None
    print((place / "study.md").read_text())
    study_page.document(study, found, place).write(place / "index.html")
    if failures := tally.failures:
        heading = (
            f"study {study.name}: {len(failures)} of {len(tasks)} cell(s) failed; the same command tries them again"
        )
        raise several(heading, failures)


def write(study: Study, records: Records, place: Path) -> None:
    """Write every table of a study, each file whole or not at all."""
    study_page.document(study, records, place, draw=False).write(place / "study.md")
    kept = ("seed", "status", "figures", "parameters", "seconds", "cpu_seconds", "error")
    cells = [
        {"row": row, **{key: record[key] for key in kept if key in record}}
        for row, by_seed in records.items()
        for _, record in sorted(by_seed.items())
    ]
    write_json(place / "study.json", {"environment": run_folder.environment(), "cells": cells})


def _tasks(study: Study, rows: list[str], place: Path, overwrite: bool) -> list[Task]:
    """The cells that are not done, one seed after the other, behind the fits they need.

    Raises:
        TinymimError: cells that are there were made under another definition, and ``overwrite`` was not given.
    """
    tasks = []
    wanted = [(need, 0, place / "prepare" / need) for need in study.needed(rows)]
    wanted += [(row, seed, _cell(place, row, seed)) for seed in study.seeds for row in rows]
    for row, seed, where in wanted:
        is_row, own = row in study.rows, study.row(row)
        required = [place / "prepare" / need for need in own.needs]
        name, figures = (f"{own.title}, seed {seed}", study.figures) if is_row else (own.title, {})
        stages = study.stages(row, place, where)
        tasks.append(Task(name, where, stages, seed, study.definition(row), required, figures))
    return workers.pending(tasks, place, overwrite)


def records(study: Study, place: Path) -> Records:
    """The records in a study's folder that its definition would make today, whichever seeds they are of; their figures
    are read from the runs anew, so that a study may name others later.

    Raises:
        TinymimError: a stage of a finished cell has no such metric.
    """
    found: Records = {row: {} for row in study.rows}
    for row in study.rows:
        for where in (place / "cells" / row).glob("seed*"):
            record = workers.read(where)
            if record and record["definition"] == study.definition(row):
                if record["status"] == "done":
                    record["figures"] = cells.measured(
                        cells.results(study.stages(row, place, where), where), study.figures
                    )
                found[row][record["seed"]] = record
    return found


def _cell(place: Path, row: str, seed: int) -> Path:
    return place / "cells" / row / f"seed{seed}"


def _chosen(study: Study, rows: list[str], questions: list[str]) -> list[str]:
    """The rows to run, each once.

    Raises:
        TinymimError: an unknown row or question.
    """
    for option, asked, known in (("rows", rows, study.rows), ("questions", questions, study.questions)):
        if wrong := [word for word in asked if word not in known]:
            raise TinymimError(f"--{option}: no {', '.join(wrong)} in study {study.name}; there are {', '.join(known)}")
    asked = [row for question in questions for row in study.questions[question].rows] or list(study.rows)
    chosen = [row for row in dict.fromkeys(asked) if row in rows or not rows]
    if not chosen:
        raise TinymimError(f"--rows: none of {', '.join(rows)} is of the questions {', '.join(questions)}")
    return chosen


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.strip("[]").split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers, such as 0,1,2") from None
