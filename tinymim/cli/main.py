"""The ``tinymim`` command: one table of commands, from which help, dispatch and the reach of imports follow.

Heavy imports happen after the command is known, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from tinymim.cli.closed_pipe import until_closed
from tinymim.cli.command import Command
from tinymim.cli.recipe_commands import names_recipe
from tinymim.cli.stopping import Stopping
from tinymim.errors import TinymimError, own_words
from tinymim.system import FULL

AGAIN = "make room, or name another folder, and give the command again: what is finished is kept"
HELP = frozenset(("-h", "--help"))
PROCESSES = "tinymim.training.processes"
"""What a run of several processes has imported, and nothing else needs at its end."""


def _always(arguments: list[str]) -> bool:
    return True


def _runs_chain(arguments: list[str]) -> bool:
    return arguments[:1] in (["run"], ["resume"])


ANALYSIS = ("matplotlib", "pandas", "scipy")
"""Packages of the commands that read tables of figures, and draw them."""


COMMANDS = {
    "fit": Command(
        "train one recipe: tinymim fit relation_digits [--trainer.max_epochs 5 ...]",
        "cli.recipe_commands:fit",
        _always,
        look="fit",
        page="recipe_pages:fit",
        lightning=True,
    ),
    "validate": Command(
        "validate a checkpoint: tinymim validate RECIPE --ckpt_path FILE",
        "cli.recipe_commands:validate",
        _always,
        look="of_recipe",
        page="recipe_pages:validate",
        lightning=True,
    ),
    "test": Command(
        "test a checkpoint, likewise",
        "cli.recipe_commands:test",
        _always,
        look="of_recipe",
        page="recipe_pages:test",
        lightning=True,
    ),
    "predict": Command(
        "write features or classes: tinymim predict CHECKPOINT --images FOLDER; of a recipe's images, likewise",
        "cli.recipe_commands:predict",
        names_recipe,
        look="predict",
        page="network_command_options:predict",
    ),
    "distill": Command(
        "run a recipe and what it compares with, and print the table: tinymim distill [RECIPE] [--seeds 3]",
        "cli.distill_command:main",
        _always,
        look="distill",
        page="plan_command_options:distill",
    ),
    "study": Command(
        "run the rows of a study over seeds, and write its tables: tinymim study digits [--quick]",
        "cli.study_command:main",
        _always,
        look="study",
        page="plan_command_options:study",
    ),
    "search": Command(
        "choose each row's own settings on training images: tinymim search RECIPE, STUDY or CHAIN [ROW ...]",
        "cli.search_command:main",
        _always,
        page="plan_command_options:search",
    ),
    "chain": Command(
        "run stages that build on each other: tinymim chain run | resume | status | plan",
        "cli.chain_command:main",
        _runs_chain,
        actions=("run", "resume", "status", "plan"),
        look="chain",
        page="plan_command_options:chain",
    ),
    "plan": Command(
        "what a chain, study, grid or comparison would do, checked: tinymim plan NAME",
        "cli.plan_command:main",
        page="plan_command_options:plan",
    ),
    "status": Command(
        "how far the run or the plan in a folder is, while it runs too: tinymim status FOLDER",
        "cli.plan_command:status",
        look="status",
        page="plan_command_options:status",
    ),
    "scaling": Command(
        "sizes, data and lengths of training in a grid, and what they show: tinymim scaling digits [--quick]",
        "cli.scaling_command:main",
        _always,
        packages=ANALYSIS,
        look="scaling",
        page="plan_command_options:scaling",
    ),
    "papers": Command(
        "studies, chain, analyses and scaling in one run, and one report: tinymim papers [--quick]",
        "cli.papers_command:main",
        _always,
        packages=ANALYSIS,
        page="plan_command_options:papers",
    ),
    "resume": Command(
        "go on with what a folder holds, a run or any plan: tinymim resume runs/relation_digits",
        "cli.resume_command:main",
        _always,
        look="resume",
        page="recipe_pages:resume",
    ),
    "recipes": Command(
        "list, print or copy recipes: tinymim recipes [list] [WORD] | show NAME | copy NAME",
        "cli.recipes_command:main",
    ),
    "check": Command(
        "check a recipe before it runs: every mistake at once, or sizes, speed and time",
        "cli.recipe_commands:check",
        _always,
        look="of_recipe",
        page="recipe_pages:check",
    ),
    "replay": Command(
        "run a captured step again that was not finite: tinymim replay RUN/nonfinite/step_N.pt",
        "cli.replay_command:main",
        look="replay",
        page="network_command_options:replay",
    ),
    "report": Command(
        "one HTML page of a run, beside others: tinymim report runs/relation_digits",
        "cli.report_command:main",
        look="report",
        page="network_command_options:report",
    ),
    "analyze": Command(
        "where heads look, what blocks share: tinymim analyze digits_mae random:digits_mae --data digits",
        "cli.analyze_command:main",
        packages=ANALYSIS,
        look="analyze",
        page="network_command_options:analyze",
    ),
    "teachers": Command(
        "what can teach, and its weights: tinymim teachers list | show | fetch | verify | add | save",
        "cli.teachers_command:main",
        actions=("list", "show", "fetch", "verify", "add", "save"),
    ),
    "cache": Command(
        "what teachers gave for views of images, kept for all runs: tinymim cache list | clear [NAME ...]",
        "cli.cache_command:main",
        actions=("list", "clear"),
        page="network_command_options:cache",
    ),
    "data": Command(
        "look through a folder of images for what is wrong with it: tinymim data check DIR",
        "cli.data_command:main",
        actions=("check",),
    ),
    "bench": Command(
        "what distilling bought, on this machine: tinymim bench STUDENT [TEACHER] [EXPORT ...] [--data digits]",
        "cli.bench_command:main",
        look="bench",
        page="network_command_options:bench",
    ),
    "export": Command(
        "write a checkpoint for others: tinymim export CHECKPOINT FILE | --to timm, hf, onnx, openvino",
        "cli.export_command:main",
    ),
}


def command() -> NoReturn:
    """Run the command line as a process of its own, and end it."""
    until_closed()
    try:
        code: Any = main()
    except SystemExit as ended:
        code = ended.code
    if PROCESSES in sys.modules and isinstance(code, int | None):  # what is half imported would fail to be completed
        sys.modules[PROCESSES].leave(code or 0)
    sys.exit(code)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for a user's mistake, 2 for a malformed command, and, where
    the same command would go on, 75 if the cluster asked it to end and 130 if Ctrl-C did."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="tinymim",
        description="Distil masked-image-modelling teachers into small Vision Transformers.",
        epilog="\n".join(f"  {name:<10} {command.help}" for name, command in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="tinymim COMMAND ...",
    )
    parser.add_argument("--version", action="store_true", help="show program's version number and exit")
    parser.add_argument("command", metavar="COMMAND", help="one of those below")
    if not arguments:
        parser.print_help()
        return 2
    if arguments[0] == "--version":
        from tinymim import __version__

        print(f"tinymim {__version__}")
        return 0
    name, arguments = parser.parse_args(arguments[:1]).command, arguments[1:]
    if name not in COMMANDS:
        from tinymim.near_names import near

        parser.error(f"there is no command {name!r}{near(name, COMMANDS)}")
    if asked := [place for place, word in enumerate(arguments) if word in HELP]:  # and nothing else is looked at
        whole = ["all"] if arguments[asked[0] + 1 :][:1] == ["all"] else []
        action = [word for word in arguments[:1] if word in COMMANDS[name].actions]
        return COMMANDS[name].print_help([*action, "--help", *whole])

    if "OMP_WAIT_POLICY" not in os.environ:  # waiting threads that spin long starve whatever else the machine runs
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        with Stopping(name) as stopping:
            COMMANDS[name].first_look(arguments)
            if builds(name, arguments):
                _reach_working_folder()
            code = COMMANDS[name].run(arguments)
            if PROCESSES in sys.modules:
                sys.modules[PROCESSES].wait_for_all()
            return code
    except TinymimError as error:
        words, code = own_words(error), error.code
    except KeyboardInterrupt:
        words, code = stopping.last_words()
    except OSError as error:
        if error.errno not in (*FULL, errno.ENAMETOOLONG):
            raise
        file = str(error.filename or "a file")
        file, code = file if len(file) < 200 else f"{file[:100]}...", 1
        again = f" cannot be written ({error.strerror}); {AGAIN}" if error.errno in FULL else f": {error.strerror}"
        words = f"{file}{again}"
    from tinymim.log import first_to_say
    from tinymim.safety.escaping import terminal

    if first_to_say(words):
        print(f"tinymim {name}: {terminal(words)}", file=sys.stderr, flush=True)
    return code


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
