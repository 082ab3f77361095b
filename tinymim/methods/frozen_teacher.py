"""Frozen teacher: runs in inference mode and is not a submodule, so DDP and checkpoints ignore it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed as dist
from timm.layers import DropPath
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from tinymim.errors import TinymimError
from tinymim.precision import device_of, warn
from tinymim.vit.architecture import set_drop_path
from tinymim.vit.backbone import Backbone
from tinymim.vit.taps import Readings, Tap, kept_tokens

View = Literal["visible", "whole"]
Stored = dict[str, Any]
"""Stored readings of a batch, from :meth:`tinymim.methods.cached_teacher.CachedTeacher.fetch`."""

Precision = Literal["auto", "float32", "bfloat16"]
"""Precision of a teacher: ``auto`` is the student's."""


def teacher_dtype(precision: Precision, run: str, field: str) -> torch.dtype | None:
    """The type a teacher computes in, for :class:`FrozenTeacher`.

    Args:
        precision: of the teacher, as the recipe has it.
        run: the trainer's precision.
        field: of the recipe, for the error.

    Raises:
        TinymimError: the run builds all networks in another type than float32, a teacher of its own precision too.
    """
    if precision == "auto":
        return torch.bfloat16 if run == "bf16-mixed" else None
    if run != "32-true" and not run.endswith("-mixed"):
        raise TinymimError(
            f"{field}: {precision} goes with a trainer.precision of 32-true, bf16-mixed or 16-mixed, and it "
            f"is {run}; use auto"
        )
    if precision == "bfloat16" and run != "bf16-mixed":  # of which the trainer's own has told
        warn(precision, device_of({}), field, "float32")
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@contextmanager
def computing(dtype: torch.dtype | None, kind: str) -> Iterator[bool]:
    """Compute in ``dtype`` on a ``kind`` of device, ``None`` as the run does; gives whether the run does otherwise."""
    run = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    ours = dtype or run
    with torch.autocast(kind, ours, enabled=ours != torch.float32):
        yield ours != run


def given_out(readings: Readings, differs: bool) -> Readings:
    """Copies that can enter autograd, as inference tensors cannot; float32 where the run computes in another type."""
    return {tap: x.to(torch.float32 if differs else x.dtype, copy=True) for tap, x in readings.items()}


