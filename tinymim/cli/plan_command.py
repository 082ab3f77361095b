"""``tinymim plan``: what a chain, study, grid or comparison would do, checked; ``tinymim status``: how far it is."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from tinymim.cli import plan_command_options, plan_options, study_command
from tinymim.config import class_paths
from tinymim.errors import TinymimError, counted, several
from tinymim.experiments import chain, compare, grid, plan_check, plan_files, program, state, study
from tinymim.experiments.plan import Plan
from tinymim.experiments.status import of_run
from tinymim.experiments.status import status as show_status
from tinymim.log import say
from tinymim.report import runs
from tinymim.safety import text
from tinymim.training import inspection

KINDS = ("chain", "study", "scaling study", "program")


def main(arguments: list[str]) -> int:
    """Check a plan and show its stages; nothing is written."""
    args, overrides = plan_options.overrides(plan_command_options.plan(), arguments, "plan")
    with nullcontext() if args.trust else class_paths.own_only():
        plan = read(args, overrides)
    if isinstance(plan, Plan):
        return shown(plan, args.trust)
    for part in plan.parts:  # each has a plan of its own
        print(f"{part.id}: {part.title}", *(f"  {line}" for line in part.lines()), sep="\n")
    return 0


def read(args: argparse.Namespace, overrides: list[str]) -> Plan | program.Program:
    """The plan of a file, or a program.

    Raises:
        TinymimError: none of that name, or mistakes in it.
    """
    kind, _, path = plan_files.find(args.name, KINDS)
    seeds = plan_options.seeds(args.seeds) if args.seeds else None
    if kind in ("study", "recipe"):
        plan_options.check_seeds(overrides)
    if kind == "study":
        loaded = study.load(args.name, args.quick, overrides, seeds)
        return loaded.plan.part(loaded.keys(study_command.chosen(loaded, args.rows, args.questions)))
    if args.rows or args.questions:
        raise TinymimError(f"--rows, --questions: of a study, and {args.name} is a {kind}; leave them out")
    if kind == "program":
        return program.load(args.name, program.folder(path.stem, args.quick), args.quick)
    settings = [text.removeprefix("--") for text in overrides] + ([f"seeds={seeds}"] if seeds else [])
    if kind == "scaling study":
        return grid.load(args.name, args.quick, settings).plan
    if args.quick:
        raise TinymimError(f"--quick: {args.name} is a {kind}, and has no short form")
    if kind == "chain":
        return chain.load(args.name, settings, args.config)
    compared = compare.read(args.name, overrides, lambda seed: seeds or [seed])
    if compared is None:
        raise TinymimError(f"{args.name} is one fit, without `compare`; `tinymim check {args.name}` checks it")
    return compared.plan


def shown(plan: Plan, trust: bool) -> int:
    """Show a plan's stages, as they would run.

    Raises:
        TinymimError: mistakes, after what can be shown.
    """
    configs = {name: stage.config for name, stage in plan.stages.items()}
    with inspection.trusted(configs, trust, f"{plan.kind} {plan.name}"):
        promises = plan_check.check(plan)
        if errors := plan_check.problems(plan, promises):
            say(
                f"{plan.kind} {plan.name} cannot run yet: what follows may be wrong, and the reasons stand at its end\n"
            )
        try:
            plan_check.show(plan, promises)
        except text.WRONG:  # values of other types than they should be, which is among the errors
            if not errors:
                raise
    if errors:
        raise several(f"{plan.kind} {plan.name} cannot run yet, {counted(len(errors), 'mistake')}", errors)
    return 0


def status(arguments: list[str]) -> int:
    """Show how far the run or the plan in a folder is, from its files alone."""
    folder = plan_command_options.status().parse_args(arguments).folder
    state.check_held(folder)
    if state.holds(folder):
        show_status(state.load(folder))
    else:
        of_run(runs.read(folder))
    return 0
