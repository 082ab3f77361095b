"""Run what is left of a chain: each stage in a process of its own, through the command that a user would give.

A stage that fails keeps those that start from it from running; other branches go on. A signal stops everything.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from tinymim import precision
from tinymim.errors import TinymimError, several
from tinymim.experiments import artefacts, workers
from tinymim.experiments.changes import digest
from tinymim.experiments.state import State, now, read_json, recipe_path
from tinymim.log import say
from tinymim.training import lock, run_folder
from tinymim.training.preemption import Preempted
from tinymim.training.run_folder import PROGRESS

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""What stops a chain. Each reaches the stage as SIGTERM, which torchrun and srun pass on; SIGUSR1 would end torchrun,
and srun takes SIGINT for a question."""

COMMAND = [sys.executable, "-m", "tinymim"]


@dataclass
class Running:
    """A stage's process.

    Args:
        process: itself.
        log: where its output goes, unless it is the terminal.
        before: when its progress was written last, before it began.
        asked: how often it was asked to stop.
    """

    process: subprocess.Popen[bytes]
    log: IO[bytes] | None
    before: int
    asked: int = 0


class Runner:
    """One sitting of a chain.

    Args:
        state: of the chain; kept up to date in its file.
        jobs: stages at once.
        ended: called with the key of each stage that is done or has failed.
        logged: keep each stage's output in a file of its own, as is always done where several run at once.
        again: the command that goes on with it.
    """

    def __init__(
        self,
        state: State,
        jobs: int = 1,
        ended: Callable[[str], None] = lambda key: None,
        logged: bool = False,
        again: str = "",
    ):
        self.state, self.jobs, self.ended, self.logged = state, jobs, ended, logged or jobs > 1
        self.again = again or f"tinymim chain resume {shlex.quote(str(state.place))}"
        self.running: dict[str, Running] = {}
        self._tried: set[str] = set()
        self._signals, self._told = 0, False

    def run(self) -> int:
        """Run all that can run.

        Returns:
            0, or :attr:`Preempted.code` where a signal stopped it.

        Raises:
            TinymimError: stages failed.
        """
        self._nobody_at_work()
        with self._listening():
            while True:
                self._tell()
                for ended in [key for key, stage in self.running.items() if stage.process.poll() is not None]:
                    self._ended(ended)
                while not self._signals and len(self.running) < self.jobs and (key := self._next()):
                    self._start(key)
                if not self.running and (self._signals or not self._next()):
                    break
                time.sleep(0.05)
        return self._verdict()

    def _tell(self) -> None:
        """Say once which stages were asked to stop, those among them that have ended since."""
        if not self._told and (asked := [key for key, stage in self.running.items() if stage.asked]):
            say(f"stopping: {', '.join(asked)} is asked to save; once more, and it ends at once")
            self._told = True

    def _verdict(self) -> int:
        state, entries = self.state, self.state.entries
        failures = [f"{key}: {entry.error}" for key, entry in entries.items() if entry.state == "failed"]
        if self._signals:
            done = sum(entry.state == "done" for entry in entries.values())
            for failure in failures:
                say(f"failed: {failure}")
            how_far = f"interrupted, {done} of {len(entries)} stages are done"
            say(f"chain {state.chain.name}: {how_far}; go on with: {self.again}")
            return Preempted.code
        if failures:
            waiting = sum(entry.state == "waiting" for entry in entries.values())
            also = f", and {waiting} that start from them wait" if waiting else ""
            what = f"{len(failures)} of {len(entries)} stages failed{also}"
            raise several(f"{what}; try again with: {self.again}", failures)
        return 0

    def _next(self) -> str | None:
        """A stage that can start now."""
        for key, entry in self.state.entries.items():
            parent = self.state.chain.parent(key)
            ready = parent is None or self.state.entries[parent].state == "done"
            if ready and entry.state != "done" and key not in self._tried:
                return key
        return None

    def _start(self, key: str) -> None:
        """Begin a stage, or go on with it."""
        self._tried.add(key)
        state, entry, stage = self.state, self.state.entries[key], self.state.stage(key)
        place = state.place / key
        self._make_ready(key, place)
        number = list(state.entries).index(key) + 1
        what = " ".join(filter(None, (stage.kind, stage.recipe, f"from {stage.start or 'scratch'}")))
        say(f"\n== stage {number} of {len(state.entries)}, {key}: {what}")
        entry.inputs = artefacts.inputs(state, key)
        entry.recipe, entry.started = digest(stage), entry.started or now()
        entry.state, entry.ended, entry.exit_code, entry.error, entry.outputs = "running", None, None, None, {}
        state.save()
        log, environment = None, dict(os.environ)
        if self.logged:
            path = state.place / "logs" / f"{key.replace('/', '-')}.txt"
            path.parent.mkdir(exist_ok=True)
            log = path.open("ab")
            say(f"   its output: {path}")
            environment.setdefault("OMP_NUM_THREADS", str(max(workers.cores() // self.jobs, 1)))
        try:
            process = subprocess.Popen(  # in a session of its own: ctrl-C must reach it once, by way of this process
                self.arguments(key), env=environment, start_new_session=True, stdout=log, stderr=log and log.fileno()
            )
        except OSError as error:
            self._failed(key, f"{self.arguments(key)[0]} cannot be started: {error.strerror}")
            return
        self.running[key] = Running(process, log, _written(place))
        self._pass_on()
        entry.process = {"host": socket.gethostname(), "pid": process.pid}
        state.save()

    def _nobody_at_work(self) -> None:
        """Raise where a stage's process outlived the chain that began it: a second one would do the same work."""
        for key, entry in self.state.entries.items():
            place = self.state.place / key
            if entry.state == "running" and (pid := _alive(entry.process, place)):
                raise TinymimError(
                    f"stage {key} is still being run by pid {pid}, which outlived its chain; wait for it, or have it "
                    f"save and end with `kill {pid}`"
                )
            if entry.state != "done" and place.exists():
                with lock.hold(place, f"stage {key}"):
                    pass

    def _make_ready(self, key: str, place: Path) -> None:
        """A stage that begins finds nothing of an earlier one."""
        left = place.is_dir() and any(path.name != lock.NAME for path in place.iterdir())
        if left and self.state.entries[key].state == "waiting" and self.state.stage(key).kind != "export":
            run_folder.clear(place, resume=False)

    def arguments(self, key: str) -> list[str]:
        """The command line of a stage."""
        state, stage, place = self.state, self.state.stage(key), self.state.place / key
        source = artefacts.source(state, key)
        if stage.kind == "export":
            return [*COMMAND, "export", str(source or stage.start), str(place / artefacts.EXPORTED), "--overwrite"]
        own = ["--config", str(recipe_path(state.place, stage.name)), f"--run_dir={json.dumps(str(place))}"]
        if (seed := state.chain.runs()[key]) is not None:
            own.append(f"--seed_everything={seed}")
        if precision.is_auto(stage.config):
            alike = [other for other in state.entries if precision.is_auto(state.stage(other).config)]
            if settled := run_folder.precision_in(state.place / other for other in (key, *alike)):
                own.append(f"--trainer.precision={settled}")  # by an earlier stage, maybe on another machine
        if stage.parent:
            option = "teacher" if stage.kind == "distill" else "weights"
            own.append(f"--model.{option}={json.dumps(str(source))}")
        return [*shlex.split(state.launch), *COMMAND, "fit", *own, "--ckpt_path", "last"]

    def _ended(self, key: str) -> None:
        """Note how a stage has ended."""
        self._tell()  # a signal may have come since the last look
        stage, entry, place = self.running.pop(key), self.state.entries[key], self.state.place / key
        if stage.log:
            stage.log.close()
        code = stage.process.returncode
        entry.exit_code = code
        outputs = artefacts.outputs(self.state, key) if code == 0 else {}
        if code == 0 and set(outputs) == set(artefacts.promised(self.state, key)):
            entry.state, entry.outputs, entry.ended = "done", outputs, now()
            self.state.save()
            self.ended(key)
            return
        saved = _written(place) != stage.before and read_json(place / PROGRESS).get("state") == "preempted"
        if code == Preempted.code or self._signals or (code and saved):
            entry.state, entry.ended = "interrupted", now()
            self.state.save()
            self._signals = self._signals or 1  # whoever stops one stage means the chain
            self._pass_on()
            return
        missing = ", ".join(name for name in artefacts.promised(self.state, key) if name not in outputs)
        how = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
        how += " (often a lack of memory)" if code == -signal.SIGKILL else ""
        error = how if code else f"ended without {missing}"
        self._failed(key, f"{error}{_last_line(stage.log)}")

    def _failed(self, key: str, error: str) -> None:
        entry = self.state.entries[key]
        entry.state, entry.error, entry.ended = "failed", error, now()
        self.state.save()
        say(f"== {key} failed: {error}")
        self.ended(key)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Stop on a signal; one that is ignored, as under nohup, stays ignored."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._signals += 1
            self._pass_on()

        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _pass_on(self) -> None:
        """Ask each process to stop, as often as this one was asked."""
        for stage in list(self.running.values()):
            while stage.asked < self._signals:
                stage.asked += 1
                with contextlib.suppress(ProcessLookupError):
                    stage.process.send_signal(signal.SIGTERM)


def check_jobs(jobs: int) -> None:
    """Raise unless ``jobs`` is a number of processes."""
    if jobs < 1:
        raise TinymimError(f"--jobs: {jobs} is not 1 or more")


def _alive(process: dict[str, Any], place: Path) -> int | None:
    """The id of a recorded process that still runs on this host: its command line names the folder, as no other's that
    was given the same id would."""
    pid = process.get("pid")
    if pid is None or process.get("host") != socket.gethostname():
        return None
    with contextlib.suppress(OSError):
        if str(place).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            return int(pid)
    return None


def _written(place: Path) -> int:
    """When the progress in a run folder was written last; 0 where there is none."""
    path = place / PROGRESS
    return path.stat().st_mtime_ns if path.is_file() else 0


def _last_line(log: IO[bytes] | None) -> str:
    """The end of a message: what a process said last, where that was kept."""
    if log is None:
        return "; what it said is above"
    lines = [line for line in Path(log.name).read_text(errors="replace").splitlines() if line.strip()]
    return f": {textwrap.shorten(lines[-1], 500, placeholder=' ...')} ({log.name})" if lines else f" ({log.name})"
