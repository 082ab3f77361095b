"""``tinymim papers``: run every part of a program, or go on with it, and write one report of all of them.

RUN/PART/                    what the part's commands write
RUN/papers.json              how each part went
RUN/report.html, report.md   written anew after each part

A part that failed does not keep the others from running. The same command goes on: each part is run again, and keeps
what it finds done.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinymim.config import recipe
from tinymim.errors import TinymimError, several
from tinymim.experiments import program, program_report
from tinymim.experiments.program import Part, Program
from tinymim.files import write_json
from tinymim.log import say
from tinymim.training import lock, run_folder
from tinymim.training.preemption import Preempted
from tinymim.training.progress import clock

STATE = "papers.json"
SHIPPED = "embedded"
FURTHER = "Further options are values of the program's vars, such as --teacher runs/mine/checkpoints/last.ckpt."
INTERRUPTED = "interrupted; the same command goes on"


def parser() -> argparse.ArgumentParser:
    """The options of ``tinymim papers``; others are values of the program's ``vars``."""
    options = argparse.ArgumentParser(
        prog="tinymim papers", description=__doc__, allow_abbrev=False,
        epilog=f"{FURTHER}\n\n{program.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    options.add_argument("name", nargs="?", default=SHIPPED, help=f"a program of recipes/papers, or a path ({SHIPPED})")
    options.add_argument("--quick", action="store_true", help="the program's short form, in a folder of its own")
    options.add_argument("--parts", type=lambda text: text.split(","), help="run these parts alone")
    options.add_argument(
        "--run_dir", type=Path, help="by default runs/papers, of another program runs/papers_NAME; runs/..._quick"
    )
    options.add_argument("--report_only", action="store_true", help="run nothing, write the report of what is there")
    return options


def main(arguments: list[str]) -> int:
    """Run a program, or go on with it where it was left.

    Raises:
        TinymimError: mistakes in the program, an interruption, or failed parts at the end.
    """
    options, rest = parser().parse_known_args(arguments)
    pairs, unknown = recipe.split(rest)
    if unknown:
        raise TinymimError(f"no option of a program: {' '.join(unknown)}; tinymim papers --help lists them")
    name = Path(options.name).stem
    own = "papers" if name == SHIPPED else f"papers_{name}"
    place = options.run_dir or Path("runs") / f"{own}{'_quick' if options.quick else ''}"
    whole = program.load(options.name, place, options.quick, {key: _value(value) for key, value in pairs})
    ids = [part.id for part in whole.parts]
    if wrong := [id for id in options.parts or [] if id not in ids]:
        raise TinymimError(f"--parts: {', '.join(wrong)}: no such part; there are {', '.join(ids)}")
    with lock.hold(place, "run_dir"):
        if options.report_only:
            program_report.write(whole, _states(place), place)
        else:
            _run(whole, [part for part in whole.parts if not options.parts or part.id in options.parts], place)
    print(f"\nthe report: {place / program_report.PAGE} (and {place / program_report.TEXT})")
    return 0


def _value(text: str) -> Any:
    """A value of ``vars`` as typed: YAML."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise TinymimError(f"{text!r} is not YAML; quote it") from None


def _run(whole: Program, parts: list[Part], place: Path) -> None:
    """Run what is not done, one part after the other, and keep the report up to date."""
    states, start = _states(place), time.monotonic()
    for number, part in enumerate(parts, start=1):
        say(f"== part {number} of {len(parts)}, {part.id}: {part.title}")
        began, how = time.monotonic(), {"status": "interrupted"}
        try:
            for words, line in zip(part.commands, part.lines(), strict=True):
                say(f"-- {line}")
                if error := _call(words):
                    how = {"status": "failed", "error": error}
                    break
            else:
                how = {"status": "done"}
        finally:
            states[part.id] = {**how, "seconds": round(time.monotonic() - began, 1), "commands": part.lines()}
            write_json(place / STATE, {"environment": run_folder.environment(), "quick": whole.quick, "parts": states})
        program_report.write(whole, states, place)
        say(f"== {part.id}: {how.get('error', 'done')} ({clock(time.monotonic() - start)} so far)")
    failures = [f"{part.id}: {states[part.id]['error']}" for part in parts if states[part.id]["status"] == "failed"]
    if failures:
        raise several(
            f"{len(failures)} of {len(parts)} part(s) failed, and the report says which; the same command tries them "
            "again, and a part's own command, which stands there, takes its own options",
            failures,
        )


def _call(words: list[str]) -> str | None:
    """Run one command as a process of its own; why it failed, or ``None``.

    Raises:
        Preempted: the command was asked to save, and has ended.
    """
    process = subprocess.Popen([sys.executable, "-m", "tinymim", *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said: list[str] = []
    try:
        with _terminated():
            for line in process.stderr:  # shown, and kept for the report
                sys.stderr.write(line)
                sys.stderr.flush()
                said = [*said[-20:], line.strip()] if line.strip() else said
            code = process.wait()
    except KeyboardInterrupt:
        _end(process)
        raise Preempted(INTERRUPTED) from None
    if code == 0:
        return None
    if code == Preempted.code:
        raise Preempted(INTERRUPTED)
    begun = [place for place, line in enumerate(said) if line.startswith("tinymim ")]
    last = " ".join(said[begun[-1] if begun else -1 :])
    how = f"ended with code {code}" if code > 0 else f"was ended by signal {-code}"
    return f"`tinymim {words[0]}` {how}{f': {last}' if last else ''}"


@contextmanager
def _terminated() -> Iterator[None]:
    """Take SIGTERM, by which a cluster ends a job, for ctrl-C."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(process: subprocess.Popen[str]) -> None:
    """Have a command save and end; from a terminal, ctrl-C has reached it already."""
    try:
        process.communicate(timeout=2)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate()


def _states(place: Path) -> dict[str, Any]:
    """How the parts went, as far as they were run."""
    path = place / STATE
    try:
        return json.loads(path.read_text())["parts"] if path.is_file() else {}
    except (ValueError, KeyError) as error:
        raise TinymimError(
            f"{path} cannot be read ({error}); remove it, and finished runs are found by the parts"
        ) from None
