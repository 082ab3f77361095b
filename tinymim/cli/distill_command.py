"""``tinymim distill``: a recipe's student and the same student from scratch, probed and fine-tuned, in one table.

The same command goes on where it was cut off: finished fits are kept.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from tinymim.cli import plan_options
from tinymim.errors import TinymimError
from tinymim.experiments import compare, pages, report
from tinymim.experiments.compare import STUDENT
from tinymim.experiments.plan import CHECKPOINT
from tinymim.experiments.questions import PRETRAIN
from tinymim.experiments.resume import opened
from tinymim.experiments.runner import Runner
from tinymim.experiments.state import OTHERS
from tinymim.log import say
from tinymim.training import fit, lock

DEMO = "relation_digits"
"""The recipe where none is named."""

FURTHER = (
    "Further options are overrides of the recipe; of the data, devices and precision all that is compared takes them."
)


def parser() -> argparse.ArgumentParser:
    """The options of ``tinymim distill``; others are overrides of the recipe."""
    options = plan_options.parser("distill", __doc__, f"{FURTHER}\n\n{compare.__doc__}")
    options.add_argument(
        "recipe", nargs="?",
        help=f"comes first: a recipe, or a path, by default {DEMO}; one without `compare` is fitted alone",
    )  # fmt: skip
    options.add_argument("--seeds", help="3 is a number of seeds, from the recipe's own up; 0,4 lists them")
    plan_options.add(options, "set", "jobs", "launch", "run_dir", "accept_changes", folder="runs/distill_NAME")
    options.add_argument(
        "--overwrite", nargs="?", const="true", default="false", help="start again, and lose the runs of the folder"
    )
    options.add_argument("--ckpt-path", metavar="last", help="go on with what is in the folder, as is always done")
    return options


def main(arguments: list[str]) -> int:
    """Fit a recipe, then what its ``compare`` names, and print the table; the exit code.

    Raises:
        TinymimError: mistakes in the recipe or the command line, changes that are not accepted, or failed fits.
    """
    if not arguments or arguments[0].startswith("-"):
        arguments = [DEMO, *arguments]
    options = parser()
    args, overrides = plan_options.overrides(options, arguments, "comparison", flags=True)
    compared = compare.read(
        args.recipe, overrides, lambda first: plan_options.seeds(args.seeds, first) if args.seeds else [first]
    )
    if compared is None:
        return _alone(args, overrides)
    place = args.run_dir or Path("runs") / f"distill_{compared.plan.name}"
    keys = [key for keys in compared.cells.values() for key in keys]
    if args.overwrite == "true":
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
        say(f"{left} fits, {runner.jobs} at once, in {place}")
        if code := runner.run():
            return code
        table = pages.comparison(compared, state, report.records(state, compared.compared, compared.plan), runner.jobs)
    student = place / STUDENT / PRETRAIN / CHECKPOINT
    print(f"\n{table}\nthe page: {place / pages.PAGE}\nall runs: {place}\nthe distilled student: {student}")
    if len(compared.plan.seeds or []) == 1:
        again = f"tinymim distill {args.recipe} --seeds 3"
        print(
            f"next: `{again}` for means and spreads; `tinymim report {student.parents[1]}` for its page; "
            f"`tinymim export {student} student.safetensors` to use it elsewhere"
        )
    return 0


def _alone(args: argparse.Namespace, overrides: list[str]) -> int:
    """Fit a recipe that is compared with nothing."""
    if words := [f"--{key}" for key in ("seeds", "jobs") if getattr(args, key) is not None]:
        raise TinymimError(f"{', '.join(words)}: {args.recipe} has no `compare`, so it is one fit")
    options = {"run_dir": args.run_dir, "overwrite": args.overwrite, "ckpt_path": args.ckpt_path}
    words = [f"--{key}={value}" for key, value in options.items() if value is not None]
    place = fit.run("fit", ["--config", args.recipe, *overrides, *words])
    say(f"the run is in {place}; the student is {place / CHECKPOINT}")
    return 0
