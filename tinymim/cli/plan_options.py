"""Options that the commands of many fits have in common, each under one name."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinymim.cli.help_page import Page
from tinymim.config import recipe
from tinymim.config.argument_errors import in_words
from tinymim.config.options import COMMAND_KEYS, KEYS
from tinymim.config.spec import seed_mistakes
from tinymim.errors import TinymimError

FURTHER = ("launch", "report_only", "accept_changes")
"""Common options that the short help page leaves out."""


def parser(
    command: str, about: str, whole: Callable[[], str | None] | None = None, examples: tuple[str, ...] = ()
) -> Page:
    """A parser of a command's options, see :class:`Page`."""
    return Page(prog=f"tinymim {command}", description=about, whole=whole, examples=examples, allow_abbrev=False)


def add_trust(parser: Page, what: str) -> None:
    """``--trust``, for ``what``."""
    parser.further().add_argument(
        "--trust",
        action="store_true",
        help=f"build classes that are not tinymim's own, which {what} names, and ask servers that it names",
    )


EVERY_FIT = "for every fit, or STAGE.KEY=VALUE for one, or seeds=[0]"
"""Settings that the command of a chain or scaling study takes, for the help."""


def add(options: Page, *names: str, folder: str = "", settings: str = EVERY_FIT) -> None:
    """Add some of the common options.

    Args:
        options: of a command.
        names: ``jobs``, ``run_dir``, ``accept_changes``, ``launch``, ``set``, ``seeds`` or ``report_only``.
        folder: the run folder by default, for the help.
        settings: what ``--set`` takes, likewise.
    """
    jobs = "fits at once; by default one a GPU, or a core, where they need no other first"
    launch = "put before each fit's command, such as srun, or 'torchrun ... --no-python'"
    every = {"nargs": "+", "action": "extend", "default": [], "metavar": "KEY=VALUE"}
    known: dict[str, dict[str, Any]] = {
        "run_dir": {"type": Path, "help": f"by default {folder}"},
        "seeds": {"help": "such as 0,1,2, in place of the file's"},
        "set": {**every, "help": settings},
        "jobs": {"type": number, "help": jobs},
        "launch": {"help": launch},
        "report_only": {"action": "store_true", "help": "run nothing, and report what is done"},
        "accept_changes": {
            "action": "store_true",
            "help": "run again what has changed since the last time; keep the rest",
        },
    }
    for name in filter(names.__contains__, known):
        group = options.further() if name in FURTHER else options
        group.add_argument(f"--{name.replace('_', '-')}", **known[name])


def hyphened(options: argparse.ArgumentParser, arguments: list[str]) -> list[str]:
    """Arguments with hyphens in the names of a parser's own options: underscores are taken too, as they were."""
    known = {text for action in options._actions for text in action.option_strings}
    spelt = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        hyphens = name.replace("_", "-")
        spelt.append(f"{hyphens}{equals}{value}" if name.startswith("--") and hyphens in known else argument)
    return spelt


def overrides(
    options: argparse.ArgumentParser, arguments: list[str], what: str, flags: tuple[str, ...] = ()
) -> tuple[argparse.Namespace, list[str]]:
    """A command's own options, and the others as overrides of recipes, in their order, as the last of a key counts;
    those of ``--set`` among them, and of options without a value the ``flags``.

    Raises:
        TinymimError: arguments that are neither.
    """
    marked, settings = _marked(hyphened(options, arguments))
    args, rest = options.parse_known_args(marked)
    pairs, unknown = recipe.split(rest)
    words = [text for text in unknown if not text.startswith("-")]
    for action in options._actions:  # words behind an option, which argparse gives to no list that may be empty
        if words and action.nargs == "*" and not getattr(args, action.dest):
            setattr(args, action.dest, words)
            unknown = [text for text in unknown if text.startswith("-")]
    strange = [text for text in unknown if text not in flags]
    if alone := [text for text in strange if text.startswith("-")]:
        known = [text for action in options._actions for text in action.option_strings]
        raise TinymimError(f"{_without_value(alone[0], known)}; {options.prog} --help lists them")
    if strange:
        raise TinymimError(f"no option of a {what}: {' '.join(strange)}; {options.prog} --help lists them")
    if wrong := [text for text in settings.values() if "=" not in text]:
        raise TinymimError(f"--set {wrong[0]}: is not KEY=VALUE")
    return args, [*(f"--{settings.get(key) or f'{key}={value}'}" for key, value in pairs), *unknown]


