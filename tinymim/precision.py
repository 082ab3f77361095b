"""Precision of a run: ``auto`` settled on the machine at hand, and the cost of another choice there.

A processor without units for bfloat16 multiplies it 10 to 100 times slower than float32, and says nothing of it; so
``auto`` multiplies small matrices in both and takes the faster. GPUs are told apart by their compute capability.
"""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from tinymim.device import Device, device_of
from tinymim.log import detail, keeps_details, say

AUTO = "auto"
EXACT = "32-true"
SLOW = 3.0  # times float32's time from which a choice is warned of
WORTH = 0.8
"""The most of float32's time that a bfloat16 product may take; for less gain float32's exactness is not given up."""

SIZES = (64, 128, 256)
"""Sides of the matrices that are multiplied, smallest first; a type that is hopeless on one meets no larger one."""

HOPELESS = 8.0, 2.0
"""Times float32's time with which the larger matrices are left out. Bfloat16 units are 2.3 and 0.8 times as slow, a
processor without them is 11 times as slow on both, one with AVX-512 alone 3.7 and 2.7 times."""

ROUNDS = 16  # the most on a size
SECONDS = 0.03  # the most that the timing may take beyond its first calls, in which kernels are made
CAPABILITIES = {(8, 0): "bf16-mixed", (7, 0): "16-mixed"}
"""The first compute capability of NVIDIA's GPUs with units for each; earlier ones emulate bfloat16."""


@dataclass(frozen=True)
class Choice:
    """Precision of a run, and the reason for it, for people."""

    precision: str
    reason: str


def choose(device: Device) -> Choice:
    """Choose what ``auto`` means on a device.

    On a CPU bfloat16 where it was measured to be the faster, on a GPU what the weakest of those in use has units for,
    on Apple's and others float32, which is never wrong.
    """
    if device.kind == "cpu":
        ratio = cpu_ratio(torch.bfloat16)
        return Choice("bf16-mixed" if ratio <= WORTH else EXACT, f"a bfloat16 product takes {_times(ratio)}")
    if device.kind == "cuda":
        capability = _capability(device.numbers, device.forked)
        chosen = next((name for least, name in CAPABILITIES.items() if capability >= least), EXACT)
        return Choice(chosen, "the GPU's compute capability is {}.{}".format(*capability))
    return Choice(EXACT, f"nothing faster is known of {device.kind}")


def cost(precision: Any, device: Device) -> float | None:
    """Time of a product in a run's precision over float32's; ``None`` where it is known to be less, or unknown."""
    half = _half(precision, device)
    if half is None or device.kind not in ("cpu", "cuda"):
        return None
    if device.kind == "cpu":
        return cpu_ratio(half)
    least = next(least for least, name in CAPABILITIES.items() if name.startswith("bf") == (half == torch.bfloat16))
    if device.forked or _capability(device.numbers, False) >= least:
        return None
    return _cuda_ratio(half, device.numbers)


def _half(precision: Any, device: Device) -> torch.dtype | None:
    """The half-precision type that a trainer of that precision multiplies in, if any."""
    text = str(precision)
    if text.startswith("bf") or (text in ("16", "16-mixed") and device.kind == "cpu"):  # Lightning takes it there
        return torch.bfloat16
    return torch.float16 if text in ("16", "16-mixed", "16-true") else None


def _times(ratio: float) -> str:
    where = f"float32's time on this processor ({torch.backends.cpu.get_cpu_capability()})"
    return f"{ratio:.2f} of {where}" if ratio < 1 else f"{ratio:.1f} times {where}"


@functools.cache
def cpu_ratio(dtype: torch.dtype) -> float:
    """Time of the three products of a linear layer, forward and backward, in ``dtype``, over float32's, on one thread.

    The best of several rounds in turn on each size, so that what else the machine does hits both or neither; 10 to
    100 ms in all. Measured once in a process; a resumed run depends on it, too, which computes as it did before.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads wait for each other, and on a busy machine for long
    try:
        end = time.perf_counter() + SECONDS
        ratio = 1.0
        for size, hopeless in itertools.zip_longest(SIZES, HOPELESS):
            ratio = _ratio([_products(size, kind) for kind in (torch.float32, dtype)], end)
            if hopeless and ratio > hopeless:
                break
    finally:
        torch.set_num_threads(threads)
    return ratio


def _products(size: int, dtype: torch.dtype, device: torch.device | None = None) -> Callable[[], object]:
    # ones: random numbers would be drawn from the run's own generator, and time does not depend on the values
    x, w = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))

    def run() -> None:
        torch.mm(x, w.t())
        torch.mm(x, w)
        torch.mm(x.t(), w)

    return run


def _ratio(runs: list[Callable[[], object]], end: float, synchronize: Callable[[], object] = lambda: None) -> float:
    """Best time of the second over that of the first, from three to five rounds, as the time allows; from more where it
    does not come out clearly less, as when a busy machine has interrupted the second alone in each."""
    for run in runs:  # kernels are made on the first call
        run()
    best = [float("inf")] * len(runs)
    for number in range(ROUNDS):
        enough = number >= 5 or (number >= 3 and time.perf_counter() > end)
        if enough and best[1] < WORTH * best[0]:
            break
        for place, run in enumerate(runs):
            synchronize()
            start = time.perf_counter()
            run()
            synchronize()
            best[place] = min(best[place], time.perf_counter() - start)
    return best[1] / best[0]


@functools.cache
def _cuda_ratio(dtype: torch.dtype, numbers: tuple[int, ...]) -> float:
    device = torch.device("cuda", numbers[0] if numbers else 0)
    runs = [_products(1024, kind, device) for kind in (torch.float32, dtype)]
    return _ratio(runs, time.perf_counter() + SECONDS, functools.partial(torch.cuda.synchronize, device))


@functools.cache
def _capability(numbers: tuple[int, ...], forked: bool) -> tuple[int, int]:
    """The least compute capability of these GPUs. AMD's number theirs from 9 on, and have bfloat16 all the same."""
    used = numbers or tuple(range(torch.cuda.device_count()))
    if forked:
        ask = f"import torch; print(*min(map(torch.cuda.get_device_capability, {used})))"
        answer = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
        major, minor = map(int, answer.stdout.split() or (0, 0))
        return major, minor
    return min((torch.cuda.get_device_capability(number) for number in used), default=(0, 0))


