"""A fit in a worker process: how it starts its other processes, and how it is asked to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

COMMAND = """
import os, signal, sys, time
from pathlib import Path
from tests.experiments import test_fit_processes as here
from tinymim.experiments import fit_processes
fit_processes.PRELOADED, fit_processes._work = [], here.work
fork = fit_processes.Fork([], Path("log"), 1)
signal.signal(signal.{name}, lambda *_: fork.send_signal(signal.SIGTERM))
Path("begun").touch()
while (code := fork.poll()) is None:
    time.sleep(0.01)
sys.exit(code)
"""


def work(words: list[str], log: Path, threads: int, gpus: list[str]) -> None:
    """In place of a fit: saves once it is asked to, which takes a while."""
    from tinymim.experiments import fit_processes

    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    time.sleep(0.5)  # what comes meanwhile waits
    fit_processes.leave_group()
    Path("listens").touch()
    while not asked:
        time.sleep(0.01)
    time.sleep(0.3)
    Path("saved").write_text(str(len(asked)))
    sys.exit(75)


@pytest.mark.parametrize(("number", "file"), [(signal.SIGTERM, "begun"), (signal.SIGUSR1, "listens")])
def test_fork__is_asked_once_and_ends_by_itself_where_the_group_is_asked(
    number: signal.Signals, file: str, tmp_path: Path
) -> None:
    project = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", COMMAND.format(name=number.name)]
    environment = {**os.environ, "PYTHONPATH": str(project)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True) as process:
        end = time.monotonic() + 120
        while not (tmp_path / file).exists() and time.monotonic() < end:
            time.sleep(0.01)
        os.killpg(process.pid, number)
    assert process.returncode == 75, "its server lives, and tells how it ended"
    assert (tmp_path / "saved").read_text() == "1"


def test_worker__starts_the_other_processes_of_its_fit_by_the_fits_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning.fabric.strategies.launchers.subprocess_script import _basic_subprocess_cmd

    from tinymim.cli import main
    from tinymim.experiments import fit_processes

    monkeypatch.setattr(main, "main", lambda: os.write(1, " ".join(_basic_subprocess_cmd()).encode()) < 0)
    monkeypatch.setattr(fit_processes.multiprocessing, "parent_process", lambda: SimpleNamespace(sentinel=0))
    monkeypatch.setattr(fit_processes, "_die_with", lambda _: None)
    if (child := os.fork()) == 0:
        try:
            fit_processes._work(["fit", "--config", "r", "--trainer.devices=2"], tmp_path / "log.txt", 1)
        except SystemExit as ended:
            os._exit(int(ended.code or 0))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    command = [sys.executable, "-m", "tinymim.__main__", "fit", "--config", "r", "--trainer.devices=2"]
    assert (tmp_path / "log.txt").read_text().split() == command
