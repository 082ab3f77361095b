"""``tinymim distill``: a recipe's student and the same student from scratch, probed and fine-tuned, in one table.

The same command goes on where it was cut off: finished fits are kept.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from tinymim.cli import plan_options
from tinymim.cli.plan_command_options import distill as parser
from tinymim.cli.plan_command_options import read_distill
from tinymim.errors import TinymimError, counted
from tinymim.experiments import compare, pages, report
from tinymim.experiments.compare import STUDENT
from tinymim.experiments.plan import CHECKPOINT
from tinymim.experiments.questions import PRETRAIN
from tinymim.experiments.resume import opened
from tinymim.experiments.runner import Runner
from tinymim.experiments.state import OTHERS
from tinymim.log import say
from tinymim.training import lock, run_folder


def next_steps(run: Path) -> list[str]:
    """Commands that show a run, and take its student elsewhere."""
    return [
        f"tinymim report {run}   # curves, figures and attention on a page",
        f"tinymim export {run / CHECKPOINT} --to timm   # to use it without tinymim",
    ]


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse a command line: its options, and overrides."""
    return read_distill(arguments)


def main(arguments: list[str]) -> int:
    """Fit a recipe, then what its ``compare`` names, and print the table; the exit code.

    Raises:
        TinymimError: a recipe without ``compare``, mistakes in it or the command line, changes that are not accepted,
            or failed fits.
    """
    options = parser()
    args, overrides = parse(arguments)
    plan_options.check_seeds(overrides, "--seeds 3 is a number of them, --seeds 0,4 lists them")
    compared = compare.read(
        args.recipe, overrides, lambda first: plan_options.seeds(args.seeds, first) if args.seeds else [first]
    )
    if compared is None:
        raise compare.uncompared(args.recipe)
    if "--print_config" in overrides:
        raise TinymimError(f"--print_config: of one recipe, as in: tinymim fit {args.recipe} --print_config")
    place = args.run_dir or Path("runs") / f"distill_{compared.plan.name}"
    keys = [key for keys in compared.cells.values() for key in keys]
    if args.overwrite == "true":
        run_folder.goes_on(place, args.ckpt_path, overwrite=True)
        with lock.hold(place, "run_dir"):
            for folder in {place / key.split("/")[0] for key in keys}:
                shutil.rmtree(folder, ignore_errors=True)
            (place / OTHERS).unlink(missing_ok=True)
    compared.plan.command = plan_options.again(options, args, overrides)
    with opened(place, compared.plan, args.launch, args.accept_changes, keys) as state:
        left = sum(state.entries[key].state != "done" for key in keys)
        runner = Runner(
            state, keys, args.jobs, describe=lambda key: report.describe(state, compared.compared, key), quiet=True
        )
        say(f"{counted(left, 'fit')}, {runner.jobs} at once, in {place}")
        if code := runner.run():
            return code
        table = pages.comparison(compared, state, report.records(state, compared.compared, compared.plan), runner.jobs)
    student = place / STUDENT / PRETRAIN / CHECKPOINT
    print(f"\n{table}\nthe page: {place / pages.PAGE}\nall runs: {place}\nthe distilled student: {student}")
    steps = next_steps(student.parents[1])
    if len(compared.plan.seeds or []) == 1:
        args.seeds = "3"
        steps.append(f"{plan_options.again(options, args, overrides)}   # means and spreads")
    print("next:", *steps, sep="\n  ")
    return 0
