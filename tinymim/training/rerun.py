"""A captured step, run again: what is logged, what every part puts out, and where that stops being finite."""

from __future__ import annotations

import copy
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from tinymim.seeds import restore
from tinymim.training import captured_step


@dataclass
class Place:
    """A tensor met in the forward pass: extremes of its finite values, and how many of its values are not."""

    name: str
    shape: tuple[int, ...]
    least: float
    most: float
    bad: int

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> Place:
        """Look at a tensor."""
        values = tensor.detach().float()
        right = values[values.isfinite()]
        least, most = (float(right.min()), float(right.max())) if len(right) else (float("nan"), float("nan"))
        return cls(name, tuple(tensor.shape), least, most, values.numel() - right.numel())


@dataclass
class Outcome:
    """What a replay saw: what was logged, the tensors in the order they were made, and the bad gradients."""

    terms: dict[str, float] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    gradients: list[Place] = field(default_factory=list)
    loss: bool = False
    operation: str = ""


def replay(content: dict[str, Any], module: pl.LightningModule, trainer: pl.Trainer) -> Outcome:
    """Forward and backward of the captured step; no weight changes.

    Gradients that hold NaN though the loss is finite are looked for a second time, with autograd's anomaly detection.
    """
    outcome = Outcome()
    stored = [content["state_dict"], *({"batch": batch} for _, batch in content["batches"])]
    for name, tensor in (pair for part in stored for pair in captured_step.tensors(part)):
        if tensor.is_floating_point() and tensor.numel():
            outcome.places.append(Place.of(name, tensor))
    handles = _watch(module, outcome)
    _step(content, module, trainer, outcome)
    for handle in handles:
        handle.remove()
    for name, parameter in reversed(list(module.named_parameters())):
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            outcome.gradients.append(Place.of(name, parameter.grad))
    if outcome.gradients and not outcome.loss:
        outcome.operation = _anomaly(content, module, trainer)
    return outcome


def _step(content: dict[str, Any], module: pl.LightningModule, trainer: pl.Trainer, outcome: Outcome) -> None:
    """One pass over the batches, from the captured weights, modes and random states."""
    device = trainer.strategy.root_device
    module.load_state_dict(content["state_dict"])
    module.train()
    for name in content["eval_modules"]:
        module.get_submodule(name).training = False
    module.zero_grad(set_to_none=True)
    module.log = lambda name, value, *args, **options: outcome.terms.update({name: float(value)})  # type: ignore[method-assign, misc]
    restore(content["rng"], device)
    for batch_idx, batch in copy.deepcopy(content["batches"]):
        batch = trainer.precision_plugin.convert_input(module.transfer_batch_to_device(batch, device, 0))
        with trainer.precision_plugin.train_step_context():
            output: Any = module.training_step(batch, batch_idx)
        loss = output["loss"] if isinstance(output, dict) else output
        outcome.places.append(Place.of("loss", loss))
        outcome.loss |= not bool(loss.isfinite().all())
        (loss / trainer.accumulate_grad_batches).backward()


def _watch(module: nn.Module, outcome: Outcome) -> list[Any]:
    """Hooks that look at what every module puts out, the teacher's included, which is no submodule."""
    watched = [(name or type(module).__name__, inner) for name, inner in module.named_modules()]
    if isinstance(teacher := getattr(module, "teacher", None), nn.Module):
        watched += [(f"teacher.{name}".rstrip("."), inner) for name, inner in teacher.named_modules()]

    def hook(name: str) -> Any:
        def look(_: nn.Module, inputs: Any, output: Any) -> None:
            for part, tensor in captured_step.tensors(output):
                if tensor.is_floating_point() and tensor.numel():
                    outcome.places.append(Place.of(f"{name} {part}".strip(), tensor))

        return look

    return [inner.register_forward_hook(hook(name)) for name, inner in watched]


def _anomaly(content: dict[str, Any], module: pl.LightningModule, trainer: pl.Trainer) -> str:
    """The operation whose backward pass gives the first NaN, and the line that called it; empty where there is none."""
    with warnings.catch_warnings(record=True) as said, torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("always")
        try:
            _step(content, module, trainer, Outcome())
        except RuntimeError as error:
            if "returned nan values" not in str(error):
                raise
            traceback = "".join(str(one.message) for one in said if "Traceback of forward call" in str(one.message))
            lines = re.findall(r'File "(.+?)", line (\d+), in (\w+)', traceback)
            own = [line for line in lines if "/site-packages/torch/" not in line[0]]
            where = ", called in {2}, {0}:{1}".format(*own[-1]) if own else ""
            return str(error).split("'")[1] + where
    return ""
