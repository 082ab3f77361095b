"""A training step in a file: all that ``tinymim replay`` needs to run it again.

The file is read by ``torch.load(weights_only=True)`` and holds tensors and plain values alone, those of
:class:`tinymim.training.run_schemas.Capture`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from tinymim.errors import TinymimError
from tinymim.files import write_atomically
from tinymim.seeds import snapshot
from tinymim.teachers import record_schemas, safe_pickle
from tinymim.training import run_schemas
from tinymim.training.run_folder import RECIPE, check_capture
from tinymim.vit.conventions import CONVENTIONS, Conventions

FORMAT = 1
MOST_VALUES = 25_000
"""Tensors, texts and numbers in all batches of a capture: each takes time to be measured."""

DATA_FIELDS = ("image_size", "num_classes", "mask_classes", "box_classes", "batch_size")


@dataclass
class Step:
    """One optimiser step from before it runs: random states, copies of the buffers, references to its batches.

    Buffers are copied because the forward pass may change them; parameters change only when the step is applied.
    """

    number: int
    epoch: int
    rng: dict[str, Any]
    buffers: dict[str, Tensor]
    batches: list[tuple[int, Any]] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)

    @classmethod
    def begin(cls, trainer: pl.Trainer, module: pl.LightningModule, buffers: Iterable[str]) -> Step:
        """The step that is about to run."""
        kept = {name: module.get_buffer(name).detach().clone() for name in buffers}
        return cls(trainer.global_step + 1, trainer.current_epoch, snapshot(module.device), kept)

    def add(self, batch_idx: int, batch: Any) -> None:
        """Note a batch, and the state of its tensors."""
        self.batches.append((batch_idx, batch))
        self.versions += _versions(batch)

    def restore_buffers(self, module: pl.LightningModule) -> None:
        """Put them back as they were, after a forward pass that must leave no trace."""
        with torch.no_grad():
            for name, before in self.buffers.items():
                module.get_buffer(name).copy_(before)

    def write(
        self,
        path: Path,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        state: dict[str, Any],
        faults: dict[str, Any],
    ) -> None:
        """Write the file, whole or not at all.

        Args:
            path: of the file.
            trainer: of the run.
            module: that took the step.
            state: its state dict, with the parameters as they were before this step.
            faults: ``loss``, ``gradients`` and ``weights`` of a :class:`tinymim.training.run_schemas.Capture`.
        """
        recipe = Path(trainer.default_root_dir) / RECIPE
        data = getattr(trainer, "datamodule", None)
        content = {
            "tinymim_capture": FORMAT,
            "step": self.number,
            "epoch": self.epoch,
            "rank": trainer.global_rank,
            "world_size": trainer.world_size,
            **faults,
            "batches": plain(self.batches),
            "changed": self.versions != _versions([batch for _, batch in self.batches]),
            "rng": self.rng,
            "state_dict": plain({**state, **self.buffers}),
            "eval_modules": [name for name, inner in module.named_modules() if not inner.training],
            "recipe": recipe.read_text() if recipe.is_file() else "",
            "precision": str(trainer.precision),
            "data": {name: plain(getattr(data, name, None)) for name in DATA_FIELDS},
            "teacher": teacher(module),
            CONVENTIONS: getattr(module, CONVENTIONS, Conventions()).record(),
        }
        write_atomically(path, lambda temporary: torch.save(content, temporary))


def read(path: Path) -> dict[str, Any]:
    """The content of a capture.

    Raises:
        TinymimError: no such file, or none that a guard wrote.
    """
    check_capture(path)
    try:
        content = safe_pickle.load(path, mapped=True)
    except TinymimError as error:
        raise TinymimError(f"{path} cannot be read as a capture: {error}") from None
    if not isinstance(content, dict) or content.get("tinymim_capture") != FORMAT:
        raise TinymimError(
            f"{path} is no captured step of this version of tinymim; those are named nonfinite/step_N.pt"
        )
    what = f"captured step {path}"
    record_schemas.fit(
        {**content, "batches": [list(batch) for batch in _listed(content.get("batches"))]}, run_schemas.Capture, what
    )
    odd = [name for name, value in content["state_dict"].items() if not isinstance(value, Tensor)]
    if odd or not isinstance(content["rng"].get("torch"), Tensor):
        raise TinymimError(f"{what}: {', '.join(map(str, odd[:4])) or 'rng.torch'}: no tensor, and one belongs there")
    _check_batches(content, what)
    return content


def _check_batches(content: dict[str, Any], what: str) -> None:
    """Raise where batches and weights take more memory, or time, than the bytes of the file: tensors are written each
    with values of its own, so that an expanded one, or one batch many times, is not what a guard wrote."""
    count, storages = 0, set()
    waiting: list[Any] = [content["batches"], content["state_dict"]]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            if value.numel() and value.device.type != "meta":
                if storage.nbytes() < value.numel() * value.element_size() or storage.data_ptr() in storages:
                    raise TinymimError(
                        f"{what}: batches: a tensor of shape {tuple(value.shape)} shares its values with others or "
                        "with itself, and each has its own in a captured step"
                    )
                storages.add(storage.data_ptr())
        elif isinstance(value, dict | list | tuple):
            waiting += value.values() if isinstance(value, dict) else value
            if value is not content["state_dict"] and (count := count + len(value)) > MOST_VALUES:
                raise TinymimError(f"{what}: batches: more than {MOST_VALUES:,} values; a batch has a few tensors")


def _listed(value: Any) -> list[Any]:
    """A list of lists or tuples as it is, and nothing in place of anything else."""
    right = isinstance(value, list | tuple) and all(isinstance(part, list | tuple) for part in value)
    return list(value) if right else []


def teacher(module: pl.LightningModule) -> str | None:
    """sha256 of the teacher's weights, or ``None`` without a teacher."""
    record: dict[str, Any] = getattr(module, "provenance_record", dict)()
    return record["teacher"]["sha256"] if "teacher" in record else None


