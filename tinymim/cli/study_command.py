"""``tinymim study``: every row of a study over seeds, and a table for each question.

A study is resumed by the same command: finished fits are kept, and one that was cut off goes on from its last
checkpoint. A fit made under another definition is never mixed in.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tinymim import extras
from tinymim.cli import plan_options
from tinymim.cli.plan_command_options import study as parser
from tinymim.errors import TinymimError, counted
from tinymim.experiments import pages, report, study
from tinymim.experiments.resume import opened
from tinymim.experiments.runner import Runner
from tinymim.experiments.state import State
from tinymim.experiments.study import Study
from tinymim.log import say
from tinymim.near_names import strangers
from tinymim.system import INTERRUPTED


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse a command line: its options, and overrides."""
    return plan_options.overrides(parser(), arguments, "study")


def read(arguments: list[str]) -> tuple[argparse.Namespace, Study, Path]:
    """Read a command line: its options, the study, and the study's folder.

    Raises:
        TinymimError: mistakes in the study or the command line.
    """
    options = parser()
    args, overrides = parse(arguments)
    plan_options.check_seeds(overrides)
    seeds = plan_options.seeds(args.seeds) if args.seeds else None
    loaded = study.load(args.name, args.quick, overrides, seeds)
    place = args.run_dir or Path("runs") / f"study_{loaded.plan.name}{'_quick' if args.quick else ''}"
    loaded.plan.command = plan_options.again(options, args, overrides)
    return args, loaded, place


def main(arguments: list[str]) -> int:
    """Run a study, or go on with it where it was left; the exit code.

    Raises:
        TinymimError: mistakes in the study, changes that are not accepted, or failed fits at the end.
    """
    args, loaded, place = read(arguments)
    rows = chosen(loaded, args.rows, args.questions)
    keys = loaded.keys(rows)
    for line in extras.missing("curves need", "matplotlib"):
        say(line)
    with opened(place, loaded.plan, args.launch, args.accept_changes, keys) as state:
        code = _run(loaded, state, [] if args.report_only else keys, args.jobs)
    if code == 0:
        print(f"\nthe page: {place / pages.PAGE}\nthe tables and all runs: {place}")
    return code


def _run(loaded: Study, state: State, keys: list[str], jobs: int | None) -> int:
    """Run the fits, keep the tables up to date, and tell how it went."""
    wanted = state.plan.with_sources(keys)
    cells = {key: cell for cell in loaded.cells.values() for key in cell}
    for key in wanted - cells.keys():
        cells[key] = [key]
    left = {tuple(cells[key]) for key in wanted if state.entries[key].state != "done"}

    def ended(key: str) -> None:
        if all(state.entries[other].state in ("done", "failed") for other in cells[key]):
            write()

    def write() -> str:
        return pages.write_study(loaded, state, report.records(state, loaded.compared, loaded.plan))

    runner = Runner(state, wanted, jobs, ended, lambda key: report.describe(state, loaded.compared, key), quiet=True)
    say(f"study {loaded.plan.name}: {counted(len(left), 'cell')} to run, {runner.jobs} at once, in {state.place}")
    write()
    code = 1  # of an error
    try:
        code = runner.run()
    finally:
        written = write()
        if code not in INTERRUPTED:
            print(written)
            records = report.records(state, loaded.compared, loaded.plan)
            pages.study(loaded, state, records).write(state.place / pages.PAGE)
    return code


def chosen(loaded: Study, rows: list[str], questions: list[str]) -> list[str]:
    """The rows to run, each once.

    Raises:
        TinymimError: an unknown row or question.
    """
    compared = loaded.compared
    for option, wanted, known in (("rows", rows, compared.rows), ("questions", questions, compared.questions)):
        if wrong := [word for word in wanted if word not in known]:
            raise TinymimError(f"--{option}: study {loaded.plan.name} has no {strangers(wrong, known)}")
    wanted = [row for question in questions for row in compared.questions[question].rows] or list(compared.rows)
    chosen = [row for row in dict.fromkeys(wanted) if row in rows or not rows]
    if not chosen:
        raise TinymimError(f"--rows: none of {', '.join(rows)} is of the questions {', '.join(questions)}")
    return chosen