class FrozenTeacher:
    """Reads a teacher's taps for a training step. It is no module on purpose: its owner neither trains, moves nor saves
    it.

    Args:
        backbone: in eval mode, without gradients.
        taps: what is read; blocks beyond the deepest are dropped.
        drop_path: stochastic depth in training steps; the paper's best is none (Table 13).
        ramp: see :func:`tinymim.vit.architecture.set_drop_path`.
        dtype: what it computes in, whatever its student does. With bfloat16 the weights of matrix products are held in
            it: the same numbers as autocast's own casts, done once instead of in every step. ``None`` follows the run.
        view: what a masked step shows it: the ``visible`` patches, or the ``whole`` image, of which the kept tokens are
            then taken.
        compiled: run its blocks through ``torch.compile``.
        shared_on: this process's device, to share the blocks that are not tapped among all processes (see
            :func:`shard`); ``None`` leaves the teacher whole.
    """

    def __init__(
        self,
        backbone: Backbone,
        taps: list[Tap],
        drop_path: float = 0.0,
        ramp: Literal["linear", "constant"] = "constant",
        dtype: torch.dtype | None = None,
        view: View = "visible",
        compiled: bool = False,
        shared_on: torch.device | None = None,
    ):
        self.backbone, self.taps, self.view, self.dtype = backbone, taps, view, dtype
        if drop_path:
            set_drop_path(backbone.vit, drop_path, ramp)
        backbone.vit.blocks = backbone.vit.blocks[: max(tap.block for tap in taps)]
        if dtype == torch.bfloat16:
            for module in backbone.modules():
                if isinstance(module, (nn.Linear, nn.Conv2d)):
                    module.to(torch.bfloat16)
        if compiled:
            backbone.compile_blocks()
        self.processes = shard(backbone, {tap.block for tap in taps}, shared_on) if shared_on else 1
        self._drop_paths = [module for module in backbone.modules() if isinstance(module, DropPath)]
        self._device = torch.device("cpu")

    def read(
        self, images: Tensor, keep: Tensor | None = None, training: bool = False, stored: Stored | None = None
    ) -> Readings:
        """Its taps.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1].
            keep: ``(B, K)`` indices of the patches that a masked student sees.
            training: let its drop path, if any, act. In evaluation, where processes may have different numbers of
                batches, those that share a teacher end with :meth:`finish`.
            stored: for :class:`tinymim.methods.cached_teacher.CachedTeacher`.

        Returns:
            ``(B, prefix + N, D)`` for each tap, or K patches instead of N; in float32 where the teacher computes in
            another type than the run.
        """
        if images.device != self._device:
            self.backbone.to(images.device)
            self._device = images.device
        for module in self._drop_paths:
            module.train(training)
        if not training:
            self._any_reads(True)
        readings = self._read(images, keep if self.view == "visible" else None)
        if keep is None or self.view == "visible":
            return readings
        return {
            tap: kept_tokens(tokens, keep, self.backbone.prefix) if tokens.dim() == 3 else tokens
            for tap, tokens in readings.items()
        }

    def _read(self, images: Tensor, keep: Tensor | None) -> Readings:
        # FSDP2 keeps what it gathers into between reads, and promises nothing for inference tensors
        frozen = torch.no_grad() if self.processes > 1 else torch.inference_mode()
        with frozen, computing(self.dtype, images.device.type) as differs:
            readings = self.backbone.read(images, self.taps, keep)
        return given_out(readings, differs)

    def finish(self) -> None:
        """End an evaluation: help with the reads of those who share this teacher, until they are all here."""
        while self._any_reads(False):
            self._read(torch.zeros(1, 3, *self.backbone.image_size, device=self._device), None)

    def _any_reads(self, reading: bool) -> bool:
        """Whether any process that shares this teacher is about to read it; without sharing, nobody needs to know."""
        if self.processes == 1:
            return False
        readers = torch.tensor(int(reading), device=self._device)
        dist.all_reduce(readers)
        return reading or bool(readers)  # who reads does not wait for the answer

    def describe(self) -> str:
        """For people, what is not as usual; empty if nothing is."""
        parts = [f"computes in {str(self.dtype).removeprefix('torch.')}"] if self.dtype else []
        if (old := self.backbone.resampled_from) is not None:
            new = self.backbone.grid
            parts.append(f"positions resampled from {old[0]}x{old[1]} patches to {new[0]}x{new[1]}")
        if self.processes > 1:
            parts.append(f"shared by {self.processes} processes, {held(self.backbone):,} weights in each")
        return ", ".join(parts)


def shard(backbone: Backbone, whole: set[int], device: torch.device) -> int:
    """Share the weights of a frozen backbone's blocks evenly among all processes; a read gathers them block by block.

    Processes must then read together. ``device`` never holds more than one whole block, or two while the next is being
    gathered, beside its share, the stem and the ``whole`` blocks. Each process's host memory holds all of the weights
    before that, twice while they are loaded.

    Args:
        backbone: changed in place, its blocks one after another; in the memory of the host until then.
        whole: blocks (from 1) that are run part by part, out of sight of FSDP2's hooks, and so stay whole.
        device: where the shares go.

    Returns:
        The processes that share it. One alone has nobody to share with, and leaves the backbone as it is.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    if world == 1:
        return 1
    mesh = init_device_mesh(device.type, (world,))
    shared = [block for number, block in enumerate(backbone.vit.blocks, start=1) if number not in whole]
    for block in shared:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    inner = {parameter for block in shared for parameter in block.parameters()}
    # one root for all blocks: the next one is gathered while this one computes
    fully_shard(backbone, mesh=mesh, ignored_params=set(backbone.parameters()) - inner)
    register_fsdp_forward_method(backbone, "read")
    return world


def held(module: nn.Module) -> int:
    """Weights of ``module`` that this process holds."""
    parts = (p.to_local() if isinstance(p, DTensor) else p for p in module.parameters())
    return sum(part.numel() for part in parts)
