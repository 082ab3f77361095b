"""A chain of two stages is killed again and again, at random moments, and ends with the bits of one that never was.

``make test`` has a short form; ``make torture`` kills it 24 times.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.commands import PROJECT, tinymim, without_children

STAGES = ("medium", "tiny")
SHORT = {
    "trainer.max_epochs": 3,
    "trainer.limit_train_batches": 6,
    "trainer.limit_val_batches": 1,
    "trainer.check_val_every_n_epoch": 2,
    "trainer.num_sanity_val_steps": 0,
    "trainer.enable_progress_bar": False,
    "data.batch_size": 16,
    "checkpoint.every_steps": 1,
}


def write_chain(folder: Path) -> Path:
    """Teacher -> medium -> tiny, 18 steps each, saved after every one of them."""
    stages = [
        {"name": "medium", "kind": "distill", "recipe": "relation_medium_digits", "teacher": "digits_mae"},
        {"name": "tiny", "kind": "distill", "recipe": "relation_digits", "teacher": "previous"},
    ]
    path = folder / "tortured.yaml"
    path.write_text(yaml.safe_dump({"set": SHORT, "stages": stages}))
    return path


def start(chain: Path, place: Path, torture: str = "") -> subprocess.Popen[bytes]:
    """Begin the chain, or go on with it."""
    paths = [str(PROJECT / "tests" / "e2e" / "torture")] if torture else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORTURE": torture, "PYTHONPATH": os.pathsep.join(paths)}
    run = 'export TORTURE_CHAIN=$$; exec "$@"'  # the shell's process id is the chain's, once it has become it
    command = [sys.executable, "-m", "tinymim", "chain", "run", str(chain), "--run_dir", str(place), "--resume"]
    log = (place.parent / f"{place.name}.log").open("ab")
    return subprocess.Popen(
        ["sh", "-c", run, "sh", *command], cwd=PROJECT, env=environment, stdout=log, stderr=log, start_new_session=True
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """The chain first, then its stage, which is in a session of its own."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in [process.pid, *map(int, children)]:
            os.kill(pid, signal.SIGKILL)
    process.wait()


def torture(chain: Path, place: Path, dice: random.Random) -> str:
    """Run the chain until it is killed, or done. Says how it was killed."""
    if dice.random() < 0.4:
        process = start(chain, place)
        seconds = dice.uniform(2, 25)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        how = f"after {seconds:.1f} s" if process.returncode is None else ""
        kill(process)
        return how
    who, most = dice.choice([("chain", 20), ("fit", 180), ("fit", 180), ("fit alone", 180)])
    how = f"{who} {dice.randint(1, most)}"
    process = start(chain, place, how)
    process.wait()
    return "" if process.returncode == 0 else how


def finish(chain: Path, place: Path) -> None:
    """Run the chain to its end, its stages too in this process, which spares them the imports."""
    with without_children():
        result = tinymim("chain", "run", chain, "--run_dir", place, "--resume")
    assert result.returncode == 0, result.stderr[-5000:]


def state(place: Path, stage: str) -> dict[str, torch.Tensor]:
    """Weights and the optimiser's moments at the end of a stage."""
    content = torch.load(place / stage / "checkpoints" / "last.ckpt", weights_only=True)
    moments = content["optimizer_states"][0]["state"]
    kept = {f"{number} {name}": tensor for number, one in moments.items() for name, tensor in one.items()}
    return {**content["state_dict"], **kept}


def test_chain__killed_at_random_moments_ends_bit_for_bit(
    tmp_path: Path, request: pytest.FixtureRequest, record_property
) -> None:
    kills, dice = request.config.getoption("--kills"), random.Random(request.config.getoption("--dice"))
    chain = write_chain(tmp_path)
    log = tmp_path / "killed.log"
    finish(chain, tmp_path / "whole")
    killed: list[str] = []
    for _ in range(4 * kills):  # some tries come to the end of the chain before they kill it
        if len(killed) == kills:
            break
        begun = time.monotonic()
        if how := torture(chain, tmp_path / "killed", dice):
            killed.append(how)
            print(f"killed {len(killed)}: {how}, after {time.monotonic() - begun:.1f} s", flush=True)
        else:  # it is done: once more from the start, with the kills that are left
            check(tmp_path)
            shutil.rmtree(tmp_path / "killed")
    assert len(killed) == kills
    finish(chain, tmp_path / "killed")
    check(tmp_path)
    assert "Traceback" not in log.read_text()


def check(folder: Path) -> None:
    """Everything that was trained is as if nothing had been killed."""
    for stage in STAGES:
        one, other = state(folder / "whole", stage), state(folder / "killed", stage)
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == [], stage
        results = [json.loads((folder / name / stage / "results.json").read_text()) for name in ("whole", "killed")]
        for key in ("epochs", "steps", "parameters", "backbone", "skipped_steps"):
            assert results[0][key] == results[1][key]
        assert results[0]["metrics"]["val/knn_top1"] == results[1]["metrics"]["val/knn_top1"]