def plain(value: Any) -> Any:
    """Tensors on the CPU, containers and plain values as they are, and the text of everything else."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


def tensors(value: Any, name: str = "") -> Iterable[tuple[str, Tensor]]:
    """The tensors in nested containers, with dotted names."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from tensors(inner, f"{name}[{number}]")


def finite_each(parts: list[Tensor], device: torch.device) -> Tensor:
    """``(P,)``: whether all values of each are finite. Waits for no GPU.

    By the largest magnitude on a GPU. On a CPU PyTorch finds that many times slower than the 2-norm, which serves
    there, and is checked value by value where it is not finite, for it overflows above 1e19.
    """
    if not parts:
        return torch.ones(0, dtype=torch.bool, device=device)
    if device.type != "cpu":
        return torch.stack(torch._foreach_norm(parts, float("inf"))).isfinite()
    finite = torch.stack(torch._foreach_norm(parts)).isfinite()
    for number in finite.logical_not().nonzero().flatten().tolist():
        finite[number] = parts[number].isfinite().all()
    return finite


def nonfinite(named: Iterable[tuple[str, Tensor]]) -> list[str]:
    """The names of those that hold NaN or infinity. Waits for the device."""
    floats = [(name, tensor.detach()) for name, tensor in named if tensor.is_floating_point() and tensor.numel()]
    if not floats:
        return []
    finite = finite_each([tensor for _, tensor in floats], floats[0][1].device).tolist()
    return [name for (name, _), right in zip(floats, finite, strict=True) if not right]


def bad_samples(batch: Any) -> list[int]:
    """The ``index`` of each sample of a batch that holds NaN or infinity."""
    index = batch.get("index") if isinstance(batch, dict) else None
    if not isinstance(index, Tensor):
        return []
    bad = torch.zeros(len(index), dtype=torch.bool)
    for _, tensor in tensors(batch):
        if tensor.is_floating_point() and tensor.dim() and len(tensor) == len(bad):
            bad |= ~tensor.isfinite().reshape(len(bad), -1).all(1)
    return index[bad].tolist()


def _versions(batch: Any) -> list[int]:
    return [tensor._version for _, tensor in tensors(batch)]
