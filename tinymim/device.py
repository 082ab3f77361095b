"""The device that a run or a command computes on."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any, NamedTuple

import torch

from tinymim.errors import TinymimError
from tinymim.safety import text


class Device(NamedTuple):
    """Device of a run."""

    kind: str  # ``cpu``, ``cuda``, ``mps`` or another
    numbers: tuple[int, ...] = ()  # of its GPUs; empty is all
    forked: bool = False  # whether processes are yet to be forked off this one, which then may not touch its GPUs


def device_of(trainer: dict[str, Any]) -> Device:
    """The device of a trainer of these options; options that are wrong are left for Lightning to name."""
    kind = str(trainer.get("accelerator") or "auto").lower()
    if kind in ("auto", "gpu"):
        best = "mps" if torch.backends.mps.is_available() else "cuda" if torch.cuda.is_available() else "cpu"
        kind = best if kind == "auto" or best != "cpu" else "gpu"
    if kind != "cuda":
        return Device(kind)
    if not torch.cuda.is_available():
        return Device("gpu")
    here, devices = torch.cuda.device_count(), trainer.get("devices")
    forked = any(word in str(trainer.get("strategy")) for word in ("fork", "notebook"))
    with contextlib.suppress(ValueError, TypeError):
        if isinstance(devices, str) and "," in devices:
            devices = devices.strip("[]").split(",")
        wanted = map(int, devices) if isinstance(devices, list) else range(min(int(str(devices)), here))
        return Device(kind, tuple(number for number in wanted if number < here), forked)
    return Device(kind, (), forked)


def usable_device(name: str) -> torch.device:
    """The device of that name, once it is known to be usable; ``auto`` is a GPU if there is one.

    Raises:
        TinymimError: no device, or none that is here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, on names of old
            device = torch.device(name)
    except RuntimeError:
        raise TinymimError(f"device: {text.brief(name)} is no device; cpu, cuda, cuda:1, ..., or auto") from None
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cpu" and device.index:
        raise TinymimError(f"device: {name}: there is one cpu; OMP_NUM_THREADS limits its cores")
    if gpus and (device.index or 0) >= gpus:
        raise TinymimError(f"device: {name}: there are {gpus} here, from cuda:0 on")
    try:
        torch.zeros(1, device=device).item()  # a device without numbers, as meta, has none to give
    except (RuntimeError, AssertionError, ImportError, AttributeError) as error:
        why = str(error).splitlines()[0].partition(". ")[0]
        raise TinymimError(f"device: {name} cannot be used here ({why}); cpu, cuda, or auto") from None
    return device
