"""The ``tinymim`` command. Heavy imports happen after the command is known, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tinymim import __version__
from tinymim.errors import TinymimError, own_words
from tinymim.safety.shown import terminal

LIGHTNING = ("fit", "validate", "test", "predict")

RUNS = ("fit", "validate", "test", "distill", "study", "search", "scaling", "papers", "resume", "check")
"""Commands that build what their user names."""

COMMANDS = {
    "fit": "train one recipe: tinymim fit --config relation_digits [--trainer.max_epochs 5 ...]",
    "validate": "validate a checkpoint: tinymim validate --config RECIPE --ckpt_path FILE",
    "test": "test a checkpoint, likewise",
    "predict": "write features or classes: tinymim predict CHECKPOINT --images FOLDER; of a recipe's images, likewise",
    "distill": "run a recipe and what it compares with, and print the table: tinymim distill RECIPE [--seeds 3]",
    "study": "run the rows of a study over seeds, and write its tables: tinymim study digits [--quick]",
    "search": "choose each row's own settings on training images: tinymim search RECIPE, STUDY or CHAIN [ROW ...]",
    "chain": "run stages that start from each other: tinymim chain run | resume | status | plan",
    "plan": "what a chain, study, grid or comparison would do, checked: tinymim plan NAME",
    "status": "how far the plan in a folder is, while it runs too: tinymim status runs/study_digits",
    "scaling": "sizes, data and lengths of training in a grid, and what they show: tinymim scaling digits [--quick]",
    "papers": "studies, chain, analyses and scaling in one run, and one report: tinymim papers [--quick]",
    "resume": "go on with what a folder holds, a run or a chain: tinymim resume runs/relation_digits",
    "check": "check a recipe before it runs: every mistake at once, or sizes, speed and time",
    "replay": "run a captured step again that was not finite: tinymim replay RUN/nonfinite/step_N.pt",
    "report": "one HTML page of a run, beside others: tinymim report runs/relation_digits",
    "analyze": "where heads look, what blocks share: tinymim analyze digits_mae random:digits_mae --data digits",
    "teachers": "what can teach, and its weights: tinymim teachers list | show | fetch | verify | add",
    "cache": "what teachers gave for views of images, kept for all runs: tinymim cache list | clear [NAME ...]",
    "data": "look through a folder of images for what is wrong with it: tinymim data check DIR",
    "export": "write a checkpoint for others: tinymim export CHECKPOINT FILE | --to timm, hf, onnx, torch-export",
}


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


def _runs(name: str, arguments: list[str]) -> bool:
    """Whether a command builds what its user names, classes of the working folder among them; others only look."""
    if "--trust" in arguments:
        return True
    if name == "chain":
        return arguments[:1] in (["run"], ["resume"])
    if name == "predict":
        return any(argument.startswith("--config") for argument in arguments)
    return name in RUNS and not {"-h", "--help"} & {*arguments}


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
        epilog="\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="tinymim COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"tinymim {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    if not arguments:
        parser.print_help()
        return 2
    name = parser.parse_args(arguments[:1]).command

    if "OMP_WAIT_POLICY" not in os.environ:  # waiting threads that spin long starve whatever else the machine runs
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if _runs(name, arguments[1:]):
        _reach_working_folder()
    try:
        code = _command(name)(arguments[1:])
        if "torch" in sys.modules:
            from tinymim.training import leaving

            leaving.wait_for_all()
        return code
    except TinymimError as error:
        print(f"tinymim {name}: {terminal(own_words(error))}", file=sys.stderr)
        return error.code


def _command(name: str) -> Callable[[list[str]], int]:
    if name in LIGHTNING:
        return lambda rest: lightning(name, rest)
    others = {
        "distill": _distill,
        "study": _study,
        "search": _search,
        "chain": _chain,
        "plan": _plan,
        "status": _status,
        "scaling": _scaling,
        "papers": _papers,
        "resume": _resume,
        "check": _check,
        "replay": _replay,
        "report": _report,
        "analyze": _analyze,
        "cache": _cache,
        "data": _data,
        "teachers": _teachers,
        "export": _export,
    }
    return others[name]


def lightning(command: str, arguments: list[str]) -> int:
    """``fit``, ``validate``, ``test`` or ``predict`` over a recipe; without one, ``predict`` over a folder."""
    if command == "predict" and not any(argument.partition("=")[0] == "--config" for argument in arguments):
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


def _distill(arguments: list[str]) -> int:
    from tinymim.cli import distill_command

    return distill_command.main(arguments)


def _study(arguments: list[str]) -> int:
    from tinymim.cli import study_command

    return study_command.main(arguments)


def _search(arguments: list[str]) -> int:
    from tinymim.cli import search_command

    return search_command.main(arguments)


def _chain(arguments: list[str]) -> int:
    from tinymim.cli import chain_command

    return chain_command.main(arguments)


def _plan(arguments: list[str]) -> int:
    from tinymim.cli import plan_command

    return plan_command.main(arguments)


def _status(arguments: list[str]) -> int:
    from tinymim.cli import plan_command

    return plan_command.status(arguments)


def _scaling(arguments: list[str]) -> int:
    from tinymim.cli import scaling_command

    return scaling_command.main(arguments)


def _papers(arguments: list[str]) -> int:
    from tinymim.cli import papers_command

    return papers_command.main(arguments)


def _resume(arguments: list[str]) -> int:
    from tinymim.cli import chain_command

    return chain_command.resume(arguments)


def _report(arguments: list[str]) -> int:
    from tinymim.cli import report_command

    return report_command.main(arguments)


def _analyze(arguments: list[str]) -> int:
    from tinymim.cli import analyze_command

    return analyze_command.main(arguments)


def _export(arguments: list[str]) -> int:
    from tinymim.cli import export_command

    return export_command.main(arguments)


def _replay(arguments: list[str]) -> int:
    from tinymim.training import replay

    return replay.main(arguments)


def _cache(arguments: list[str]) -> int:
    from tinymim.cli import cache_command

    return cache_command.main(arguments)


def _data(arguments: list[str]) -> int:
    from tinymim.cli import data_command

    return data_command.main(arguments)


def _teachers(arguments: list[str]) -> int:
    from tinymim.cli import teachers_command

    return teachers_command.main(arguments)


def _named(arguments: list[str], command: str) -> tuple[str, list[str]]:
    """The recipe that comes first, and the overrides after it."""
    if not arguments or arguments[0].startswith("-"):
        raise TinymimError(f"name a recipe first: tinymim {command} relation_digits [--trainer.max_epochs 5 ...]")
    return arguments[0], arguments[1:]
