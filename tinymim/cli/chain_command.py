"""``tinymim chain run | resume | status | plan``, and ``tinymim resume`` of whatever a folder holds."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

from rich.markdown import Markdown

from tinymim.config import class_paths
from tinymim.errors import TinymimError, several
from tinymim.experiments import chain as chains
from tinymim.experiments import check, pages
from tinymim.experiments.plan import Plan
from tinymim.experiments.resume import opened, prepare
from tinymim.experiments.runner import Runner, check_jobs
from tinymim.experiments.state import NAME, State, as_edited, holds, load
from tinymim.experiments.status import status
from tinymim.log import say
from tinymim.safety import text
from tinymim.safety.console import PlainConsole
from tinymim.safety.shown import terminal
from tinymim.training import lock, looking


def main(arguments: list[str]) -> int:
    """Run ``tinymim chain``, and return its exit code: as the command's, or 75 where it was interrupted."""
    asked = _parser().parse_args(arguments)
    if asked.action == "status":
        status(load(asked.folder))
        return 0
    if asked.action == "plan":
        with nullcontext() if asked.trust else class_paths.own_only():
            chain = chains.load(asked.chain, asked.set, asked.config)
        configs = {name: stage.config for name, stage in chain.stages.items()}
        with looking.trusted(configs, asked.trust, f"chain {chain.name}"):
            return _plan(chain)
    check_jobs(asked.jobs)
    if asked.action == "resume":
        load(asked.folder)  # before a lock is laid into a folder that is none
        with lock.hold(asked.folder, "folder"):
            edited = as_edited(load(asked.folder))
            return _run(prepare(asked.folder, edited, asked.launch, asked.accept_changes), asked.jobs)
    chain = chains.load(asked.chain, asked.set, asked.config)
    place = asked.run_dir or Path("runs") / f"chain_{chain.name}"
    with opened(place, chain, asked.launch, asked.accept_changes, going_on=asked.resume) as state:
        return _run(state, asked.jobs)


def resume(arguments: list[str]) -> int:
    """Go on with a chain, or with a fit from its saved recipe; further arguments are those of either.

    Raises:
        TinymimError: the folder holds neither.
    """
    if not arguments or arguments[0].startswith("-"):
        raise TinymimError("name the folder of a run or of a chain first: tinymim resume runs/relation_digits")
    place = Path(arguments[0])
    if holds(place):
        return main(["resume", *arguments])
    if not (place / "config.yaml").is_file():
        raise TinymimError(f"{place} holds neither a chain ({NAME}) nor a run (config.yaml)")
    from tinymim.cli.main import lightning

    own = ["--config", str(place / "config.yaml"), "--run_dir", str(place), "--ckpt_path", "last"]
    return lightning("fit", [*own, *arguments[1:]])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tinymim chain", description=__doc__, allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True, metavar="run | resume | status | plan")
    run = actions.add_parser("run", help="run a chain", allow_abbrev=False)
    going_on = actions.add_parser("resume", help="go on with the chain in a folder", allow_abbrev=False)
    status = actions.add_parser("status", help="how far the chain in a folder is")
    planned = actions.add_parser("plan", help="what a chain would do, checked; nothing is written", allow_abbrev=False)
    for one in (run, planned):
        one.add_argument("chain", help="a chain of recipes/chains, or a path")
        one.add_argument(
            "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
            help="for every fit, or STAGE.KEY=VALUE for one, or seeds=[0]",
        )  # fmt: skip
        one.add_argument("--config", action="append", default=[], help="a recipe laid over every fit's")
    for one in (going_on, status):
        one.add_argument("folder", type=Path, help="of the chain")
    looking.add_argument(planned, "a recipe of the chain")
    run.add_argument("--run_dir", type=Path, help="by default runs/chain_NAME")
    run.add_argument("--resume", action="store_true", help="go on with what is in the folder, or begin")
    for one in (run, going_on):
        one.add_argument("--launch", help="put before each fit's command, such as srun, or 'torchrun ... --no-python'")
        one.add_argument("--jobs", type=int, default=1, help="stages at once, where they do not need each other")
        one.add_argument("--accept-changes", action="store_true", help="of recipes and files since the last time")
    return parser


def _plan(chain: Plan) -> int:
    promised = check.check(chain)
    if found := check.problems(chain, promised):
        say(f"chain {chain.name} cannot run yet: what follows may be wrong, and the reasons stand at its end\n")
    try:
        check.show(chain, promised)
    except text.WRONG:  # values of other types than they should be, which is among what was found
        if not found:
            raise
    if found:
        raise several(f"chain {chain.name} cannot run yet, {len(found)} mistake(s)", found)
    return 0


def _run(state: State, jobs: int) -> int:
    try:
        code = Runner(state, jobs=jobs).run()
    finally:
        table = pages.chain(state)
    if code == 0:
        if table:
            PlainConsole().print(Markdown(terminal(table), hyperlinks=False))
        print(f"\nchain {state.plan.name} is done: {state.place}")
    return code
