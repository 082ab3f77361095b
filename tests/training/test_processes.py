"""The end of a process that is one of several: at once, with what is registered for it, and with its exit code."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from tinymim.cli import main
from tinymim.training import processes


def connected(store: Path) -> None:
    """Make this process one of a run, of one process."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)


def test_leave__ends_a_connected_process_at_once_and_runs_what_is_registered(tmp_path: Path) -> None:
    if (child := os.fork()) == 0:
        try:
            atexit._clear()
            atexit.register((tmp_path / "said").write_text, "goodbye")
            connected(tmp_path / "store")
            processes.wait_for_all()
            processes.leave(75)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75
    assert (tmp_path / "said").read_text() == "goodbye"


def test_leave__lets_a_process_of_its_own_end_as_it_likes() -> None:
    processes.wait_for_all()
    processes.leave(75)


def test_wait_for_all__is_over_where_the_others_have_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(processes, "connected", lambda: True)
    monkeypatch.setattr(dist, "barrier", lost)
    processes.wait_for_all()


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--version"], 0), (["check"], 1), (["ft"], 2)])
def test_command__ends_with_the_code_of_what_it_ran(
    arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    monkeypatch.setattr(sys, "argv", ["tinymim", *arguments])
    monkeypatch.setattr(processes, "leave", left.append)
    with pytest.raises(SystemExit) as ended:
        main.command()
    assert (ended.value.code or 0) == code
    assert left == [code]
