"""What every process of a run would say is said once, and what one alone would say by that one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinymim import log

RANK = """
import os, sys
from tinymim.log import first_to_say
for words in ("data.root: none", f"rank {os.environ['LOCAL_RANK']}: another rank died", f"own {os.environ['RANK']}"):
    if first_to_say(words):
        print(words, file=sys.stderr)
"""


def test_first_to_say__of_one_process_is_always(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*log.SIZES, "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert [log.first_to_say("a"), log.first_to_say("a")] == [True, True]


def test_first_to_say__of_a_launchers_processes_is_one(tmp_path: Path) -> None:
    said = tmp_path / "said"
    common = {**os.environ, "WORLD_SIZE": "2", "TMPDIR": str(tmp_path)}
    with said.open("w") as stream:
        for rank in ("0", "1"):
            environment = {**common, "RANK": rank, "LOCAL_RANK": rank}
            subprocess.run([sys.executable, "-c", RANK], check=True, env=environment, stderr=stream, timeout=120)
    lines = ["data.root: none", "rank 0: another rank died", "own 0", "own 1"]
    assert said.read_text().splitlines() == lines


def test_first_to_say__lightnings_first_process_is_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "SLURM_PROCID", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in log.SIZES:
        monkeypatch.delenv(name, raising=False)  # as after Lightning's teardown
    monkeypatch.setattr(log.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert log.first_to_say("a")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(os, "getppid", os.getpid)
    assert not log.first_to_say("a")
    (marker,) = tmp_path.iterdir()
    os.utime(marker, (0, 0))
    assert log.first_to_say("a"), "of a run long ago"
