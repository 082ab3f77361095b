"""The ``tinymim`` command. Heavy imports happen after the command is known, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from tinymim import __version__
from tinymim.errors import TinymimError, own_words
from tinymim.safety.shown import terminal

HELP = frozenset(("-h", "--help"))
OVERRIDES = "Further options are overrides of the recipe, such as --trainer.max_epochs 5."


def command() -> NoReturn:
    """Run the command line as a process of its own, and end it."""
    try:
        code: Any = main()
    except SystemExit as ended:
        code = ended.code
    if "torch" in sys.modules and isinstance(code, int | None):
        from tinymim.training import leaving

        leaving.leave(code or 0)
    sys.exit(code)


def builds(name: str, arguments: list[str]) -> bool:
    """Whether a command builds what its user names, classes of the working folder among them; others only look."""
    return HELP.isdisjoint(arguments) and ("--trust" in arguments or COMMANDS[name].builds(arguments))


def _reach_working_folder() -> None:
    """Let a user's own classes be imported from where the command runs.

    The libraries come first: they try to import packages that may not be there, and a file of that name would be run.
    """
    import lightning.pytorch  # noqa: F401
    import timm  # noqa: F401

    sys.path.append(str(Path.cwd()))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for a user's mistake, 2 for a malformed command, and 75 where
    the cluster asked it to end and the same command would go on."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="tinymim",
        description="Distil masked-image-modelling teachers into small Vision Transformers.",
        epilog="\n".join(f"  {name:<10} {one.help}" for name, one in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="tinymim COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"tinymim {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    if not arguments:
        parser.print_help()
        return 2
    name, rest = parser.parse_args(arguments[:1]).command, arguments[1:]
    if not HELP.isdisjoint(rest):  # wherever it stands, nothing else is looked at
        rest = [word for word in rest[:1] if word in COMMANDS[name].actions] + ["--help"]

    if "OMP_WAIT_POLICY" not in os.environ:  # waiting threads that spin long starve whatever else the machine runs
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if builds(name, rest):
        _reach_working_folder()
    try:
        code = COMMANDS[name].run(rest)
        if "torch" in sys.modules:
            from tinymim.training import leaving

            leaving.wait_for_all()
        return code
    except TinymimError as error:
        print(f"tinymim {name}: {terminal(own_words(error))}", file=sys.stderr)
        return error.code


def lightning(command: str, arguments: list[str]) -> int:
    """``fit``, ``validate``, ``test`` or ``predict`` over a recipe; without one, ``predict`` over a folder."""
    if command == "predict" and not _of_a_recipe(arguments):
        from tinymim.cli import predict_command

        return predict_command.main(arguments)
    from tinymim.log import say
    from tinymim.training import fit

    folder = fit.run(command, arguments)
    if command == "fit":
        say(f"the run is in {folder}")
    return 0


def _check(arguments: list[str]) -> int:
    from tinymim.training import fit

    recipe, rest = _named(arguments, "check")
    fit.run("fit", ["--config", recipe, *rest], checking=True)
    print(f"{recipe}: ready to run")
    return 0


def _status(arguments: list[str]) -> int:
    from tinymim.cli import plan_command

    return plan_command.status(arguments)


def _resume(arguments: list[str]) -> int:
    from tinymim.cli import chain_command

    if not HELP.isdisjoint(arguments):
        _help("resume", "folder", "of a run or of a chain")
    return chain_command.resume(arguments)


def _main(module: str) -> Callable[[list[str]], int]:
    """``main`` of one of our modules, which is imported when it is called."""
    return lambda arguments: int(importlib.import_module(f"tinymim.{module}").main(arguments))


def _named(arguments: list[str], command: str) -> tuple[str, list[str]]:
    """The recipe that comes first, and the overrides after it; the help is printed, and ends the command, where it is
    asked for."""
    if not HELP.isdisjoint(arguments):
        _help(command, "recipe", "a recipe of recipes, or a path")
    if not arguments or arguments[0].startswith("-"):
        raise TinymimError(f"name a recipe first: tinymim {command} relation_digits [--trainer.max_epochs 5 ...]")
    return arguments[0], arguments[1:]


def _help(command: str, first: str, about: str) -> NoReturn:
    """Print the help of a command whose overrides argparse could not tell from options, and end it.

    Args:
        command: its name.
        first: what is named first.
        about: the same, in a few words.
    """
    parser = argparse.ArgumentParser(f"tinymim {command}", description=COMMANDS[command].help, epilog=OVERRIDES)
    parser.add_argument(first, help=about)
    parser.print_help()
    sys.exit(0)


@dataclass(frozen=True)
class Command:
    """A subcommand, and what runs it.

    Args:
        help: a line for people.
        run: takes the rest of the command line, and returns the exit code.
        builds: whether it builds what its user names, given the rest of the command line.
        actions: words that come first in it, each with a help of its own.
    """

    help: str
    run: Callable[[list[str]], int]
    builds: Callable[[list[str]], bool]
    actions: tuple[str, ...] = ()


def _always(arguments: list[str]) -> bool:
    return True


def _never(arguments: list[str]) -> bool:
    return False


def _of_a_recipe(arguments: list[str]) -> bool:
    return any(argument.partition("=")[0] == "--config" for argument in arguments)


def _of_a_chain(arguments: list[str]) -> bool:
    return arguments[:1] in (["run"], ["resume"])


COMMANDS = {
    "fit": Command(
        "train one recipe: tinymim fit --config relation_digits [--trainer.max_epochs 5 ...]",
        partial(lightning, "fit"),
        _always,
    ),
    "validate": Command(
        "validate a checkpoint: tinymim validate --config RECIPE --ckpt_path FILE",
        partial(lightning, "validate"),
        _always,
    ),
    "test": Command("test a checkpoint, likewise", partial(lightning, "test"), _always),
    "predict": Command(
        "write features or classes: tinymim predict CHECKPOINT --images FOLDER; of a recipe's images, likewise",
        partial(lightning, "predict"),
        _of_a_recipe,
    ),
    "distill": Command(
        "run a recipe and what it compares with, and print the table: tinymim distill RECIPE [--seeds 3]",
        _main("cli.distill_command"),
        _always,
    ),
    "study": Command(
        "run the rows of a study over seeds, and write its tables: tinymim study digits [--quick]",
        _main("cli.study_command"),
        _always,
    ),
    "search": Command(
        "choose each row's own settings on training images: tinymim search RECIPE, STUDY or CHAIN [ROW ...]",
        _main("cli.search_command"),
        _always,
    ),
    "chain": Command(
        "run stages that start from each other: tinymim chain run | resume | status | plan",
        _main("cli.chain_command"),
        _of_a_chain,
        ("run", "resume", "status", "plan"),
    ),
    "plan": Command(
        "what a chain, study, grid or comparison would do, checked: tinymim plan NAME",
        _main("cli.plan_command"),
        _never,
    ),
    "status": Command("how far the plan in a folder is, while it runs too: tinymim status FOLDER", _status, _never),
    "scaling": Command(
        "sizes, data and lengths of training in a grid, and what they show: tinymim scaling digits [--quick]",
        _main("cli.scaling_command"),
        _always,
    ),
    "papers": Command(
        "studies, chain, analyses and scaling in one run, and one report: tinymim papers [--quick]",
        _main("cli.papers_command"),
        _always,
    ),
    "resume": Command(
        "go on with what a folder holds, a run or a chain: tinymim resume runs/relation_digits", _resume, _always
    ),
    "check": Command("check a recipe before it runs: every mistake at once, or sizes, speed and time", _check, _always),
    "replay": Command(
        "run a captured step again that was not finite: tinymim replay RUN/nonfinite/step_N.pt",
        _main("training.replay"),
        _never,
    ),
    "report": Command(
        "one HTML page of a run, beside others: tinymim report runs/relation_digits",
        _main("cli.report_command"),
        _never,
    ),
    "analyze": Command(
        "where heads look, what blocks share: tinymim analyze digits_mae random:digits_mae --data digits",
        _main("cli.analyze_command"),
        _never,
    ),
    "teachers": Command(
        "what can teach, and its weights: tinymim teachers list | show | fetch | verify | add | save",
        _main("cli.teachers_command"),
        _never,
        ("list", "show", "fetch", "verify", "add", "save"),
    ),
    "cache": Command(
        "what teachers gave for views of images, kept for all runs: tinymim cache list | clear [NAME ...]",
        _main("cli.cache_command"),
        _never,
        ("list", "clear"),
    ),
    "data": Command(
        "look through a folder of images for what is wrong with it: tinymim data check DIR",
        _main("cli.data_command"),
        _never,
        ("check",),
    ),
    "export": Command(
        "write a checkpoint for others: tinymim export CHECKPOINT FILE | --to timm, hf, onnx, torch-export",
        _main("cli.export_command"),
        _never,
    ),
}
