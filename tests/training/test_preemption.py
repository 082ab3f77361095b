"""Signals: the first one saves and ends the run, the second ends it at once, SLURM is asked to run the job again."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.training.test_exact_resume import SHORT
from tinymim.cli.main import main
from tinymim.targets import Relation
from tinymim.training.checkpoints import newest
from tinymim.training.preemption import ECHO, Preempted, Preemption


class Asked(Relation):
    """Sends this process SIGUSR1 in the sixth step."""

    steps = 0

    def forward(self, teacher: Any, student: Any) -> Any:
        Asked.steps += self.training
        if Asked.steps == 6 and self.training:
            os.kill(os.getpid(), signal.SIGUSR1)
        return super().forward(teacher, student)


def fit(run: Path, *arguments: str) -> int:
    return main(["fit", "--config", "relation_digits", *SHORT, "--run_dir", str(run), *arguments])


def test_slurm__is_asked_to_run_the_job_again_and_the_job_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "chain", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
    job |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    Asked.steps, target = 0, f"--model.targets=[{{class_path: {__name__}.Asked}}]"
    run = tmp_path / "run"
    assert fit(run, target, "--ckpt_path", "last") == Preempted.code
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert "ended by SIGUSR1 at step 6" in capsys.readouterr().err
    assert fit(run, target, "--ckpt_path", "last") == 0
    assert (tmp_path / "asked").read_text() == "requeue 4711\n", "once"
    assert not list(run.glob("hpc_ckpt_*")), "SLURM's copy of the checkpoint is cleared away"


def test_second_signal__ends_the_process_at_once() -> None:
    if (child := os.fork()) == 0:
        preemption = Preemption()
        preemption.listen(SimpleNamespace(strategy=SimpleNamespace(launcher=None)))  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # an echo of the first, as a launcher passes it on
        time.sleep(1.2 * ECHO)
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == Preempted.code


def test_signal__before_training_ends_the_command_and_gives_the_signals_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Preemption(), pytest.raises(Preempted, match="nothing to save"):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_full_disk__keeps_the_checkpoint_before_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    assert fit(run, "--trainer.max_epochs=1") == 0
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))  # as near to a full disk as a test may come
    try:
        assert fit(run, "--ckpt_path", "last") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().err
    assert "the run goes on with another recipe than it had: trainer.max_epochs: 1, now 3" in said
    assert "step-00000008.ckpt could not be written ([Errno 27] File too large); the one before it is untouched" in said
    last = newest(run)
    assert last is not None
    assert last.read_bytes() == before
    assert fit(run, "--ckpt_path", "last") == 0


def test_signal__during_a_save_ends_the_run_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, write = tmp_path / "run", torch.save

    def interrupted(content: dict[str, Any], stream: Any) -> None:
        if content["global_step"] == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        write(content, stream)

    monkeypatch.setattr(torch, "save", interrupted)
    assert fit(run, "--checkpoint.every_steps=2") == Preempted.code
    last = newest(run)
    assert last is not None
    assert torch.load(last, weights_only=True)["global_step"] == 7, "the step after it"
