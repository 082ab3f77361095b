"""``tinymim papers``: run every part of a program, or go on with it, and write one report of all of them.

RUN/PART/                    what the part's commands write
RUN/papers.json, plan.json   how each part went, and each command
RUN/report.html, report.md   written anew after each part

A part that failed does not keep the others from running. The same command goes on: each part is run again, and keeps
what it finds done.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from tinymim.cli import plan_options
from tinymim.cli.chapters import READERS
from tinymim.config import recipe
from tinymim.errors import TinymimError, several
from tinymim.experiments import program, program_report, state
from tinymim.experiments.program import Part, Program
from tinymim.experiments.runner import Runner
from tinymim.experiments.state import State
from tinymim.files import write_json
from tinymim.training import lock, run_folder

STATE = "papers.json"
FURTHER = "Further options are values of the program's vars, such as --teacher runs/mine/checkpoints/last.ckpt."


def parser() -> argparse.ArgumentParser:
    """The options of ``tinymim papers``; others are values of the program's ``vars``."""
    options = plan_options.parser("papers", __doc__, f"{FURTHER}\n\n{program.__doc__}")
    options.add_argument("name", nargs="?", default=program.SHIPPED, help="a program of recipes/papers, or a path")
    options.add_argument("--quick", action="store_true", help="the program's short form, in a folder of its own")
    options.add_argument("--parts", type=lambda text: text.split(","), help="run these parts alone")
    folder = "runs/papers, of another program runs/papers_NAME; runs/..._quick"
    plan_options.add(options, "run_dir", "report_only", folder=folder)
    return options


def main(arguments: list[str]) -> int:
    """Run a program, or go on with it where it was left; the exit code.

    Raises:
        TinymimError: mistakes in the program, or failed parts at the end.
    """
    options = parser()
    own, values = _apart(options, plan_options.hyphened(options, arguments))
    asked, rest = options.parse_known_args(own)
    pairs, flags = recipe.split(values)
    unknown = [*rest, *flags]
    if unknown:
        raise TinymimError(f"no option of a program: {' '.join(unknown)}; tinymim papers --help lists them")
    place = asked.run_dir or program.folder(Path(asked.name).stem, asked.quick)
    whole = program.load(asked.name, place, asked.quick, {key: _value(value) for key, value in pairs})
    ids = [part.id for part in whole.parts]
    if wrong := [id for id in asked.parts or [] if id not in ids]:
        raise TinymimError(f"--parts: {', '.join(wrong)}: no such part; there are {', '.join(ids)}")
    code = 0
    with lock.hold(place, "run_dir"):
        if asked.report_only:
            program_report.write(whole, _states(place), place, READERS)
        else:
            command = f"tinymim papers {asked.name}{' --quick' if asked.quick else ''}"
            code = _run(whole, [part for part in whole.parts if part.id in (asked.parts or ids)], place, command)
    if code == 0:
        print(f"\nthe report: {place / program_report.PAGE} (and {place / program_report.TEXT})")
    return code


def _apart(options: argparse.ArgumentParser, arguments: list[str]) -> tuple[list[str], list[str]]:
    """Arguments of the command, and values of ``vars`` with their keys: the parser would take a value that stands by
    itself for the program's name."""
    known = {text for action in options._actions for text in action.option_strings}
    own: list[str] = []
    values: list[str] = []
    waits = False
    for argument in arguments:
        key = argument.partition("=")[0]
        is_value = (key.startswith("--") and key not in known) if argument.startswith("-") else waits
        (values if is_value else own).append(argument)
        waits = is_value and key == argument and key.startswith("--")
    return own, values


def _value(text: str) -> Any:
    """A value of ``vars`` as typed: YAML."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise TinymimError(f"{text!r} is not YAML; quote it") from None


def _run(whole: Program, parts: list[Part], place: Path, command: str) -> int:
    """Run the parts one after the other, and keep the report up to date."""
    plan = program.plan(whole, command)
    current, states = state.begin(place, plan), _states(place)  # each part finds by itself what is done
    by_key = {key: part for part in parts for key in program.keys(part)}
    current.save()

    def ended(key: str) -> None:
        part = by_key[key]
        if current.entries[key].state == "failed" or key == part.id:
            states[part.id] = _how(current, part)
            _write(whole, states, place)
            program_report.write(whole, states, place, READERS)

    try:
        code = Runner(current, by_key, ended=ended, shown=True).run()
    except TinymimError:
        failures = [f"{part.id}: {states[part.id]['error']}" for part in parts if "error" in states.get(part.id, {})]
        if not failures:
            raise
        raise several(
            f"{len(failures)} of {len(parts)} part(s) failed, and the report says which; the same command tries them "
            "again, and a part's own command, which stands there, takes its own options",
            failures,
        ) from None
    finally:
        for part in parts:
            if any(current.entries[key].state == "interrupted" for key in program.keys(part)):
                states[part.id] = _how(current, part)
                _write(whole, states, place)
    return code


def _how(current: State, part: Part) -> dict[str, Any]:
    """How a part went."""
    entries = [current.entries[key] for key in program.keys(part)]
    times = [[datetime.fromisoformat(time) for time in (one.started, one.ended) if time] for one in entries]
    seconds = sum((time[1] - time[0]).total_seconds() for time in times if len(time) == 2)
    how: dict[str, Any] = {"status": next((one.state for one in entries if one.state != "done"), "done")}
    if errors := [one.error for one in entries if one.error]:
        how["error"] = errors[0]
    return {**how, "seconds": round(seconds, 1), "commands": part.lines()}


def _write(whole: Program, states: dict[str, Any], place: Path) -> None:
    write_json(place / STATE, {"environment": run_folder.environment(), "quick": whole.quick, "parts": states})


def _states(place: Path) -> dict[str, Any]:
    """How the parts went, as far as they were run."""
    path = place / STATE
    try:
        return json.loads(path.read_text())["parts"] if path.is_file() else {}
    except (ValueError, KeyError) as error:
        raise TinymimError(
            f"{path} cannot be read ({error}); remove it, and finished runs are found by the parts"
        ) from None
