"""Run what is left of a plan, several stages at once where they do not need each other.

A stage that fails keeps those that build on it from running; other branches go on. A signal stops everything: every
stage at work is asked to save.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tinymim import precision
from tinymim.config import references
from tinymim.errors import TinymimError, counted, several
from tinymim.experiments import fit_files, fit_processes, side_by_side
from tinymim.experiments.fit_processes import Process
from tinymim.experiments.plan_changes import digest
from tinymim.experiments.state import State, now
from tinymim.experiments.status import failures, headline
from tinymim.experiments.stop_signals import StopSignals
from tinymim.experiments.tally import Tally
from tinymim.files import unwritten
from tinymim.log import say
from tinymim.safety.text import json_or_empty
from tinymim.system import INTERRUPTED, KILLED, PREEMPTED, cores
from tinymim.training import lock, run_folder, run_record
from tinymim.training.run_folder import PROGRESS


@dataclass
class Running:
    """A stage's process: where its output goes, when its progress was written last before it began, when it began, its
    GPUs, and how often it was asked to stop."""

    process: Process
    log: Path | None
    before: int
    begun: float
    gpus: list[str]
    requests: int = 0


class Runner:
    """One sitting of a plan.

    Args:
        state: of the plan; kept up to date in its file.
        keys: of the fits to run; by default all.
        jobs: stages at once; ``None`` is as :func:`side_by_side.at_once` has it.
        ended: called with the key of each stage that is done or has failed.
        describe: what to say of one that is done.
        quiet: keep each stage's output in a file of its own, as is always done where several run at once, and say in
            few words that it begins.
        shown: what stages say is shown too.
    """

    def __init__(
        self,
        state: State,
        keys: Iterable[str] | None = None,
        jobs: int | None = 1,
        ended: Callable[[str], object] = lambda key: None,
        describe: Callable[[str], str] | None = None,
        quiet: bool = False,
        shown: bool = False,
    ):
        self.state, self.ended = state, ended
        self.describe = describe or (lambda key: headline(state, key))
        self.keys = list(state.entries if keys is None else (key for key in state.entries if key in set(keys)))
        self.jobs = side_by_side.at_once(state.plan, self.keys) if jobs is None else jobs
        self.shown, self.quiet, self.logged = shown, quiet, quiet or shown or self.jobs > 1
        self.again = state.again
        self.running: dict[str, Running] = {}
        self._gpus = side_by_side.gpus(state.plan) if self.jobs > 1 and not state.launch else []
        self._tried: set[str] = set()
        self._signals, self._told = StopSignals(self._pass_on), False
        self._trouble: TinymimError | None = None
        self._lock = _inode(state.place)
        self._tally = Tally(key for key in self.keys if state.entries[key].state != "done")
        self._precision: str | None = None

    def run(self) -> int:
        """Run all that can run.

        Returns:
            0, or one of :data:`INTERRUPTED` where a signal stopped it.

        Raises:
            TinymimError: stages failed, or the plan's folder can no longer be written.
        """
        self._nobody_at_work()
        try:
            with self._signals:
                while True:
                    self._tell()
                    for ended in [key for key, stage in self.running.items() if stage.process.poll() is not None]:
                        self._ended(ended)
                    while not self._signals.count and len(self.running) < self.jobs and (key := self._next()):
                        self._start(key)
                    if not self.running and (self._signals.count or not self._next()):
                        break
                    if self._signals.overdue:
                        self._kill(self.running.values())
                    self._tally.watch({key: stage.log for key, stage in self.running.items() if stage.log})
                    time.sleep(0.05)
        finally:
            if not (self.shown or self.state.launch):  # only after an exception; a command of its own may live on
                self._kill(self.running.values())
        return self._verdict()

    def _kill(self, stages: Iterable[Running]) -> None:
        for stage in stages:
            with contextlib.suppress(ProcessLookupError):
                stage.process.kill()

    def _save(self) -> None:
        """Write the state; where that cannot be done, every stage is asked to save, and none is begun."""
        try:
            if _inode(self.state.place) != self._lock:
                raise TinymimError("it was moved or removed meanwhile, and nothing is written into another one")
            self.state.save()
        except (TinymimError, OSError) as error:
            reason = error if isinstance(error, TinymimError) else unwritten(error)
            place = self.state.place
            again = f"put that right, then go on with: {self.again}"
            self._trouble = self._trouble or TinymimError(f"{place} cannot be written: {reason}; {again}")
            self._signals.ask()

    def _tell(self) -> None:
        """Say once which stages were asked to stop, those among them that have ended since."""
        if not self._told and (stopping := [key for key, stage in self.running.items() if stage.requests]):
            say(f"stopping: {', '.join(stopping)} is asked to save; once more, and it ends at once")
            self._told = True

    def _verdict(self) -> int:
        plan, entries = self.state.plan, {key: self.state.entries[key] for key in self.keys}
        failed = sum(entry.state == "failed" for entry in entries.values())
        why = [f"{keys}: {reason}" for keys, reason in failures(entries).items()]
        if self._trouble:
            raise self._trouble
        if self._signals.count:
            done = sum(entry.state == "done" for entry in entries.values())
            for failure in why:
                say(f"failed: {failure}")
            how_far = f"interrupted, {done} of {counted(len(entries), 'stage')} done"
            say(f"{plan.kind} {plan.name}: {how_far}; go on with: {self.again}")
            return self._signals.code
        if why:
            waiting = sum(entry.state == "waiting" for entry in entries.values())
            also = f", and {waiting} that build on them wait" if waiting else ""
            what = f"{failed} of {counted(len(entries), 'stage')} failed{also}"
            raise several(f"{what}; try again with: {self.again}", why)
        return 0

    def _next(self) -> str | None:
        """A stage that can start now: the first, or beside others the longest of those in its folder, so that none runs
        alone at the end for longer than it must."""
        entries = self.state.entries
        ready = (
            key
            for key in self.keys
            if entries[key].state != "done"
            and key not in self._tried
            and all(entries[source].state == "done" for source in self.state.plan.sources(key).values())
        )
        first = next(ready, None)
        if first is None or self.jobs == 1:
            return first
        return self._tally.longest([first, *(key for key in ready if Path(key).parent == Path(first).parent)])

    def _start(self, key: str) -> None:
        """Begin a stage, or go on with it."""
        self._tried.add(key)
        state, entry, stage = self.state, self.state.entries[key], self.state.plan.stage(key)
        place = state.place / key
        self._make_ready(key, place)
        log = state.place / "logs" / f"{key.replace('/', '-')}.txt" if self.logged else None
        if self.quiet:
            begun = sum(each in self._tried or self.state.entries[each].state == "done" for each in self.keys)
            self._tally.began(key, begun, len(self.keys))
        else:
            what = " ".join(filter(None, (stage.kind, stage.recipe, f"from {stage.start or 'scratch'}")))
            if stage.kind == "command":
                what = shlex.join(["tinymim", *stage.config["words"]])
            where = f" (its output: {log})" if log and not self.shown else ""
            say(f"\n== stage {self.keys.index(key) + 1} of {len(self.keys)}, {key}: {what}{where}")
        entry.inputs = fit_files.inputs(state, key)
        entry.recipe, entry.started = digest(stage), entry.started or now()
        entry.state, entry.ended, entry.exit_code, entry.error, entry.outputs = "running", None, None, None, {}
        self._save()
        if self._trouble:
            entry.state = "interrupted"
            return
        settled = self._settled(key) if precision.is_auto(stage.config) else None
        words = fit_files.command(state, key, settled)
        launch = shlex.split(state.launch) if stage.kind != "export" else []
        in_use = [stage.gpus for stage in self.running.values()]
        gpus = min(self._gpus, key=in_use.count, default=[])
        try:
            process = fit_processes.start(words, log, max(cores() // self.jobs, 1), launch, self.shown, gpus)
        except OSError as error:
            self._failed(key, f"{[*launch, 'a process'][0]} cannot be started: {error.strerror}")
            return
        self.running[key] = Running(process, log, _written(place), time.monotonic(), gpus)
        self._pass_on()
        entry.process = {"host": socket.gethostname(), "pid": process.pid}
        self._save()

    def _settled(self, key: str) -> str | None:
        """The precision that ``auto`` means: what it was for an earlier stage, maybe on another machine; or what it is
        here, once for all stages, unless a launcher may take them elsewhere."""
        alike = [other for other in self.state.entries if precision.is_auto(self.state.plan.stage(other).config)]
        before = run_record.precision_in(self.state.place / other for other in (key, *alike))
        if before or self.state.launch:
            return before
        if self._precision is None:
            config = references.filled(self.state.plan.stage(key).config)
            self._precision = precision.of(precision.settle(config))
        return self._precision

    def _nobody_at_work(self) -> None:
        """Raise where a stage's process outlived the command that began it: a second one would do the same work."""
        for key in self.keys:
            entry, place = self.state.entries[key], self.state.place / key
            if entry.state == "running" and (pid := fit_processes.alive(entry.process, place)):
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
        fitted = self.state.plan.stage(key).kind not in ("export", "command")
        if left and fitted and self.state.entries[key].state == "waiting":
            run_folder.clear(place, resume=False)

    def _ended(self, key: str) -> None:
        """Record the end of a stage."""
        self._tell()  # a signal may have come since the last look
        stage, entry, place = self.running.pop(key), self.state.entries[key], self.state.place / key
        code = stage.process.poll() or 0
        entry.exit_code = code
        outputs = fit_files.outputs(self.state, key) if code == 0 else {}
        if code == 0 and set(outputs) == set(fit_files.promised(self.state, key)):
            entry.state, entry.outputs, entry.ended = "done", outputs, now()
            self._save()
            self._tally.ended(key, self.describe(key), time.monotonic() - stage.begun)
            self.ended(key)
            return
        saved = _written(place) != stage.before and json_or_empty(place / PROGRESS).get("state") == "preempted"
        if code in INTERRUPTED or self._signals.count or (code and saved):
            entry.state, entry.ended = "interrupted", now()
            self._save()
            self._signals.ask(code if code in INTERRUPTED else PREEMPTED)  # it stops the whole plan
            return
        missing = ", ".join(name for name in fit_files.promised(self.state, key) if name not in outputs)
        how = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
        how += " (often a lack of memory)" if code == KILLED else ""
        error = how if code else f"ended without {missing}"
        ending = f": {fit_processes.last_line(stage.log)} ({stage.log})" if stage.log else "; what it said is above"
        self._failed(key, f"{error}{ending}")

    def _failed(self, key: str, error: str) -> None:
        entry = self.state.entries[key]
        entry.state, entry.error, entry.ended = "failed", error, now()
        self._save()
        self._tally.ended(key, f"failed: {error}")
        self.ended(key)

    def _pass_on(self) -> None:
        """Ask each process to stop, as often as this one was asked."""
        for stage in list(self.running.values()):
            while stage.requests < self._signals.count:
                stage.requests += 1
                with contextlib.suppress(ProcessLookupError):
                    stage.process.send_signal(signal.SIGTERM)


def _inode(place: Path) -> int | None:
    """The file of a folder's lock, which another folder of that name has not; ``None`` where it is not locked."""
    with contextlib.suppress(OSError):
        return (place / lock.NAME).stat().st_ino
    return None


def _written(place: Path) -> int:
    """When the progress in a run folder was written last; 0 where there is none."""
    path = place / PROGRESS
    return path.stat().st_mtime_ns if path.is_file() else 0
