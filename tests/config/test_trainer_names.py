"""Names of devices, strategies and profilers are checked with the recipe, by the registries that Lightning reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lightning.pytorch.accelerators import AcceleratorRegistry, CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy, StrategyRegistry

from tinymim.config import trainer_parts


@pytest.fixture
def registered() -> Iterator[None]:
    AcceleratorRegistry.register("mine", CPUAccelerator)
    StrategyRegistry.register("my_own", SingleDeviceStrategy)
    yield
    AcceleratorRegistry.remove("mine")
    StrategyRegistry.remove("my_own")


def test_names__unknown_ones_are_told_together_with_near_ones() -> None:
    errors = trainer_parts.option_errors({"accelerator": "cpuu", "strategy": "ddpp", "profiler": "simpel"}, fits=True)
    assert errors == [
        "trainer.accelerator: 'cpuu' is none that Lightning knows; did you mean cpu?",
        "trainer.strategy: 'ddpp' is none that Lightning knows; did you mean ddp?",
        "trainer.profiler: 'simpel' is none that Lightning knows; did you mean simple?",
    ]
    (error,) = trainer_parts.option_errors({"accelerator": "abacus"}, fits=False)
    assert "there are auto, cpu, cuda, gpu" in error


@pytest.mark.parametrize(
    "trainer",
    [
        *({"accelerator": name} for name in ("auto", "gpu", "mps", "tpu", None, {"class_path": "mine.Accelerator"})),
        *({"strategy": name} for name in ("auto", "DDP", "fsdp", "ddp_find_unused_parameters_true", "deepspeed")),
        *({"profiler": name} for name in ("simple", "Advanced", "pytorch", "xla", None)),
    ],
)
def test_names__all_that_lightning_takes_pass(trainer: dict[str, object]) -> None:
    assert trainer_parts.option_errors(trainer, fits=True) == []


@pytest.mark.usefixtures("registered")
def test_names__that_somebody_registered_pass() -> None:
    assert trainer_parts.option_errors({"accelerator": "mine", "strategy": "my_own"}, fits=True) == []