def _marked(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Arguments with a mark in place of each ``KEY=VALUE`` of ``--set``, and these by mark.

    Raises:
        TinymimError: none follows.
    """
    marked, settings, waits = list[str](), dict[str, str](), False
    for argument, behind in zip(arguments, [*arguments[1:], "-"], strict=True):
        if argument == "--set" and behind.startswith("-"):
            raise TinymimError("--set: its value is missing")
        joined = argument.startswith("--set=")
        waits = argument == "--set" or (waits and not argument.startswith("-"))
        if joined or (waits and argument != "--set"):
            mark = f"\0{len(settings)}"  # in no argument of a system's
            settings[mark] = argument.removeprefix("--set=")
            marked.append(f"--{mark}=.")
        elif not waits:
            marked.append(argument)
    return marked, settings


def check_seeds(overrides: list[str], others: str = "--seeds names others, as in --seeds 0,1") -> None:
    """Raise where overrides of recipes name the seeds of all fits, no option of a recipe; ``others`` says what does."""
    if wrong := [text for text in overrides if text.startswith("--seeds=")]:
        raise TinymimError(f"--set {wrong[0].removeprefix('--')}: seeds are no option of a recipe; {others}")


def _without_value(flag: str, known: list[str]) -> str:
    """Words on an option without a value that is none of a command's own, which are ``known``."""
    if "." in flag or flag.lstrip("-") in KEYS | COMMAND_KEYS:
        return f"{flag}: its value is missing"
    return in_words(f"unrecognized arguments: {flag}", [*known, *KEYS])


ONCE = ("help", "accept_changes", "overwrite", "report_only", "launch", "ckpt_path", "trust")
"""Options of one sitting: neither written into a plan's state nor taken from one."""


def again(options: argparse.ArgumentParser, args: argparse.Namespace, overrides: list[str] | None = None) -> str:
    """The command that goes on with a plan, as its state keeps it.

    Args:
        options: of the command.
        args: what it was begun with; options of one sitting are left out.
        overrides: of recipes, those of ``--set`` among them; ``None`` where ``--set`` alone gives them.
    """
    words = shlex.split(options.prog)
    for action in options._actions:
        value = getattr(args, action.dest, None)
        value = latest(value) if action.dest == "set" and value else value
        is_set = action.dest == "set" and overrides is not None
        if action.dest in ONCE or is_set or value is None or value == action.default:
            continue
        if isinstance(value, list) and action.nargs is None:
            value = ",".join(value)
        words += action.option_strings[:1]
        if value is not True:
            words += [str(word) for word in value] if isinstance(value, list) else [str(value)]
    return shlex.join([*words, *latest(overrides or [])])


def latest(overrides: list[str]) -> list[str]:
    """Overrides without those that a later one of the same key replaces: mappings are merged, and ``KEY+`` adds."""
    kept, replaced = list[str](), set[str]()
    for text in reversed(overrides):
        key, _, value = text.partition("=")
        if key not in replaced:
            kept.append(text)
        if not key.endswith("+") and not value.lstrip().startswith("{"):
            replaced.add(key)
    return kept[::-1]


def begun(options: argparse.ArgumentParser, command: str, folder: str) -> list[str]:
    """The arguments of the command that a plan's state was begun with, which goes on in ``folder``.

    Raises:
        TinymimError: it is another command, or has options of one sitting, such as ``--overwrite``.
    """
    prog = shlex.split(options.prog)
    try:
        words = shlex.split(command)
    except ValueError:  # a quote that is not closed
        words = []
    written = hyphened(options, words[len(prog) :])
    once = {text for action in options._actions if action.dest in ONCE for text in action.option_strings}
    if words[: len(prog)] != prog or any(word.partition("=")[0] in once for word in written):
        raise TinymimError(
            f"{folder}: its state was begun with {command!r}, which is not what begins such a plan; give the command "
            f"yourself: {options.prog} ... --run-dir {folder}"
        )
    return [*written, "--run-dir", folder]


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


def number(text: str) -> int:
    """The number of fits that ``--jobs`` gives."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise TinymimError(f"--jobs: {text} is not a whole number, 1 or more")
    return int(text)
