"""What `precision: auto` becomes, on this processor and on one held to AVX2, and what keeps to it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import Forked, free_port
from tinymim import precision
from tinymim.config import recipe, validation
from tinymim.device import Device, device_of
from tinymim.precision import Choice
from tinymim.training import run_record

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
UNITS = "avx512_bf16" in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else "")

ASK = """
import torch
from tinymim import precision
before = torch.get_num_threads(), torch.get_rng_state()
print(precision.choose(precision.Device("cpu")).precision)
precision.settle({"trainer": {"accelerator": "cpu", "precision": "bf16-mixed"}})
assert torch.get_num_threads() == before[0] and torch.equal(torch.get_rng_state(), before[1])
from types import SimpleNamespace
from tinymim.vit.taps import choose_attention
blocks, fused = [SimpleNamespace(attn=SimpleNamespace())], []
for half in (False, True):
    with torch.autocast("cpu", enabled=half):
        choose_attention(blocks, torch.zeros(1, 2, 192))
    fused.append(blocks[0].attn.fused_attn)
print("fused:", *fused)
"""


def asked(**environment: str) -> tuple[str, str]:
    """What a process under these variables chooses, and what it says of bf16-mixed."""
    shell = {name: value for name, value in os.environ.items() if name not in AVX2}  # which the tests may run under
    shell |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    done = subprocess.run([sys.executable, "-c", ASK], env=shell, capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr


@pytest.mark.skipif(not torch.cpu._is_avx2_supported(), reason="variables of x86")
def test_auto__of_a_processor_held_to_avx2_is_float32() -> None:
    chosen, said = asked(**AVX2)
    assert chosen == "32-true\nfused: True True"  # explicit products in bfloat16 take 30 times as long there
    assert "warning: trainer.precision bf16-mixed: a bfloat16 product takes" in said


@pytest.mark.skipif(not UNITS, reason="no units for bfloat16 here")
def test_auto__of_a_processor_with_units_is_bfloat16() -> None:
    assert asked() == ("bf16-mixed\nfused: True False", "")


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((9, 0), "bf16-mixed"), ((8, 0), "bf16-mixed"), ((7, 5), "16-mixed"), ((7, 0), "16-mixed"), ((6, 1), "32-true")],
)
def test_auto__of_gpus_is_the_weakest_ones(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    precision._capability.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: [(9, 0), capability][number])
    assert precision.choose(Device("cuda", (0, 1))).precision == expected
    precision._capability.cache_clear()


def test_auto__of_other_devices_is_float32() -> None:
    assert precision.choose(Device("mps")).precision == "32-true"


def test_ratio__of_a_busy_machine_that_interrupts_one_of_the_two(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], itertools.count()

    def takes(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    half = [lambda: takes(1.0), lambda: takes(0.5 if next(calls) > 7 else 9.0)]
    assert precision._ratio(half, end=0.0) == 0.5
    assert precision._ratio([lambda: takes(1.0), lambda: takes(9.0)], end=0.0) == 9.0


@pytest.mark.parametrize(
    ("devices", "numbers"), [(1, (0,)), (2, (0, 1)), ([1], (1,)), ("0,1", (0, 1)), ("auto", ()), (-1, ())]
)
def test_device__is_the_trainers(devices: Any, numbers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of({"accelerator": "gpu", "devices": devices}) == Device("cuda", numbers)
    assert device_of({"accelerator": "cpu", "devices": devices}) == Device("cpu")
    assert device_of({"accelerator": "gpu", "devices": devices, "strategy": "ddp_fork"}).forked


@pytest.mark.parametrize(
    ("asked", "device", "half"),
    [
        ("bf16-mixed", "cpu", torch.bfloat16),
        ("bf16", "cuda", torch.bfloat16),
        ("16-mixed", "cpu", torch.bfloat16),  # as Lightning takes it there
        (16, "cuda", torch.float16),
        ("16-true", "cpu", torch.float16),
        ("32-true", "cpu", None),
        (None, "cpu", None),
        ("64-true", "cpu", None),
    ],
)
def test_half__is_what_lightning_multiplies_in(asked: Any, device: str, half: torch.dtype | None) -> None:
    assert precision._half(asked, Device(device)) == half


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    precision._say.cache_clear()
    monkeypatch.setattr(precision, "cpu_ratio", lambda dtype: 40.0)


CPU = {"accelerator": "cpu"}


def test_settle__says_the_choice_and_its_reason_once(slow: None, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"trainer": {**CPU, "precision": "auto"}}
    for _ in range(2):
        assert precision.settle(config)["trainer"]["precision"] == "32-true"
    assert config["trainer"]["precision"] == "auto"
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "precision: auto is 32-true here: a bfloat16 product takes 40.0 times float32's time" in said


def test_settle__goes_on_with_what_was_there_and_warns(slow: None, capsys: pytest.CaptureFixture[str]) -> None:
    config = precision.settle({"trainer": {**CPU, "precision": "auto"}}, "bf16-mixed")
    assert config["trainer"]["precision"] == "bf16-mixed"
    assert capsys.readouterr().err.count("40 times as long as float32's here") == 1


@pytest.mark.parametrize("trainer", [CPU, {**CPU, "precision": None}, {**CPU, "precision": "16-true"}, None])
def test_settle__obeys(trainer: Any, slow: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert precision.settle({"trainer": trainer}) == {"trainer": trainer}
    assert ("a float16 product takes 40 times" in capsys.readouterr().err) == ("16-true" in str(trainer))


def test_recipes__all_say_auto() -> None:
    for name in recipe.names():
        config, _ = recipe.resolve(["--config", name])
        assert precision.is_auto(config), name
        assert not [line for line in validation.mistakes(config)[0] if "precision" in line]


@pytest.mark.parametrize(
    ("written", "before"),
    [("trainer: {precision: bf16-mixed}", "bf16-mixed"), ("trainer: {precision: null}", "32-true"), ("- 1", None)],
)
def test_before__is_in_the_run_that_is_gone_on_with(written: str, before: str | None, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(written)
    own = {"run_dir": str(tmp_path), "ckpt_path": "last"}
    assert run_record.precision_before(own) == before
    assert run_record.precision_before({"ckpt_path": str(tmp_path / "checkpoints" / "last.ckpt")}) == before
    assert run_record.precision_before({"run_dir": str(tmp_path)}) is None


RANK = """
import os, torch, lightning.pytorch as pl
from lightning.pytorch.demos.boring_classes import BoringModel
from tinymim.training import processes

class Told(BoringModel):
    def setup(self, stage): print("computes in", self.trainer.precision, flush=True)
    def training_step(self, batch, number):
        assert torch.is_autocast_enabled("cpu")
        return super().training_step(batch, number)

rank = int(os.environ["RANK"])
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_steps=1, limit_val_batches=0, **quiet,
                     precision=["bf16-mixed", "32-true"][rank], callbacks=[processes.CommonPrecision()])
trainer.fit(Told())
processes.wait_for_all()
processes.leave(0)  # as the command does: an orderly end may abort in gloo's thread
"""


def test_ranks__that_measured_differently_take_the_firsts(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(RANK)
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    processes = [
        Forked(module="told", cwd=tmp_path, log=tmp_path / f"{rank}.txt", LOCAL_RANK=rank, RANK=rank, **common)
        for rank in "01"
    ]
    ends = [process.ended() for process in processes]
    assert [code for code, _ in ends] == [0, 0], ends
    assert ["computes in bf16-mixed" in said for _, said in ends] == [True, True]


def test_choice__has_its_reason() -> None:
    chosen = precision.choose(Device("cpu"))
    assert isinstance(chosen, Choice)
    assert torch.backends.cpu.get_cpu_capability() in chosen.reason
