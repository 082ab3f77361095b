"""``tinymim search``: settings of their own for the rows of what is compared: a recipe's, a study's or a chain's."""

from __future__ import annotations

import argparse
from pathlib import Path

from tinymim.cli import plan_options
from tinymim.cli.plan_command_options import search as parser
from tinymim.errors import TinymimError, counted, several
from tinymim.experiments import search_source, settings
from tinymim.experiments.resume import opened
from tinymim.experiments.runner import Runner
from tinymim.experiments.search import Search
from tinymim.files import check_file, write_json
from tinymim.log import say
from tinymim.training import run_record


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse a command line: its options, and overrides."""
    return plan_options.overrides(parser(), arguments, "search")


def main(arguments: list[str]) -> int:
    """Search the settings of rows, write them, and say where; the exit code.

    Raises:
        TinymimError: unknown rows, mistakes in a recipe, or a row none of whose fits went through.
    """
    options = parser()
    args, overrides = parse(arguments)
    plan_options.check_seeds(overrides, "the file's `search` names them, from which every combination is tried")
    compared, chosen = search_source.read(args.name, args.quick, overrides)
    whole = Search(compared, args.rows)
    whole.plan.command = plan_options.again(options, args, overrides)
    command, name = f"tinymim search {args.name}{' --quick' if args.quick else ''}", whole.plan.name
    place = args.run_dir or Path("runs") / f"search_{name}{'_quick' if args.quick else ''}"
    check_file("settings", settings.place(chosen))
    keys = list(whole.plan.fits)
    with opened(place, whole.plan, args.launch, args.accept_changes, keys, whole.tried) as state:
        left = sum(state.entries[key].state != "done" for key in keys)
        runner = Runner(state, keys, args.jobs, describe=lambda key: whole.describe(state, key), quiet=True)
        say(
            f"search of {counted(len(whole.rows), 'row')}: {left} of {counted(len(keys), 'fit')} to run, "
            f"{runner.jobs} at once, in {place}"
        )
        failed: list[str] = []
        try:
            if code := runner.run():
                return code
        except TinymimError:
            failed = [f"{key}: {state.entries[key].error}" for key in keys if state.entries[key].state == "failed"]
            if not failed:
                raise
        scores = whole.scores(state)
        write_json(place / "search.json", {"environment": run_record.environment(), "rows": scores})
        without = [
            f"{row}, {role}: no fit went through" for row in scores for role in scores[row] if not scores[row][role]
        ]
        if without:
            raise several(f"{name}: the search is not whole", [*without, *failed[:6]])
        path = whole.write(chosen, command, scores)
    print(f"\nthe settings: {path}\nall fits: {place}")
    return 0