def settle(config: dict[str, Any], before: str | None = None, device: Device | None = None) -> dict[str, Any]:
    """A resolved recipe with a precision in place of ``auto``; the choice and its reason are said in a line.

    One that names its precision is given back as it is. It is said once where that, or what the run had before, costs
    more than :data:`SLOW` times float32's time here.

    Args:
        config: may lack a trainer, or a precision, which then is Lightning's.
        before: what the run that it goes on with computed in; ``auto`` keeps to that on any machine.
        device: where it computes; the trainer's by default.
    """
    trainer = config.get("trainer")
    if not isinstance(trainer, dict):
        return config
    device = device or device_of(trainer)
    wanted = trainer.get("precision")
    if wanted == AUTO and before is None:
        choice = choose(device)
        _tell(
            f"precision: auto is {choice.precision} here: {choice.reason}",
            choice.reason.partition(" on this")[0].partition("takes ")[2],
        )
        return with_precision(config, choice.precision)
    if wanted == AUTO:
        _tell(f"precision: auto is {before}, as before", "as before")
        config = with_precision(config, str(before))
    warn(before if wanted == AUTO else wanted, device)
    return config


def one_off(precision: str, device: torch.device) -> str:
    """Like :func:`settle`, for a command without a trainer: the precision given, or what ``auto`` means."""
    where = Device(device.type, () if device.index is None else (device.index,))
    return str(settle({"trainer": {"precision": precision}}, device=where)["trainer"]["precision"])


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a network computes as under a trainer of that precision, ``32-true`` or a mixed one."""
    half = _half(precision, Device(device.type))
    return torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None)


def measuring(device: torch.device) -> torch.autocast:
    """The context of what compares figures: analyses, completions of masked images, attention maps. Float32 on
    any machine, so that figures of two are of one kind. On digits (AVX-512 with bfloat16 units) networks in bfloat16
    would spare 30 % of an analysis and shift diversity by 0.7 %, its spread by 1.1 %, CKA by 0.2 %; they spare 3 % of
    completing images and shift a loss by 0.08 %, which its table shows.
    """
    return autocast(EXACT, device)


def warn(precision: Any, device: Device, field: str = "trainer.precision", exact: str = EXACT) -> None:
    """Warn of a trainer's precision that is slow on a device. It was asked for by ``field``, which calls float32
    ``exact``."""
    ratio = cost(precision, device)
    if ratio is None or ratio <= SLOW:
        return
    kind = str(_half(precision, device)).removeprefix("torch.")
    where = torch.backends.cpu.get_cpu_capability() if device.kind == "cpu" else torch.cuda.get_device_name()
    _say(
        f"warning: {field} {precision}: a {kind} product takes {ratio:.0f} times as long as float32's here ({where}), "
        f"and so will most of the run; {exact} would be faster"
    )


def _tell(text: str, reason: str) -> None:
    """Leave a line to the details of a run, or print it."""
    if keeps_details():
        detail(text, precision=reason)
    else:
        _say(text)


@functools.cache
def _say(text: str) -> None:
    """Print a line once in a process: the fits of a table share it."""
    say(text)


def is_auto(config: dict[str, Any]) -> bool:
    """Whether a resolved recipe leaves its precision open."""
    trainer = config.get("trainer")
    return isinstance(trainer, dict) and trainer.get("precision") == AUTO


def of(config: Any) -> str | None:
    """The precision that a resolved recipe names; ``None`` where it names none."""
    trainer = config.get("trainer") if isinstance(config, dict) else None
    named = trainer.get("precision") if isinstance(trainer, dict) else None
    return None if named in (None, AUTO) else str(named)


def with_precision(config: dict[str, Any], precision: str) -> dict[str, Any]:
    """A copy of a resolved recipe that computes in ``precision``."""
    config = deepcopy(config)
    config["trainer"]["precision"] = precision
    return config
