"""Tasks in worker processes: several at once, one failing without the others, none outliving the command.

Workers are forked from a server process that has imported the training stack once, so that a task starts at once and
still has a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

from tinymim import files
from tinymim.config import spec
from tinymim.errors import TinymimError, several
from tinymim.experiments import cells
from tinymim.experiments.cells import Figure, Stage

PRELOADED = ["tinymim.experiments.workers", "sklearn.datasets", "sklearn.model_selection", "torch.utils.tensorboard"]
RECORD = "cell.json"
LOOK = 5.0
"""Seconds between two looks at the tasks that run."""
LEFT = ("config.yaml", "checkpoints", "results.json", "test.json")
"""What shows that a run was begun in a folder."""
UNSAID = (
    f"runs without a {RECORD}, from before it was noted what fits were made of: nothing shows that they are the same"
)


@dataclass
class Task:
    """A cell to run.

    Args:
        name: for people.
        place: its folder; ``cell.json`` (what it is, how it went, its figures) and ``log.txt`` go there.
        stages: its fits.
        seed: of all of them.
        definition: what it is, kept with its figures.
        needs: folders of the tasks that must be done before.
        figures: that its stages measure.
    """

    name: str
    place: Path
    stages: list[Stage]
    seed: int
    definition: dict[str, Any]
    needs: list[Path] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pending(tasks: list[Task], place: Path, overwrite: bool) -> list[Task]:
    """Those of the tasks that are not done.

    Args:
        tasks: all that there are to do.
        place: the folder that holds theirs, for the error.
        overwrite: forget what was made under another definition.

    Raises:
        TinymimError: there is some, and ``overwrite`` is not given.
    """
    waiting, changed = [], []
    for task in tasks:
        record = read(task.place)
        if record:
            lines = spec.differences(record["definition"], task.definition)
        else:
            begun = any((task.place / stage.name / name).exists() for stage in task.stages for name in LEFT)
            lines = [UNSAID] if begun else []
        if lines:
            changed.append((task.place, lines))
        elif record and record["status"] == "done":
            continue
        waiting.append(task)
    if changed and not overwrite:
        shown = [f"{where}: {'; '.join(lines[:3])}{', ...' if len(lines) > 3 else ''}" for where, lines in changed[:6]]
        more = [f"and {len(changed) - 6} more"] if len(changed) > 6 else []
        raise several(
            f"{len(changed)} cell(s) of {place} were made under another definition. Run these again, keep the others: "
            "--overwrite. Keep them all: --run_dir ANOTHER_FOLDER. They differ",
            shown + more,
        )
    for where, _ in changed:
        shutil.rmtree(where)
    return waiting


def run(
    tasks: list[Task],
    jobs: int,
    threads: int,
    finished: Callable[[Task, dict[str, Any]], None],
    watching: Callable[[list[Task]], None] | None = None,
) -> None:
    """Run every task, ``jobs`` at a time, in order as far as their needs allow.

    Args:
        tasks: what to run; needs that are not among them are done already.
        jobs: processes at once.
        threads: of each process.
        finished: called here, in this process, with each task and its record.
        watching: called here every few seconds with the tasks that run.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    waiting = list(tasks)
    running: dict[int, tuple[Any, Task]] = {}
    failed: set[Path] = set()
    try:
        while waiting or running:
            for task in [task for task in waiting if failed.intersection(task.needs)]:
                waiting.remove(task)
                failed.add(task.place)
                finished(task, _fail(task, f"needs {', '.join(need.name for need in task.needs)}, which failed"))
            undone = {task.place for task in waiting} | {task.place for _, task in running.values()}
            ready = [task for task in waiting if not undone.intersection(task.needs)]
            for task in ready[: jobs - len(running)]:
                waiting.remove(task)
                process = context.Process(target=_work, args=(task, threads))
                process.start()
                running[process.sentinel] = (process, task)
            ended = connection.wait(list(running), LOOK if watching else None) if running else []
            if watching:
                watching([task for _, task in running.values()])
            for sentinel in ended:
                process, task = running.pop(sentinel)  # type: ignore[arg-type]
                process.join()
                record = _outcome(task, process.exitcode)
                if record["status"] != "done":
                    failed.add(task.place)
                finished(task, record)
    finally:
        for process, _ in running.values():  # only after an exception, such as ctrl-C; what is written is whole
            process.kill()
            process.join()


def _work(task: Task, threads: int) -> None:
    """In the worker: run the cell, and leave its record."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the command's to handle
    threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()
    _write(task, status="started")
    log = os.open(task.place / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import torch

    torch.set_num_threads(threads)
    settle(task)


def settle(task: Task) -> dict[str, Any]:
    """Run the cell in this process; its record, which is left in its folder too."""
    try:
        cell = cells.run(task.stages, task.seed, task.place, task.figures)
    except TinymimError as error:
        print(error, flush=True)
        return _fail(task, str(error))
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        return _fail(task, f"{text} ({task.place / 'log.txt'})")
    return _write(task, status="done", **vars(cell), cpu_seconds=round(time.process_time(), 1))


def _die_with(sentinel: int) -> None:
    """End this process when the command's does, kill -9 included: nobody would know of it any more."""
    connection.wait([sentinel])
    os._exit(1)


def _outcome(task: Task, exitcode: int | None) -> dict[str, Any]:
    """The record a worker left, or one that says how it ended."""
    record = read(task.place)
    if record is None or record["status"] == "started":
        how = (
            f"by signal {-exitcode} (9 is often a lack of memory)" if exitcode and exitcode < 0 else f"code {exitcode}"
        )
        return _fail(task, f"the worker process ended {how}; see {task.place / 'log.txt'}")
    return record


def _fail(task: Task, error: str) -> dict[str, Any]:
    return _write(task, status="failed", error=error)


def _write(task: Task, **outcome: Any) -> dict[str, Any]:
    record = {"name": task.name, "seed": task.seed, **outcome, "definition": task.definition}
    files.write_json(task.place / RECORD, record)
    return record


def read(place: Path) -> dict[str, Any] | None:
    """The record of the cell in a folder, if there is one."""
    path = place / RECORD
    return json.loads(path.read_text()) if path.is_file() else None
