"""``tinymim chain run | resume | status | plan``: stages that build on each other."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

from tinymim.cli import plan_command, plan_options
from tinymim.cli.plan_command_options import read_chain
from tinymim.config import class_paths
from tinymim.errors import TinymimError
from tinymim.experiments import chain as chains
from tinymim.experiments import pages
from tinymim.experiments.resume import opened
from tinymim.experiments.runner import Runner
from tinymim.experiments.state import State, load
from tinymim.experiments.status import status


def main(arguments: list[str]) -> int:
    """Run ``tinymim chain``, and return its exit code: as the command's, or 75 where it was interrupted."""
    args = read_chain(arguments)
    if args.action == "status":
        status(load(args.folder))
        return 0
    if args.action == "plan":
        with nullcontext() if args.trust else class_paths.own_only():
            planned = chains.load(args.chain, _settings(args), args.config)
        return plan_command.shown(planned, args.trust)
    if args.action == "resume":
        kind, place, chain = load(args.folder).plan.kind, args.folder, None
        if kind != "chain":
            raise TinymimError(f"{place} is of a {kind}; go on with: tinymim resume {place}")
    else:
        chain = chains.load(args.chain, _settings(args), args.config)
        place = args.run_dir or Path("runs") / f"chain_{chain.name}"
    going_on = chain is None or args.resume
    with opened(place, chain, args.launch, args.accept_changes, going_on=going_on) as state:
        return _run(state, args.jobs)


def _settings(args: argparse.Namespace) -> list[str]:
    return [*args.set, *([f"seeds={plan_options.seeds(args.seeds)}"] if args.seeds else [])]


def _run(state: State, jobs: int | None) -> int:
    code = 1  # of an error
    try:
        code = Runner(state, jobs=jobs).run()
    finally:
        table = pages.chain(state, draw=code == 0)
    if code == 0:
        print(table or "")
        print(f"chain {state.plan.name} is done: {state.place}; the page: {state.place / pages.PAGE}")
    return code
