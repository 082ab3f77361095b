"""Several processes on the CPU, over gloo: the same steps as one process takes, and an end that everybody hears of."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.commands import Forked, free_port, tinymim

SHORT = ["fit", "--config", "relation_digits", "--trainer.max_epochs=2", "--trainer.limit_train_batches=5"]
SHORT += ["--trainer.precision=32-true", "--model.optim.base_lr=1.5e-4", "--model.drop_path=0.3"]
SHORT += ["--trainer.limit_val_batches=1", "--trainer.num_sanity_val_steps=0", "--trainer.enable_progress_bar=false"]
ONE = [*SHORT, "--data.batch_size=16"]
TWO = [*SHORT, "--data.batch_size=8", "--trainer.strategy=ddp"]

SLOW = """
import os, pathlib, time
from tinymim.targets import Relation

class Slow(Relation):
    '''Waits in the third step, in every process, until a file called `go` is beside this one; slow after it.'''
    steps = 0
    def forward(self, teacher, student):
        here = pathlib.Path(__file__).parent
        Slow.steps += self.training
        if Slow.steps == 3 and not (here / "go").exists():
            (here / f"pid{os.environ.get('LOCAL_RANK', 0)}").write_text(str(os.getpid()))
            while not (here / "go").exists():
                time.sleep(0.05)
        time.sleep(0.5 * (Slow.steps > 2))
        return super().forward(teacher, student)
"""


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The newest."""
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def apart(one: Path, other: Path) -> float:
    """The root of the mean square difference of weights: 6e-9 where gradients were summed in another order, though a
    single weight whose gradient is nearly 0 may move by 1e-6; 3e-6 where one has taken a step less."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return float(
        torch.cat([(first[name].double() - second[name].double()).flatten() for name in first]).square().mean().sqrt()
    )


def slow(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of a run that waits in its third step."""
    (folder / "slow_target.py").write_text(SLOW)
    return ["--model.targets=[{class_path: slow_target.Slow}]"], {"PYTHONPATH": str(folder)}


def pids(folder: Path, ranks: int) -> list[int]:
    """Of the waiting processes, once all of them wait."""
    files = [folder / f"pid{rank}" for rank in range(ranks)]
    end = time.monotonic() + 900
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < end, "the run did not come to its third step"
        time.sleep(0.1)
    return [int(file.read_text()) for file in files]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten steps of one process, at the paper's learning rate."""
    run = tmp_path_factory.mktemp("one") / "run"
    result = tinymim(*ONE, "--run_dir", run)
    assert result.returncode == 0, result.stderr
    return run


def test_two_nodes_under_torchrun__the_weights_are_those_of_one_process(one: Path, tmp_path: Path) -> None:
    """Drop path included; the tolerance is that of float32 sums in another order."""
    run, port = tmp_path / "run", free_port()
    own = [*TWO, "--trainer.devices=1", "--trainer.num_nodes=2", "--run_dir", str(run)]
    place = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={port}"]
    nodes = [
        Forked(
            *place, f"--node_rank={rank}", "-m", "tinymim", *own, module="torch.distributed.run", log=tmp_path / name
        )
        for rank, name in enumerate(("first", "second"))
    ]
    for node in nodes:
        code, said = node.ended()
        assert code == 0, said
    assert apart(one, run) < 1e-7
    assert json.loads((run / "results.json").read_text())["steps"] == 10


def test_signal__to_two_processes_and_on_with_one(one: Path, tmp_path: Path) -> None:
    target, environment = slow(tmp_path)
    run = tmp_path / "run"
    own = [*target, "--run_dir", str(run)]
    process = Forked(*TWO, "--trainer.devices=2", *own, log=tmp_path / "log", **environment)
    pids(tmp_path, 2)
    process.send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    code, said = process.ended()
    assert code == 75, said
    assert said.count("ended by SIGTERM at step") == 1, said
    step = json.loads((run / "progress.json").read_text())["step"]
    assert 3 <= step <= 5, "by the end of the epoch at the latest"
    result = tinymim(*ONE, *own, "--ckpt_path", "last", **environment)
    assert result.returncode == 0, result.stderr
    assert apart(one, run) < 1e-7


def test_dead_process__ends_the_others_with_a_message(tmp_path: Path) -> None:
    target, environment = slow(tmp_path)
    own = ["--trainer.devices=2", *target, "--run_dir", str(tmp_path / "run"), "--checkpoint.every_steps=1"]
    process = Forked(*TWO, *own, log=tmp_path / "log", **environment)
    _, second = pids(tmp_path, 2)
    os.kill(second, signal.SIGKILL)
    (tmp_path / "go").touch()
    code, said = process.ended()
    assert code not in (0, 75), said
    assert "another rank died" in said or "terminated with code -9" in said, said
    assert "Traceback" not in said, said
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 2, "nothing saved is lost"


def test_dead_first_process__takes_the_others_with_it(tmp_path: Path) -> None:
    target, environment = slow(tmp_path)
    own = ["--trainer.devices=2", *target, "--run_dir", str(tmp_path / "run")]
    process = Forked(*TWO, *own, log=tmp_path / "log", **environment)
    _, second = pids(tmp_path, 2)
    process.kill()
    process.wait()
    end = time.monotonic() + 300
    while Path(f"/proc/{second}").exists() and " Z " not in Path(f"/proc/{second}/stat").read_text():
        assert time.monotonic() < end, "the second process outlived the first"
        time.sleep(0.1)
