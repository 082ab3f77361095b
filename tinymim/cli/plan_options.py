"""Options that the commands of many fits have in common, each under one name."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tinymim.config import recipe
from tinymim.config.spec import seed_mistakes
from tinymim.errors import TinymimError

JOBS = "at once, sharing the cores where they do not need each other"


def parser(command: str, about: str, epilog: str = "") -> argparse.ArgumentParser:
    """A parser of a command's options, whose help shows texts as they are written."""
    return argparse.ArgumentParser(
        prog=f"tinymim {command}", description=about, epilog=epilog, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def add(options: argparse.ArgumentParser, *names: str, jobs: int | None = None, folder: str = "") -> None:
    """Add some of the common options.

    Args:
        options: of a command.
        names: ``jobs``, ``run_dir``, ``accept_changes``, ``launch``, ``set``, ``seeds`` or ``report_only``.
        jobs: fits at once by default; ``None`` is as many as cores.
        folder: the run folder by default, for the help.
    """
    if "run_dir" in names:
        options.add_argument("--run-dir", type=Path, help=f"by default {folder}")
    if "seeds" in names:
        options.add_argument("--seeds", help="such as 0,1,2, in place of the file's")
    if "set" in names:
        options.add_argument(
            "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
            help="for every fit, or STAGE.KEY=VALUE for one, or seeds=[0]",
        )  # fmt: skip
    if "jobs" in names:
        default = "as many as cores" if jobs is None else jobs
        options.add_argument("--jobs", type=int, default=jobs, help=f"fits {JOBS}; by default {default}")
    if "launch" in names:
        options.add_argument(
            "--launch", help="put before each fit's command, such as srun, or 'torchrun ... --no-python'"
        )
    if "report_only" in names:
        options.add_argument("--report-only", action="store_true", help="run nothing, and report what is done")
    if "accept_changes" in names:
        options.add_argument(
            "--accept-changes",
            action="store_true",
            help="run again what has changed since the last time; keep the rest",
        )


def hyphened(options: argparse.ArgumentParser, arguments: list[str]) -> list[str]:
    """Arguments with hyphens in the names of a parser's own options: underscores are taken too, as they were."""
    known = {text for action in options._actions for text in action.option_strings}
    spelt = []
    for argument in arguments:
        name, given, value = argument.partition("=")
        hyphens = name.replace("_", "-")
        spelt.append(f"{hyphens}{given}{value}" if name.startswith("--") and hyphens in known else argument)
    return spelt


def overrides(
    options: argparse.ArgumentParser, arguments: list[str], what: str, flags: bool = False
) -> tuple[argparse.Namespace, list[str]]:
    """A command's own options, and the others as overrides of recipes; those of ``--set`` among them, and flags where
    they are taken.

    Raises:
        TinymimError: arguments that are neither.
    """
    asked, rest = options.parse_known_args(hyphened(options, arguments))
    pairs, unknown = recipe.split(rest)
    if unknown and not flags:
        raise TinymimError(f"no option of a {what}: {' '.join(unknown)}; {options.prog} --help lists them")
    given = getattr(asked, "set", None) or []
    if wrong := [text for text in given if "=" not in text]:
        raise TinymimError(f"--set {wrong[0]}: is not KEY=VALUE")
    return asked, [*(f"--{text}" for text in given), *(f"--{key}={value}" for key, value in pairs), *unknown]


def seeds(text: str, first: int | None = None) -> list[int]:
    """A list, such as ``0,4`` or ``[4]``; from ``first`` up also a number of them, such as ``3``.

    Raises:
        TinymimError: neither, none, or one twice.
    """
    words = re.fullmatch(r"\s*(\[)?\s*(\d+(?:\s*,\s*\d+)*)\s*,?\s*\]?\s*", text)
    numbers = [int(word) for word in words[2].split(",")] if words else []
    if words and len(numbers) == 1 and first is not None and not words[1] and "," not in text:
        numbers = list(range(first, first + numbers[0]))
    if not numbers:
        also = "" if first is None else "neither a number of seeds, such as 3, nor "
        raise TinymimError(f"--seeds: {text!r} is {also or 'not '}a list of them, such as 0,1,2")
    if errors := seed_mistakes(numbers, "--seeds"):
        raise TinymimError(errors[0])
    return numbers


def check_jobs(jobs: int) -> None:
    """Raise unless ``jobs`` is a number of processes."""
    if jobs < 1:
        raise TinymimError(f"--jobs: {jobs} is not 1 or more")
