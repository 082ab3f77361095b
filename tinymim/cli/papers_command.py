"""``tinymim papers``: run every part of a program, or go on with it, and write one report of all of them.

RUN/PART/                    what the part's commands write
RUN/plan.json                how each command went
RUN/report.html, report.md   written anew after each part

A part that failed does not keep the others from running. The same command goes on: each part is run again, and keeps
what it finds done.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tinymim.cli import plan_options
from tinymim.cli.chapters import READERS
from tinymim.cli.plan_command_options import papers as parser
from tinymim.config import recipe
from tinymim.errors import TinymimError, counted, several
from tinymim.experiments import program, program_report
from tinymim.experiments.runner import Runner
from tinymim.near_names import strangers
from tinymim.training import lock


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse a command line: its options, and values of the program's ``vars``, as ``--KEY=VALUE`` each.

    Raises:
        TinymimError: arguments that are neither.
    """
    options = parser()
    options_given, values = _apart(options, plan_options.hyphened(options, arguments))
    args, rest = options.parse_known_args(options_given)
    pairs, flags = recipe.split(values)
    if unknown := [*rest, *flags]:
        raise TinymimError(f"no option of a program: {' '.join(unknown)}; tinymim papers --help lists them")
    return args, [f"--{key}={value}" for key, value in pairs]


def main(arguments: list[str]) -> int:
    """Run a program, or go on with it where it was left; the exit code.

    Raises:
        TinymimError: mistakes in the program, or failed parts at the end.
    """
    options = parser()
    args, overrides = parse(arguments)
    place = args.run_dir or program.folder(Path(args.name).stem, args.quick)
    pairs, _ = recipe.split(overrides)
    whole = program.load(args.name, place, args.quick, {key: _value(value) for key, value in pairs})
    ids = [part.id for part in whole.parts]
    if wrong := [id for id in args.parts or [] if id not in ids]:
        raise TinymimError(f"--parts: {args.name} has no {strangers(wrong, ids)}")
    parts = [] if args.report_only else [part for part in whole.parts if part.id in (args.parts or ids)]
    last = {key: part for part in parts for key in program.keys(part)}
    command = plan_options.again(options, args, overrides)
    with lock.hold(place, "run_dir"):
        current = program.current(whole, place, command, last)

        def ended(key: str) -> None:
            if current.entries[key].state == "failed" or key == last[key].id:
                program_report.write(whole, current, READERS)

        if not parts:
            program_report.write(whole, current, READERS)
        else:
            current.save()
            try:
                if code := Runner(current, last, ended=ended, shown=True).run():
                    return code
            except TinymimError:
                failures = [f"{part.id}: {error}" for part in parts if (error := program.how(current, part)[1])]
                if not failures:
                    raise
                raise several(
                    f"{len(failures)} of {counted(len(parts), 'part')} failed, and the report says which; the same "
                    "command tries them again, and a part's own command, which stands there, takes its own options",
                    failures,
                ) from None
    print(f"\nthe report: {place / program_report.PAGE} (and {place / program_report.TEXT})")
    return 0


def _apart(options: argparse.ArgumentParser, arguments: list[str]) -> tuple[list[str], list[str]]:
    """Arguments of the command, and values of ``vars`` with their keys: the parser would take a value that stands by
    itself for the program's name."""
    known = {text for action in options._actions for text in action.option_strings}
    ours: list[str] = []
    values: list[str] = []
    waits = False
    for argument in arguments:
        key = argument.partition("=")[0]
        is_value = (key.startswith("--") and key not in known) if argument.startswith("-") else waits
        (values if is_value else ours).append(argument)
        waits = is_value and key == argument and key.startswith("--")
    return ours, values


def _value(typed: str) -> Any:
    """A value of ``vars`` as typed: YAML."""
    import yaml

    try:
        return yaml.safe_load(typed)
    except yaml.YAMLError:
        raise TinymimError(f"{typed!r} is not YAML; quote it") from None
