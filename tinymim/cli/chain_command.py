"""``tinymim chain run | resume | status | plan``, and ``tinymim resume`` of whatever a folder holds."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

from rich.markdown import Markdown

from tinymim.config import class_paths
from tinymim.errors import TinymimError, several
from tinymim.experiments import artefacts, chain_report, changes, plan, promises
from tinymim.experiments.plan import Chain
from tinymim.experiments.runner import Runner, check_jobs
from tinymim.experiments.state import NAME, State, as_edited, begin, load
from tinymim.log import say
from tinymim.safety import text
from tinymim.safety.console import PlainConsole
from tinymim.safety.shown import terminal
from tinymim.training import lock, looking

ACCEPT = "--accept-changes runs these again and all that starts from them, and keeps the rest"


def main(arguments: list[str]) -> int:
    """Run ``tinymim chain``, and return its exit code: as the command's, or 75 where it was interrupted."""
    asked = _parser().parse_args(arguments)
    if asked.action == "status":
        chain_report.status(load(asked.folder))
        return 0
    if asked.action == "plan":
        with nullcontext() if asked.trust else class_paths.own_only():
            chain = plan.load(asked.chain, asked.set, asked.config)
        configs = {name: stage.config for name, stage in chain.stages.items()}
        with looking.trusted(configs, asked.trust, f"chain {chain.name}"):
            return _plan(chain)
    check_jobs(asked.jobs)
    if asked.action == "resume":
        load(asked.folder)  # before a lock is laid into a folder that is none
        with lock.hold(asked.folder, "folder"):
            state = load(asked.folder)
            state = _followed(state, as_edited(state), asked.launch, asked.accept_changes)
            return _run(state, asked.jobs)
    chain = plan.load(asked.chain, asked.set, asked.config)
    place = asked.run_dir or Path("runs") / f"chain_{chain.name}"
    check_fresh(place, asked.resume)
    with lock.hold(place, "run_dir"):
        check_fresh(place, asked.resume)
        state = prepare(place, chain, asked.launch, asked.accept_changes)
        return _run(state, asked.jobs)


def prepare(place: Path, chain: Chain, launch: str | None = None, accept: bool = False) -> State:
    """The state of ``chain`` in a folder, begun or to go on with, checked and written.

    Args:
        place: the folder, whose lock is held.
        chain: what is to be run there.
        launch: put before each fit's command; ``None`` leaves it as it was.
        accept: changes since it was run last.

    Raises:
        TinymimError: mistakes in what is left to run, or changes that are not accepted.
    """
    if not (place / NAME).is_file():
        _check(chain, list(chain.stages))
        return _written(begin(place, chain, launch or ""))
    return _followed(load(place), chain, launch, accept)


def resume(arguments: list[str]) -> int:
    """Go on with a chain, or with a fit from its saved recipe; further arguments are those of either.

    Raises:
        TinymimError: the folder holds neither.
    """
    if not arguments or arguments[0].startswith("-"):
        raise TinymimError("name the folder of a run or of a chain first: tinymim resume runs/relation_digits")
    place = Path(arguments[0])
    if (place / NAME).is_file():
        return main(["resume", *arguments])
    if not (place / "config.yaml").is_file():
        raise TinymimError(f"{place} holds neither a chain ({NAME}) nor a run (config.yaml)")
    from tinymim.cli.recipe_commands import fit

    own = ["--config", str(place / "config.yaml"), "--run_dir", str(place), "--ckpt_path", "last"]
    fit([*own, *arguments[1:]])
    return 0


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


def _plan(chain: Chain) -> int:
    promised = promises.check(chain)
    if found := promises.problems(promised, chain.stages):
        say(f"chain {chain.name} cannot run yet: what follows may be wrong, and the reasons stand at its end\n")
    try:
        promises.show(chain, promised)
    except text.WRONG:  # values of other types than they should be, which is among what was found
        if not found:
            raise
    if found:
        raise several(f"chain {chain.name} cannot run yet, {len(found)} mistake(s)", found)
    return 0


def _check(chain: Chain, stages: list[str]) -> None:
    """Raise where one of ``stages`` cannot run."""
    if found := promises.problems(promises.check(chain), stages):
        raise several(f"chain {chain.name} has {len(found)} mistake(s)", found)


def check_fresh(place: Path, going_on: bool) -> None:
    """Raise where a folder holds something else than a chain, or a chain unless it is to go on."""
    inside = sorted(path.name for path in place.iterdir() if path.name != lock.NAME) if place.is_dir() else []
    if (place / NAME).is_file() and not going_on:
        raise TinymimError(
            f"run_dir: {place} holds a chain already. Go on with it: --resume. Begin another: --run_dir ANOTHER_FOLDER"
        )
    if inside and not (place / NAME).is_file():
        raise TinymimError(f"run_dir: {place} holds other files ({', '.join(inside[:4])}); give a new folder")


def _followed(state: State, chain: Chain, launch: str | None, accept: bool) -> State:
    """The state over ``chain``: what has changed is refused or accepted."""
    chain = changes.keep_precision(state.chain, chain)
    changed, altered = changes.between(state.chain, chain), artefacts.altered(state)
    lines = [line for found in (*changed.values(), *altered.values()) for line in found]
    if lines and not accept:
        raise several(f"{state.place} has changed since it was run. Undo it, or: {ACCEPT}. It differs", lines)
    state.forget(set(altered))
    for key in state.follow(chain):
        say(f"{key} is no longer part of the chain; {state.place / key} is left as it is")
    state.launch = state.launch if launch is None else launch
    _check(chain, [name for name in chain.stages if _unfinished(state, name)])
    return _written(state)


def _written(state: State) -> State:
    state.save()
    state.write_recipes()
    return state


def _unfinished(state: State, name: str) -> bool:
    return any(entry.state != "done" for key, entry in state.entries.items() if state.stage(key).name == name)


def _run(state: State, jobs: int) -> int:
    try:
        code = Runner(state, jobs).run()
    finally:
        table = chain_report.compare(state)
    if code == 0:
        if table:
            PlainConsole().print(Markdown(terminal(table), hyperlinks=False))
        print(f"\nchain {state.chain.name} is done: {state.place}")
    return code
