"""The worker of one fit: what its log and its other processes are told."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.fabric.strategies.launchers.subprocess_script import _basic_subprocess_cmd

from tinymim.experiments import fit_processes
from tinymim.training import fit


def test_worker__starts_the_other_processes_of_its_fit_by_the_fits_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "run", lambda *_: os.write(1, " ".join(_basic_subprocess_cmd()).encode()))
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
