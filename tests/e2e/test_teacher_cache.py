"""The cache in whole runs: killed while it is filled, shared by two processes, and absent from an old run's recipe."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.commands import Forked
from tinymim.cli.main import main
from tinymim.experiments.fit_processes import PRELOADED
from tinymim.teacher_cache import records

SHORT = ["fit", "--config", "relation_digits", "--trainer.max_epochs=3", "--trainer.limit_train_batches=4"]
SHORT += ["--trainer.precision=32-true", "--trainer.limit_val_batches=1", "--trainer.num_sanity_val_steps=0"]
SHORT += ["--trainer.enable_progress_bar=false", "--trainer.logger=false", "--model.teacher_cache=2"]
ONE = [*SHORT, "--data.batch_size=16"]


def torn(number: int, arguments: list[str]) -> None:
    """Run a command up to the middle of its ``number``-th writing into the cache."""
    write, calls = records._write, itertools.count(1)

    def half(file: Any, content: bytes, offset: int) -> None:
        if next(calls) == number:
            write(file, content[: len(content) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        write(file, content, offset)

    records._write = half
    torch.set_num_threads(1)
    main(arguments)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Runs are bit-identical at one number of threads, which a test before may have set."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbs, beside its own cache."""
    folder = tmp_path_factory.mktemp("whole")
    place = f"--model.teacher_cache_dir={folder / 'cache'}"
    assert main([*ONE, place, "--run_dir", str(folder / "run")]) == 0
    return folder


@pytest.mark.parametrize("write", [32 * 5 + 8, 32 * 5 + 20], ids=["in a record", "between the checksums"])
def test_killed_while_filling__a_resumed_run_ends_bit_identical(write: int, whole: Path, tmp_path: Path) -> None:
    own = [*ONE, f"--model.teacher_cache_dir={tmp_path / 'cache'}", "--run_dir", str(tmp_path / "run")]
    own += ["--checkpoint.every_steps=1"]
    context = multiprocessing.get_context("forkserver")  # whose server imports once for all tests of this process
    context.set_forkserver_preload(PRELOADED)
    killed = context.Process(target=torn, args=(write, own))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert main([*own, "--ckpt_path", "last"]) == 0
    assert same(tmp_path / "run", whole / "run")


def test_two_processes__fill_one_cache_from_which_one_takes_the_same_steps(whole: Path, tmp_path: Path) -> None:
    place = f"--model.teacher_cache_dir={tmp_path / 'cache'}"
    pair = [*SHORT, "--data.batch_size=8", "--trainer.strategy=ddp", "--trainer.devices=2", place]
    code, said = Forked(*pair, "--run_dir", tmp_path / "pair", log=tmp_path / "log").ended()
    assert code == 0, said
    assert main([*ONE, place, "--run_dir", str(tmp_path / "one")]) == 0
    assert same(tmp_path / "one", whole / "run")  # the pair stored what one process would have
    first, second = weights(tmp_path / "pair"), weights(tmp_path / "one")
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-3


def test_old_run__without_the_option_goes_on_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYMIM_TEACHER_CACHE", str(tmp_path / "cache"))
    off = [*ONE, "--model.teacher_cache=null"]
    run = tmp_path / "run"
    assert main([*off, "--trainer.max_epochs=1", "--run_dir", str(run)]) == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    for name in ("teacher_cache", "teacher_cache_dir"):
        del config["model"]["init_args"][name]
    del config["data"]["init_args"]["view_seed"]
    config["trainer"]["max_epochs"] = 3
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(tmp_path / "old.yaml"), "--run_dir", str(run), "--ckpt_path", "last"]) == 0
    assert not (tmp_path / "cache").exists()
    assert json.loads((run / "results.json").read_text())["epochs"] == 3


def test_check__tells_both_speeds_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TINYMIM_TEACHER_CACHE", str(tmp_path / "cache"))
    arguments = ["--data.batch_size=16", "--trainer.precision=32-true", "--model.teacher_cache=3"]
    assert main(["check", "relation_digits", *arguments]) == 0
    said = capsys.readouterr().err
    assert f"teacher cache {tmp_path / 'cache'}: 59.5 MB in all, 12.7 kB a view of an image" in said
    assert "images/s while the teacher cache fills and" in said
    assert not (tmp_path / "cache").exists()
    assert main(["cache", "list"]) == 0
    assert "is empty" in capsys.readouterr().out
