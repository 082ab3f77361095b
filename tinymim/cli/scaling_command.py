"""``tinymim scaling STUDY``: run the cells of a scaling study, or go on with them, and say what they show.

RUN/chain.json, recipes/, seedN/, logs/   the cells, as a chain (see ``tinymim/experiments/state.py``)
RUN/runs.csv                              a row for each run, written anew after each
RUN/report/                               figures, tables and the page
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.table import Table

from tinymim import files
from tinymim.cli import plan_options
from tinymim.cli.plan_command_options import scaling as parser
from tinymim.errors import TinymimError, counted, mistaken
from tinymim.experiments import grid, grid_runs
from tinymim.experiments.grid import Grid
from tinymim.experiments.resume import opened
from tinymim.experiments.runner import Runner
from tinymim.experiments.state import State, holds
from tinymim.log import say
from tinymim.report.document import Section
from tinymim.safety.console import PlainConsole
from tinymim.scaling import reconstruction_figure, table
from tinymim.scaling.table import RunRow
from tinymim.system import INTERRUPTED

REPORT = "report"


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit code: as a chain's."""
    options, args = parser(), parse(arguments)
    if (args.study is None) == (args.table is None):
        raise TinymimError("name a study of recipes/scaling, or give --table FILE.csv; one of the two")
    if args.out and args.out.is_file():
        raise TinymimError(f"out: {args.out} is a file; give a folder")
    if args.out:
        files.check_writable("out", args.out, inside=True)
    if args.table:
        of_study = ("quick", "jobs", "run_dir", "report_only", "set", "seeds", "launch", "accept_changes")
        if useless := [name for name in of_study if getattr(args, name) != options.get_default(name)]:
            option = useless[0].replace("_", "-")
            raise TinymimError(f"--table only analyses a finished table: --{option} has no effect; leave it out")
        out = args.out or Path("runs") / f"scaling_{args.table.stem}"
        report(table.read(args.table), out, f"Scaling: {args.table.name}")
        return 0
    study = load(args)
    study.plan.command = plan_options.again(options, args)
    place = args.run_dir or Path("runs") / f"scaling_{study.name}{'_quick' if args.quick else ''}"
    if not holds(place) and (errors := grid.too_small(study)):
        raise mistaken(f"scaling study {study.name}", errors)
    with opened(place, study.plan, args.launch, args.accept_changes) as state:
        code, failed = 0, None
        if not args.report_only:
            code, failed = _run(study, state, args.jobs)
        if code not in INTERRUPTED:
            rows, out = _rows(study, state), args.out or place / REPORT
            about = [Section("This study", [study.about])] if study.about else []
            with _writing(out):
                sections = [*about, *restored(study, state, rows, out, args.trust)]
            report(rows, out, f"Scaling: {study.name}", sections)
        if failed:
            raise failed
    return code


def load(args: argparse.Namespace) -> Grid:
    """The study that a command line asks for."""
    seeds = [f"seeds={plan_options.seeds(args.seeds)}"] if args.seeds else []
    return grid.load(args.study, args.quick, [*args.set, *seeds])


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse a command line."""
    options = parser()
    return options.parse_args(plan_options.hyphened(options, arguments))


def _run(study: Grid, state: State, jobs: int | None) -> tuple[int, TinymimError | None]:
    """Run what is left; the exit code, and what went wrong."""
    places = grid_runs.keys(study, state)
    left = sum(entry.state != "done" for entry in state.entries.values())
    say(f"scaling study {study.name}: {left} of {counted(len(state.entries), 'run')} left, in {state.place}")

    def describe(key: str) -> str:
        by_key = {places[grid_runs.identity(row)]: row for row in grid_runs.rows(study, state)}
        row = by_key.get(key.removesuffix(grid.TUNED))
        return grid_runs.describe(row) if row else state.entries[key].state

    try:
        return Runner(state, None, jobs, lambda _: _rows(study, state), describe, quiet=True).run(), None
    except TinymimError as error:
        if not any(entry.state == "failed" for entry in state.entries.values()):
            raise
        return error.code, error


def _rows(study: Grid, state: State) -> list[RunRow]:
    """The rows so far, which are written into the study's folder."""
    rows = grid_runs.rows(study, state)
    table.write(state.place / grid_runs.NAME, rows)
    return rows


def restored(study: Grid, state: State, rows: list[RunRow], out: Path, trust: bool = False) -> list[Section]:
    """Reconstructions of an overfitted model and a well-fitted one, side by side, for a page in ``out``; none where the
    ``rows`` have not both. With ``trust`` the runs may be of any class."""
    chosen = grid_runs.chosen(study, state, rows)
    try:
        return [reconstruction_figure.section(chosen, out, trust=trust)] if chosen else []
    except TinymimError as error:
        say(str(error))
        return []


def report(rows: list[RunRow], out: Path, title: str, extra_sections: Iterable[Section] = ()) -> None:
    """Write the page of some runs with its figures and tables into ``out``, and print the runs."""
    from tinymim.scaling import scaling_page

    show(rows)
    with _writing(out):
        page = scaling_page.write(rows, out, title, extra_sections)
    print(f"\nthe page: {page}")


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Name the reason in a line where a report cannot be written, such as a full disk; a folder that was not there
    before is none afterwards."""
    made = not out.exists()
    try:
        yield
    except OSError as error:
        if made:
            shutil.rmtree(out, ignore_errors=True)
        raise TinymimError(f"out: {out} cannot be written ({files.unwritten(error) or error})") from None


def show(rows: list[RunRow], console: PlainConsole | None = None) -> None:
    """Print the runs as a table."""
    shown = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for head in ("objective", "model", "data", "seed"):
        shown.add_column(head)
    for head in ("steps", "held-out", "±", "training", "top-1", "FLOPs"):
        shown.add_column(head, justify="right")
    for row in rows:
        seed = "-" if row.seed is None else str(row.seed)
        figures = (
            f"{row.validation_loss:.4f}" if row.status == "done" else "failed",
            "-" if row.noise is None else f"{row.noise:.4f}",
            "-" if row.training_loss is None else f"{row.training_loss:.4f}",
            "-" if row.accuracy is None else f"{row.accuracy:.1%}",
            "-" if row.flops is None else f"{row.flops:.1e}",
        )
        shown.add_row(row.objective, row.model, row.data, seed, f"{row.iterations:,}", *figures)
    (console or PlainConsole()).print(shown)
