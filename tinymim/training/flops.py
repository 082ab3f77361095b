"""Cost of a training step in floating-point operations, counted by PyTorch on two training images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import override

from tinymim.data.sampler import Draw
from tinymim.seeds import restore, snapshot
from tinymim.vit.backbone import Backbone

IMAGES = 2
"""Images in the sample batch; mixup needs two."""


class FlopCount(pl.Callback):
    """Count a training step's operations once, when training has ended.

    A multiplication with its addition are two operations. Matrix products and convolutions count, of the forward and
    backward pass of all networks, a teacher's forward pass among them; norms, softmax and other elementwise work do
    not, nor what is computed a second time to save memory, nor kernels in Triton. Of a cached teacher only what is left
    to do in a step counts.
    """

    flops = 0
    """Operations for each image, forward and backward."""

    @override
    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.flops = per_image(trainer, module)


def per_image(trainer: pl.Trainer, module: pl.LightningModule) -> int:
    """Operations of a training step for each of its images.

    Args:
        trainer: of the run.
        module: what it trains; weights, gradients, buffers and random numbers stay as they are.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    draws = [Draw(0, index) for index in range(min(IMAGES, len(data.train)))]
    loaded = next(iter(DataLoader(data.train, IMAGES, sampler=draws)))
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    with (
        _unchanged(module),
        torch.compiler.set_stance("force_eager"),
        sdpa_kernel(SDPBackend.MATH),
        trainer.precision_plugin.train_step_context(),
        ExitStack() as counting,
    ):
        if "view" in loaded:  # a teacher cache may lack these images: fill it outside of the count
            module.training_step(_on_device(trainer, loaded), 0)
        counter = counting.enter_context(FlopCounterMode(display=False))
        batch = _on_device(trainer, loaded)
        output: Any = module.training_step(batch, 0)
        loss = output["loss"] if isinstance(output, dict) else output
        torch.autograd.grad(loss, parameters, allow_unused=True)  # unlike backward: no gradient is kept or shared
    return counter.get_total_flops() // len(draws)


def _on_device(trainer: pl.Trainer, batch: Any) -> Any:
    """Finish a loader's batch as the module gets it."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if hasattr(data, "on_before_batch_transfer"):
        batch = data.on_before_batch_transfer(batch, 0)
    return trainer.strategy.batch_to_device(batch)


@contextmanager
def _unchanged(module: pl.LightningModule) -> Iterator[None]:
    """Silence logging and activation checkpointing, and restore random numbers and buffers."""
    states = snapshot(module.device)
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    checkpointing = [m for m in module.modules() if isinstance(m, Backbone) and m.checkpointing]
    for backbone in checkpointing:
        backbone.checkpointing = False
    module.log = lambda *args, **options: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.log
        for backbone in checkpointing:
            backbone.checkpointing = True
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
        restore(states, module.device)
