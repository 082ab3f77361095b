"""Signals: the first one saves and ends the run, the second ends it at once, SLURM is asked to run the job again."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from tests.commands import Forked
from tests.training.conftest import Recipe
from tests.training.test_exact_resume import SHORT
from tinymim.cli.main import main
from tinymim.system import ECHO
from tinymim.targets import Relation
from tinymim.training import preemption
from tinymim.training.checkpoint_files import newest
from tinymim.training.preemption import Preempted, Preemption


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


def test_second_signal__of_a_limit_of_processor_time_is_the_first_one() -> None:
    if (child := os.fork()) == 0:
        preemption = Preemption()
        preemption.listen(SimpleNamespace(strategy=SimpleNamespace(launcher=None)))  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGXCPU)
        time.sleep(1.2 * ECHO)
        os.kill(os.getpid(), signal.SIGXCPU)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_hanging_workers__do_not_keep_a_run_from_ending(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(preemption, "HANGING", 1)
    monkeypatch.setattr(preemption, "_waits_for_data", lambda: True)
    if (child := os.fork()) == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
        runner: Any = SimpleNamespace(strategy=SimpleNamespace(launcher=None), default_root_dir=tmp_path)
        with Preemption() as asked:
            asked.listen(runner)
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(900)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == Preempted.code


def test_signals__that_a_process_was_started_to_ignore_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Preemption() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert asked.received is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


class Kills(pl.Callback):
    """Sends this process a signal in the second step."""

    def __init__(self, number: int):
        self.number = number

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == 1:
            os.kill(os.getpid(), self.number)


class Moves(pl.Callback):
    """Renames the run folder before the second step."""

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        place = Path(trainer.default_root_dir)
        if trainer.global_step == 1 and place.name == "moving":
            place.rename(place.with_name("moved"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, Preempted.code)])
def test_signal__saves_and_names_the_way_on(number: int, code: int, tiny_fit: Recipe) -> None:
    run = f"signal{number}"
    killed = [f"--trainer.callbacks+={__name__}.Kills", f"--trainer.callbacks.number={int(number)}"]
    done = tiny_fit("--trainer.max_epochs=3", *killed, run=run)
    assert done.returncode == code, done.stderr
    assert f"ended by {signal.Signals(number).name} at step 2 (epoch 1)" in done.stderr
    assert f"`tinymim resume {run}` goes on" in done.stderr
    assert newest(tiny_fit.place / run) is not None


def test_ctrl_c__reaches_the_whole_group_and_loading_processes_too(tiny_fit: Recipe) -> None:
    arguments = ["--config", "tiny.yaml", "--run_dir", "group", "--trainer.max_epochs=100000"]
    arguments += ["--data=tinymim.data.DigitsData", "--data.image_size=16", "--data.num_workers=1"]
    place = {"cwd": tiny_fit.place, "TINYMIM_TEACHERS": str(tiny_fit.place / "teachers")}
    process = Forked("fit", *arguments, log=tiny_fit.place / "group.txt", **place)
    try:
        while process.poll() is None and not (tiny_fit.place / "group/checkpoints/last.ckpt").exists():
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
    finally:
        code, said = process.ended()
    assert code == 130, said
    assert "Traceback" not in said
    assert "`tinymim resume group` goes on" in said


def test_full_disk__from_the_start_is_one_line(tiny_fit: Recipe) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        done = tiny_fit(run="full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.returncode == 1
    assert "File too large" in done.stderr.strip().splitlines()[-1]
    assert "--ckpt_path last" not in done.stderr or "checkpoints are untouched" in done.stderr


def test_run_folder__that_moves_is_not_begun_anew(tiny_fit: Recipe) -> None:
    done = tiny_fit("--trainer.max_epochs=3", f"--trainer.callbacks+={__name__}.Moves", run="moving")
    assert done.returncode == 1, done.stderr
    assert "run_dir: moving was removed or renamed while the run wrote into it" in done.stderr
    assert not (tiny_fit.place / "moving" / "checkpoints").exists()


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
    for path in ("last", str(run / "checkpoints" / "last.ckpt")):
        capsys.readouterr()
        assert fit(run, "--ckpt_path", path, "--trainer.max_epochs=2") == 1
        (said,) = capsys.readouterr().err.splitlines()
        assert said.endswith("trainer.max_epochs: 2, and the run is at epoch 3 already; give more"), "and nothing else"


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
